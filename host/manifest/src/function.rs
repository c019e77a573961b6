//! `[[exports]]`: the functions of a function plugin, so that they are known without running anything.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::{did_you_mean, each, object};
use crate::manifest::Error;

/// Functions of one plugin: more than a person would look through; split the plugin.
pub const EXPORTS_MAX: usize = 64;
/// Arguments of one function. SQL's own take up to six.
pub const ARGUMENTS_MAX: usize = 16;
/// Columns of one table function: as wide as the widest table.
pub const COLUMNS_MAX: usize = 64;

const EXPORT: &[&str] = &["name", "kind", "args", "returns", "columns", "nulls", "volatility", "description"];
const ARGUMENT: &[&str] = &["name", "type", "description"];
const COLUMN: &[&str] = &["name", "type", "semantic", "unit", "description"];

/// A function that scripts and SQL call by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Lower case letters, digits and `_`, as SQL writes names without quotes.
    pub name: String,
    /// What it is a function of.
    #[serde(default)]
    pub kind: ExportKind,
    /// What it takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Argument>,
    /// What a scalar function or an aggregate gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns: Option<ValueType>,
    /// What a table function gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ExportColumn>,
    /// What is done with nulls.
    #[serde(default)]
    pub nulls: Nulls,
    /// On what its result depends.
    #[serde(default)]
    pub volatility: Volatility,
    /// One sentence.
    pub description: String,
}

/// What a function is a function of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportKind {
    /// The values of a row.
    #[default]
    Scalar,
    /// The values of many rows.
    Aggregate,
    /// Its arguments alone: it gives rows.
    Table,
}

/// What is done with rows in which an argument is null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nulls {
    /// A scalar function's value is null there; an aggregate does not see them.
    #[default]
    Propagate,
    /// The function is given them.
    Pass,
}

/// On what a function's result depends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Volatility {
    /// Its arguments alone: it may be called once for each distinct value.
    #[default]
    Immutable,
    /// The query too.
    Stable,
    /// It is called for every row.
    Volatile,
}

/// Type of an argument or a result, as the contract has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueType {
    /// True or false.
    Boolean,
    /// Signed, 64 bits.
    Int64,
    /// 128 bits: upids.
    Uint128,
    /// IEEE 754 double.
    Float64,
    /// Text.
    Utf8,
    /// Bytes.
    Binary,
    /// Instant: ns since the epoch.
    TimeNs,
    /// Length of time in ns.
    DurationNs,
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    /// Name, for messages and help.
    pub name: String,
    /// Type it is converted to before the function sees it.
    #[serde(rename = "type")]
    pub value_type: ValueType,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A column of a table function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportColumn {
    /// Lower case letters, digits and `_`.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub value_type: ValueType,
    /// What the value means beyond its type (`ST_BYTES`, ...).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub semantic: String,
    /// Unit of a number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl ValueType {
    /// The word used in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int64 => "int64",
            Self::Uint128 => "uint128",
            Self::Float64 => "float64",
            Self::Utf8 => "utf8",
            Self::Binary => "binary",
            Self::TimeNs => "time-ns",
            Self::DurationNs => "duration-ns",
        }
    }
}

impl ExportKind {
    /// The word used in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Aggregate => "aggregate",
            Self::Table => "table",
        }
    }
}

impl Export {
    /// `most_common(value utf8) -> utf8`
    pub fn signature(&self) -> String {
        let args: Vec<_> = self.args.iter().map(|a| format!("{} {}", a.name, a.value_type.name())).collect();
        let gives = match self.returns {
            Some(value_type) => value_type.name().to_owned(),
            None => "table".to_owned(),
        };
        format!("{}({}) -> {gives}", self.name, args.join(", "))
    }
}

pub(crate) fn keys(manifest: &Value) -> Result<(), Error> {
    each(manifest, "exports", |export, path| {
        object(export, path, EXPORT)?;
        each(export, "args", |v, at| object(v, &format!("{path}.{at}"), ARGUMENT))?;
        each(export, "columns", |v, at| object(v, &format!("{path}.{at}"), COLUMN))
    })
}

pub(crate) fn meaning(exports: &[Export]) -> Result<(), Error> {
    let fault = |message: String| Error::new(format!("plugin.toml: {message}"));
    if exports.is_empty() {
        return Err(fault("a plugin of kind function has no [[exports]]".into())
            .hint("declare each function: name, kind (scalar, aggregate or table), args, and returns or columns"));
    }
    if exports.len() > EXPORTS_MAX {
        return Err(fault(format!("exports has {} entries, at most {EXPORTS_MAX} are allowed", exports.len())));
    }
    for (i, export) in exports.iter().enumerate() {
        let at = format!("exports[{i}]");
        name(&export.name, &format!("{at}.name"))?;
        // SQL has one name space for scalar functions and aggregates, and people have one for all.
        if exports[..i].iter().any(|e| e.name == export.name) {
            return Err(fault(format!("{at}.name `{}` is taken", export.name))
                .hint("a plugin has one function of a name; give this one another"));
        }
        if export.description.trim().is_empty() {
            return Err(fault(format!("{at}.description is empty; say in one sentence what `{}` gives", export.name)));
        }
        if export.args.len() > ARGUMENTS_MAX {
            let len = export.args.len();
            return Err(fault(format!("{at}.args has {len} entries, at most {ARGUMENTS_MAX} are allowed")));
        }
        for (j, argument) in export.args.iter().enumerate() {
            name(&argument.name, &format!("{at}.args[{j}].name"))?;
            if export.args[..j].iter().any(|a| a.name == argument.name) {
                return Err(fault(format!("{at}.args[{j}].name `{}` is taken", argument.name)));
            }
        }
        gives(export, &at)?;
    }
    Ok(())
}

/// A result of the kind's own shape.
fn gives(export: &Export, at: &str) -> Result<(), Error> {
    let fault = |message: String| Error::new(format!("plugin.toml: {at}: {message}"));
    let (called, kind) = (&export.name, export.kind.name());
    match (export.kind, export.returns, export.columns.is_empty()) {
        (ExportKind::Table, Some(_), _) => {
            return Err(fault(format!("`{called}` is a table function and has `returns`"))
                .hint("a table function has columns = [{ name, type }, …]"));
        }
        (ExportKind::Table, None, true) => {
            return Err(fault(format!("`{called}` is a table function without columns"))
                .hint("add columns = [{ name = \"start\", type = \"time-ns\" }, …]"));
        }
        (ExportKind::Table, None, false) => {}
        (_, _, false) => {
            return Err(fault(format!("`{called}` is of kind {kind} and has columns"))
                .hint("write kind = \"table\", or returns = \"utf8\" in place of the columns"));
        }
        (_, None, true) => {
            return Err(fault(format!("`{called}` does not say what it gives"))
                .hint("add returns = \"utf8\" (or boolean, int64, uint128, float64, binary, time-ns, duration-ns)"));
        }
        (ExportKind::Aggregate, Some(_), true) if export.args.is_empty() => {
            return Err(fault(format!("the aggregate `{called}` takes nothing"))
                .hint("an aggregate takes the values it puts together; count(*) is SQL's own"));
        }
        (_, Some(_), true) => {}
    }
    if export.kind == ExportKind::Aggregate && export.volatility == Volatility::Volatile {
        return Err(fault(format!("the aggregate `{called}` is volatile, and so could not be merged over nodes"))
            .hint("leave volatility out"));
    }
    if export.columns.len() > COLUMNS_MAX {
        return Err(fault(format!("columns has {} entries, at most {COLUMNS_MAX} are allowed", export.columns.len())));
    }
    for (j, column) in export.columns.iter().enumerate() {
        name(&column.name, &format!("{at}.columns[{j}].name"))?;
        if export.columns[..j].iter().any(|c| c.name == column.name) {
            return Err(fault(format!("columns[{j}].name `{}` is taken", column.name)));
        }
    }
    Ok(())
}

fn name(name: &str, at: &str) -> Result<(), Error> {
    let mut bytes = name.bytes();
    let well = name.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if well {
        return Ok(());
    }
    let error = Error::new(format!(
        "plugin.toml: {at} `{name}` must start with a lower case letter and go on with at most 63 lower case letters, \
         digits or `_`"
    ));
    let fitting: String = name.to_lowercase().replace(['-', ' ', '.'], "_");
    Err(match did_you_mean(name, &[fitting.as_str()]) {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use crate::{Kind, Manifest};

    const HEAD: &str =
        "name = \"text\"\nversion = \"0.1.0\"\nkind = \"function\"\ndescription = \"Functions of text\"\n";

    fn toml(rest: &str) -> Result<Manifest, crate::Error> {
        Manifest::from_toml(&format!("{HEAD}{rest}"))
    }

    #[test]
    fn functions_survive_the_way_through_json() {
        let manifest = toml(
            r#"
            [[exports]]
            name = "redact"
            args = [{ name = "text", type = "utf8" }]
            returns = "utf8"
            description = "Without names"
            [[exports]]
            name = "common"
            kind = "aggregate"
            args = [{ name = "text", type = "utf8" }]
            returns = "utf8"
            nulls = "pass"
            description = "The text that is there most often"
            [[exports]]
            name = "bins"
            kind = "table"
            args = [{ name = "width", type = "duration-ns" }]
            columns = [{ name = "start", type = "time-ns" }]
            volatility = "stable"
            description = "Bins"
            "#,
        )
        .unwrap();
        assert_eq!((manifest.kind, manifest.world.as_str()), (Kind::Function, "pyxis:function@0.1.0"));
        assert_eq!(manifest.exports[0].signature(), "redact(text utf8) -> utf8");
        assert_eq!(Manifest::from_json(manifest.to_json().as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn mistakes_say_where_and_what_to_do() {
        let f = |rest: &str| format!("[[exports]]\nname = \"f\"\ndescription = \"d\"\n{rest}");
        for (text, says, hint) in [
            (String::new(), "no [[exports]]", "declare each function"),
            (f(""), "exports[0]: `f` does not say what it gives", "returns = \"utf8\""),
            (f("return = \"utf8\""), "unknown key `exports[0].return`", "did you mean `returns`?"),
            (f("returns = \"text\""), "unknown variant `text`", ""),
            (f("returns = \"utf8\"\nargs = [{ nam = \"a\" }]"), "unknown key `exports[0].args[0].nam`", "`name`"),
            (f("kind = \"table\"\nreturns = \"utf8\""), "is a table function and has `returns`", "columns ="),
            (f("kind = \"table\""), "without columns", "add columns"),
            (f("kind = \"aggregate\"\nreturns = \"utf8\""), "takes nothing", "count(*)"),
            (
                f("returns = \"utf8\"\n[[exports]]\nname = \"f\"\ndescription = \"d\"\nreturns = \"utf8\""),
                "exports[1].name `f` is taken",
                "another",
            ),
            (
                "[[exports]]\nname = \"Red-act\"\ndescription = \"d\"\nreturns = \"utf8\"".into(),
                "exports[0].name `Red-act` must start",
                "did you mean `red_act`?",
            ),
        ] {
            let error = toml(&text).unwrap_err();
            assert!(error.message.contains(says), "{text}: {}", error.message);
            assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{text}: {:?}", error.hint);
        }
        let error = Manifest::from_toml(&format!("{}{}", HEAD.replace("function", "script"), f("returns = \"utf8\"")));
        assert!(error.unwrap_err().message.contains("[[exports]] is for plugins of kind function"));
    }
}
