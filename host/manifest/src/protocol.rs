//! `[protocol]`: which connections a protocol plugin wants to see, and what its table holds.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::{did_you_mean, each, is_name, object};
use crate::manifest::Error;

/// Bytes of a beginning that the kernel compares: a word.
pub const BEGINNING_BYTES_MAX: usize = 8;
/// Bits of a beginning that must count. With fewer, a connection that speaks something else would be copied all too often:
/// two bytes of random data agree once in 65,536.
pub const BEGINNING_BITS_MIN: u32 = 16;
/// Beginnings of one plugin: the kernel compares them all with each first call of a connection.
pub const BEGINNINGS_MAX: usize = 40;
/// Ports of one plugin.
pub const PORTS_MAX: usize = 8;
/// Columns of its table, beside those that the host adds.
pub const COLUMNS_MAX: usize = 48;

/// Columns that the host puts before the plugin's own.
pub const HOST_COLUMNS: &[&str] =
    &["time_", "upid", "remote_addr", "remote_port", "local_addr", "local_port", "trace_role"];

/// What `unit` may be.
pub const UNITS: &[&str] = &["", "bytes", "ns", "count"];
/// What `pattern` may be.
pub const PATTERNS: &[&str] = &["general", "general_enum", "structured", "metric_counter", "metric_gauge"];

const PROTOCOL: &[&str] = &["ports", "beginnings", "table"];
const TABLE: &[&str] = &["name", "description", "columns"];
const COLUMN: &[&str] = &["name", "type", "semantic", "unit", "pattern", "description", "repeats"];
const BYTES: &[&str] = &["hex", "mask"];

/// A wire protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// Ports its servers usually listen on: a connection to one is shown to the plugin whatever its first bytes are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Beginnings of its messages, of both sides. A connection on any port whose calls begin with one is shown to the plugin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beginnings: Vec<Beginning>,
    /// Its table.
    pub table: Table,
}

/// First bytes of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Beginning {
    /// As text, every byte of which counts.
    Text(String),
    /// As bytes.
    Bytes(Bytes),
}

/// First bytes, some bits of which may not matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Two digits a byte, spaces between bytes as one likes.
    pub hex: String,
    /// The bits that count, the same way and length. None = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

/// The plugin's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Lower case letters, digits and `_`.
    pub name: String,
    /// What one row is.
    pub description: String,
    /// The plugin's own columns; [`HOST_COLUMNS`] come before them.
    pub columns: Vec<TableColumn>,
}

/// A column of the plugin's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableColumn {
    /// Lower case letters, digits and `_`.
    pub name: String,
    /// Type of its values.
    #[serde(rename = "type")]
    pub data_type: ColumnType,
    /// What the value means beyond its type (`ST_BYTES`, ...).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub semantic: String,
    /// One of [`UNITS`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// One of [`PATTERNS`]; empty = `general`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pattern: String,
    /// One sentence.
    pub description: String,
    /// Text that repeats: kept as codes and a dictionary, so that queries work once for each distinct value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeats: bool,
}

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnType {
    /// True or false.
    Boolean,
    /// Signed, 64 bits.
    Int64,
    /// 128 bits.
    Uint128,
    /// IEEE 754 double.
    Float64,
    /// Text.
    Utf8,
    /// Instant.
    TimeNs,
    /// Length of time.
    DurationNs,
}

/// A beginning as the kernel compares it: a word of up to eight bytes, the first lowest, and the mask of the bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Bits that do not count are 0.
    pub word: u64,
    /// Bits that count.
    pub mask: u64,
}

impl Beginning {
    /// As the kernel compares it.
    pub fn word(&self) -> Result<Word, Error> {
        let (bytes, mask) = match self {
            Self::Text(text) => (text.as_bytes().to_vec(), vec![0xff; text.len()]),
            Self::Bytes(bytes) => {
                let hex = unhex(&bytes.hex)?;
                let mask = match &bytes.mask {
                    Some(mask) => unhex(mask)?,
                    None => vec![0xff; hex.len()],
                };
                if mask.len() != hex.len() {
                    return Err(Error::new(format!("mask has {} bytes, hex has {}", mask.len(), hex.len()))
                        .hint("write as many bytes in one as in the other"));
                }
                (hex, mask)
            }
        };
        if bytes.len() > BEGINNING_BYTES_MAX {
            return Err(Error::new(format!("has {} bytes, at most {BEGINNING_BYTES_MAX} are compared", bytes.len()))
                .hint("leave the rest out; `infer` looks at more"));
        }
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let (word, mask) = (word(&bytes), word(&mask));
        if mask.count_ones() < BEGINNING_BITS_MIN {
            return Err(Error::new(format!(
                "{} bits count, at least {BEGINNING_BITS_MIN} must: too many other connections would match",
                mask.count_ones()
            ))
            .hint("give more bytes, or name the port"));
        }
        Ok(Word { word: word & mask, mask })
    }
}

fn unhex(text: &str) -> Result<Vec<u8>, Error> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()
        .filter(|digits: &Vec<u32>| digits.len().is_multiple_of(2))
        .ok_or_else(|| Error::new(format!("`{text}` is not hex")).hint("write two digits for each byte: \"81 00\""))?;
    Ok(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

pub(crate) fn keys(protocol: &Value) -> Result<(), Error> {
    object(protocol, "protocol", PROTOCOL)?;
    each(protocol, "beginnings", |v, at| object(v, &format!("protocol.{at}"), BYTES))?;
    let Some(table) = protocol.get("table") else { return Ok(()) };
    object(table, "protocol.table", TABLE)?;
    each(table, "columns", |v, at| object(v, &format!("protocol.table.{at}"), COLUMN))
}

pub(crate) fn meaning(protocol: &Protocol) -> Result<(), Error> {
    let fault = |message: String| Err(Error::new(format!("plugin.toml: {message}")));
    if protocol.ports.is_empty() && protocol.beginnings.is_empty() {
        return Err(Error::new(
            "plugin.toml: [protocol] names neither ports nor beginnings, so it would never see a byte",
        )
        .hint("write ports = [11211], or beginnings = [\"get \"]"));
    }
    if protocol.ports.len() > PORTS_MAX {
        return fault(format!("protocol.ports has {} entries, at most {PORTS_MAX} are allowed", protocol.ports.len()));
    }
    if let Some(i) = protocol.ports.iter().position(|port| *port == 0) {
        return fault(format!("protocol.ports[{i}] is 0, which is no port"));
    }
    if protocol.beginnings.len() > BEGINNINGS_MAX {
        let len = protocol.beginnings.len();
        return fault(format!("protocol.beginnings has {len} entries, at most {BEGINNINGS_MAX} are allowed"));
    }
    for (i, beginning) in protocol.beginnings.iter().enumerate() {
        beginning
            .word()
            .map_err(|e| Error { message: format!("plugin.toml: protocol.beginnings[{i}]: {}", e.message), ..e })?;
    }
    let table = &protocol.table;
    if !is_identifier(&table.name) {
        return fault(format!(
            "protocol.table.name `{}` must be 1 to 64 lower case letters, digits or `_`",
            table.name
        ));
    }
    if table.description.trim().is_empty() {
        return fault("protocol.table.description is empty; say in one sentence what one row is".into());
    }
    if table.columns.is_empty() || table.columns.len() > COLUMNS_MAX {
        let len = table.columns.len();
        return fault(format!("protocol.table.columns has {len} entries, 1 to {COLUMNS_MAX} are allowed"));
    }
    for (i, column) in table.columns.iter().enumerate() {
        let at = format!("protocol.table.columns[{i}]");
        if !is_identifier(&column.name) {
            return fault(format!("{at}.name `{}` must be 1 to 64 lower case letters, digits or `_`", column.name));
        }
        if HOST_COLUMNS.contains(&column.name.as_str()) {
            return Err(Error::new(format!("plugin.toml: {at}.name `{}` is a column that the host adds", column.name))
                .hint("leave it out; it is in the table all the same"));
        }
        if table.columns[..i].iter().any(|c| c.name == column.name) {
            return fault(format!("{at}.name `{}` is taken", column.name));
        }
        if column.description.trim().is_empty() {
            return fault(format!("{at}.description is empty; say in one sentence what the value is"));
        }
        if column.repeats && column.data_type != ColumnType::Utf8 {
            return fault(format!("{at}.repeats is for text, `{}` is none", column.name));
        }
        one_of(&column.unit, UNITS, &format!("{at}.unit"))?;
        if !column.pattern.is_empty() {
            one_of(&column.pattern, PATTERNS, &format!("{at}.pattern"))?;
        }
        let rest = column.semantic.strip_prefix("ST_").unwrap_or_default();
        let well = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if !column.semantic.is_empty() && !well {
            return Err(Error::new(format!("plugin.toml: {at}.semantic `{}` is no semantic type", column.semantic))
                .hint("they begin with ST_, such as ST_BYTES, ST_DURATION_NS, ST_PORT; leave it out where none fits"));
        }
    }
    Ok(())
}

fn one_of(text: &str, known: &[&str], at: &str) -> Result<(), Error> {
    if known.contains(&text) {
        return Ok(());
    }
    let names: Vec<&str> = known.iter().copied().filter(|name| !name.is_empty()).collect();
    let hint = did_you_mean(text, &names).unwrap_or_else(|| format!("write one of {}", names.join(", ")));
    Err(Error::new(format!("plugin.toml: {at} `{text}` is not known")).hint(hint))
}

/// Without `-`, so that SQL needs no quotes.
fn is_identifier(name: &str) -> bool {
    is_name(name) && !name.contains('-') && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Manifest, PROTOCOL_WORLD};

    const GOOD: &str = r#"
name = "memcached"
version = "0.1.0"
kind = "protocol"
description = "memcached"
[protocol]
ports = [11211]
beginnings = ["get ", { hex = "80 00 0000 00 00", mask = "ff c0 0000 00 ff" }]
[protocol.table]
name = "memcached_events"
description = "One row per command."
columns = [
    { name = "command", type = "utf8", repeats = true, pattern = "general_enum", description = "The command." },
    { name = "latency", type = "duration-ns", unit = "ns", semantic = "ST_DURATION_NS", description = "How long." },
]
"#;

    #[test]
    fn a_protocol_reads_and_comes_back_from_json() {
        let manifest = Manifest::from_toml(GOOD).unwrap();
        assert_eq!((manifest.kind, manifest.world.as_str()), (Kind::Protocol, PROTOCOL_WORLD));
        let protocol = manifest.protocol.as_ref().unwrap();
        let words: Vec<Word> = protocol.beginnings.iter().map(|b| b.word().unwrap()).collect();
        assert_eq!(words[0], Word { word: 0x2074_6567, mask: 0xffff_ffff });
        assert_eq!(words[1], Word { word: 0x80, mask: 0xff00_0000_c0ff });
        assert_eq!(protocol.table.columns[1].data_type, ColumnType::DurationNs);
        assert_eq!(Manifest::from_json(manifest.to_json().as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn mistakes_say_where_and_what_to_do() {
        let cases = [
            ("ports = [11211]", "prots = [11211]", "unknown key `protocol.prots`", "did you mean `ports`?"),
            ("ports = [11211]", "ports = [0]", "protocol.ports[0] is 0", ""),
            ("\"get \"", "\"g\"", "protocol.beginnings[0]: 8 bits count, at least 16", "name the port"),
            ("\"get \"", "\"get something\"", "beginnings[0]: has 13 bytes", "`infer` looks at more"),
            ("80 00 0000 00 00", "80 0", "beginnings[1]: `80 0` is not hex", "two digits"),
            ("80 00 0000 00 00", "80 00 00", "mask has 6 bytes, hex has 3", "as many"),
            ("mask =", "maks =", "unknown key `protocol.beginnings[1].maks`", "did you mean `mask`?"),
            ("memcached_events", "memcached-events", "protocol.table.name", ""),
            ("name = \"command\"", "name = \"upid\"", "is a column that the host adds", "leave it out"),
            ("name = \"command\"", "name = \"latency\"", "columns[1].name `latency` is taken", ""),
            ("general_enum", "general_enm", "columns[0].pattern `general_enm`", "did you mean `general_enum`?"),
            ("unit = \"ns\"", "unit = \"seconds\"", "columns[1].unit `seconds`", "bytes, ns, count"),
            ("ST_DURATION_NS", "duration", "semantic `duration`", "ST_BYTES"),
            ("type = \"duration-ns\"", "type = \"binary\"", "unknown variant `binary`", ""),
            ("kind = \"protocol\"", "", "[protocol] is for plugins of kind protocol", "kind = \"protocol\""),
        ];
        for (from, to, message, hint) in cases {
            let error = Manifest::from_toml(&GOOD.replacen(from, to, 1)).expect_err(to);
            assert!(error.message.contains(message), "{to}: {error:?}");
            assert!(error.hint.unwrap_or_default().contains(hint), "{to}");
        }
        let without = &GOOD[..GOOD.find("[protocol]").unwrap()];
        let error = Manifest::from_toml(without).unwrap_err();
        assert!(error.message.contains("has no [protocol]"), "{error:?}");
        let silent = GOOD.replacen("ports = [11211]", "", 1);
        let at = silent.find("beginnings").unwrap();
        let end = at + silent[at..].find('\n').unwrap();
        let error = Manifest::from_toml(&format!("{}{}", &silent[..at], &silent[end..])).unwrap_err();
        assert!(error.message.contains("neither ports nor beginnings"), "{error:?}");
    }
}
