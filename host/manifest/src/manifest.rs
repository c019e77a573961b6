//! The manifest's shape.

use serde::{Deserialize, Serialize};

use crate::args::Arg;
use crate::check;
use crate::function::Export;
use crate::position::Position;
use crate::protocol::Protocol;

/// The world scripts are built for; what `world` is when a manifest leaves it out.
pub const WORLD: &str = "pyxis:script@0.1.0";
/// The same of functions.
pub const FUNCTION_WORLD: &str = "pyxis:function@0.1.0";
/// The same of protocols.
pub const PROTOCOL_WORLD: &str = "pyxis:protocol@0.1.0";

/// Longest manifest accepted, as JSON. The bundled ones take 1-3 KiB.
pub const MANIFEST_BYTES_MAX: usize = 64 << 10;

/// Why a manifest was refused. Says which key, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What is wrong, with the path of the key (`args[2].type`).
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Where in `plugin.toml`; none when the manifest came as JSON.
    pub position: Option<Position>,
    /// The key it is about, for whoever has the text.
    pub(crate) key: Option<String>,
}

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, position: None, key: None }
    }

    pub(crate) fn at(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    fn located(mut self, text: &str) -> Self {
        if self.position.is_none() {
            let key = self.key.as_deref().unwrap_or_else(|| first_key(&self.message));
            self.position = Position::of_key(text, key);
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a plugin is, what it takes, what it reads, what it shows, and the most it wants to use. What is declared here is
/// the most it may get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Lower case letters, digits, `_` and `-`; what `px run` takes.
    pub name: String,
    /// `1.2.3`
    pub version: String,
    /// Kind of plugin.
    #[serde(default)]
    pub kind: Kind,
    /// World it was built for.
    #[serde(default)]
    pub world: String,
    /// One sentence for lists.
    pub description: String,
    /// SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Arguments, in the order they are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
    /// Tables it reads. Any other is denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// Functions beyond SQL's own that its expressions call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<String>,
    /// Output tables, in the order they are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Output>,
    /// How output tables are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<View>,
    /// Functions of a function plugin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<Export>,
    /// What a protocol plugin looks at, and its table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// What `--follow` does.
    #[serde(default)]
    pub follow: Follow,
    /// Budgets it asks for; each is cut to what the host allows.
    #[serde(default)]
    pub budget: Budget,
}

/// Kind of plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Builds frames and shows them.
    #[default]
    Script,
    /// Functions that scripts and SQL call.
    Function,
    /// Parses a wire protocol.
    Protocol,
}

impl Kind {
    /// As plugin.toml has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Function => "function",
            Self::Protocol => "protocol",
        }
    }

    /// The world that plugins of this kind are built for.
    pub const fn world(self) -> &'static str {
        match self {
            Self::Script => WORLD,
            Self::Function => FUNCTION_WORLD,
            Self::Protocol => PROTOCOL_WORLD,
        }
    }
}

/// What following a script means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Follow {
    /// Runs again over the same length of time up to now; each result replaces the last.
    #[default]
    Refresh,
    /// Rows that are new since the last round are added.
    Tail,
}

/// An output table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Name given to `display` or `emit`.
    pub name: String,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// How an output table is shown. Everything but `table` has a sensible default; clients ignore what they cannot show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Output table.
    pub table: String,
    /// Heading; empty = the table's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Widget.
    #[serde(default)]
    pub widget: Widget,
    /// Columns in the order shown; those not named are hidden. Empty = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    /// Order for clients that sort again (an interactive table); the script has sorted already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<Sort>,
}

/// Widget of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Widget {
    /// Rows and columns.
    #[default]
    Table,
    /// Lines over time: first column of type time is x.
    Line,
    /// Bars: first text column names them.
    Bar,
}

/// How a column is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Column of the output table.
    pub name: String,
    /// Heading; empty = the name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// How values are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Most characters in a terminal, 0 = as wide as it needs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub width: u16,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_zero(n: &u16) -> bool {
    *n == 0
}

/// How values of a column are written. None = by the column's semantic type and unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// ns as `1.2 ms`.
    Duration,
    /// Bytes as `1.2 MiB`.
    Bytes,
    /// Share from 0 to 1 as `12.3 %`.
    Percent,
    /// A number a second: `12.3/s`.
    Rate,
    /// Bytes a second: `1.2 MiB/s`.
    Throughput,
    /// Plain number, digits grouped.
    Number,
    /// Plain number without grouping (ids, ports).
    Id,
    /// ns since the epoch as local time.
    Time,
    /// HTTP status, coloured by class.
    Status,
    /// As it is.
    Text,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sort {
    /// Column.
    pub column: String,
    /// Largest first.
    #[serde(default)]
    pub descending: bool,
}

/// Budgets a plugin asks for. None = the host's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Processor time in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_cpu_ms: Option<u64>,
    /// Memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Rows read from tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_scanned: Option<u64>,
    /// Rows put out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_rows: Option<u64>,
    /// Bytes put out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Time on the wall in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
}

/// Messages name the key they are about first: `plugin.toml: exports[0].name …`, `plugin.toml: [protocol] …`.
fn first_key(message: &str) -> &str {
    let words = message.strip_prefix("plugin.toml: ").unwrap_or(message);
    let word = words.split([' ', ':']).next().unwrap_or_default();
    if word.starts_with('[') { word.trim_matches(['[', ']']) } else { word }
}

impl Manifest {
    /// Reads `plugin.toml`.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(Error::new(format!(
                "plugin.toml has {} bytes, at most {MANIFEST_BYTES_MAX} are allowed",
                text.len()
            )));
        }
        let toml_error = |what: &str, e: &toml::de::Error| Error {
            position: e.span().map(|span| Position::of_byte(text, span.start)),
            ..Error::new(format!("{what}: {}", e.message().trim_end()))
        };
        let value: serde_json::Value =
            toml::from_str(text).map_err(|e| toml_error("plugin.toml is not valid TOML", &e))?;
        check::keys(&value).map_err(|e| e.located(text))?;
        // From the text once more: of what serde refuses, only TOML's own reader knows the place.
        let manifest: Self = toml::from_str(text).map_err(|e| toml_error("plugin.toml", &e))?;
        manifest.checked().map_err(|e| e.located(text))
    }

    /// Reads what [`Manifest::to_json`] wrote.
    pub fn from_json(text: &[u8]) -> Result<Self, Error> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(Error::new(format!(
                "the manifest has {} bytes, at most {MANIFEST_BYTES_MAX} are allowed",
                text.len()
            )));
        }
        let value =
            serde_json::from_slice(text).map_err(|e| Error::new(format!("the manifest is not valid JSON: {e}")))?;
        Self::from_value(value)
    }

    /// One line of JSON, always the same for the same manifest.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings, numbers and lists of them always serialise")
    }

    fn from_value(value: serde_json::Value) -> Result<Self, Error> {
        check::keys(&value)?;
        let manifest: Self = serde_json::from_value(value).map_err(|e| Error::new(format!("plugin.toml: {e}")))?;
        manifest.checked()
    }

    fn checked(mut self) -> Result<Self, Error> {
        if self.world.is_empty() {
            self.world = self.kind.world().into();
        }
        check::meaning(&self)?;
        Ok(self)
    }
}

impl View {
    /// Reads one view from JSON, as scripts declare them while they run.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value = serde_json::from_str(text).map_err(|e| Error::new(format!("the view is not valid JSON: {e}")))?;
        check::view_keys(&value)?;
        serde_json::from_value(value).map_err(|e| Error::new(format!("view: {e}")))
    }
}
