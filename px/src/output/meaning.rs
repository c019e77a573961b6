//! What the values of a column mean to a person, from the metadata that its table declared.

use arrow::datatypes::{DataType, Field};
use host_manifest::Format;

/// How a column's values are shown to people. Programs get the value itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Meaning {
    Time,
    /// A length of time, in units of this many ns.
    Duration(f64),
    Bytes,
    BytesPerSecond,
    PerSecond,
    /// Parts of a hundred.
    Percent,
    /// Parts of one.
    Ratio,
    Upid,
    /// A number that is a name: a port, a pid, a status. No rounding, no separators.
    Number,
    HttpStatus,
    /// A number of things, digits in groups.
    Grouped,
    Count,
    Text,
}

/// Key of the field metadata that names the semantic type.
pub const SEMANTIC: &str = "pyxis.semantic";
/// Key of the field metadata that names the unit.
pub const UNIT: &str = "pyxis.unit";
pub const DESCRIPTION: &str = "pyxis.description";

impl From<Format> for Meaning {
    /// What the author of a script says of a column.
    fn from(format: Format) -> Meaning {
        match format {
            Format::Duration => Meaning::Duration(1.0),
            Format::Bytes => Meaning::Bytes,
            Format::Percent => Meaning::Ratio,
            Format::Rate => Meaning::PerSecond,
            Format::Throughput => Meaning::BytesPerSecond,
            Format::Number => Meaning::Grouped,
            Format::Id => Meaning::Number,
            Format::Time => Meaning::Time,
            Format::Status => Meaning::HttpStatus,
            Format::Text => Meaning::Text,
        }
    }
}

impl Meaning {
    pub fn of(field: &Field) -> Meaning {
        let tag = |key: &str| field.metadata().get(key).map(|v| v.to_lowercase()).unwrap_or_default();
        let (semantic, unit) = (tag(SEMANTIC), tag(UNIT));
        let semantic = semantic.strip_prefix("st_").unwrap_or(&semantic);
        let numeric = field.data_type().is_numeric();
        match field.data_type() {
            DataType::Timestamp(..) => return Meaning::Time,
            DataType::Duration(unit) => return Meaning::Duration(ns_per(*unit)),
            DataType::FixedSizeBinary(16) => return Meaning::Upid,
            _ if !numeric => return Meaning::Text,
            _ => {}
        }
        match unit.as_str() {
            "ns" | "nanoseconds" => return Meaning::Duration(1.0),
            "us" | "µs" | "microseconds" => return Meaning::Duration(1e3),
            "ms" | "milliseconds" => return Meaning::Duration(1e6),
            "s" | "seconds" => return Meaning::Duration(1e9),
            "bytes/s" | "b/s" | "bytes_per_second" => return Meaning::BytesPerSecond,
            "1/s" | "/s" | "rps" | "per_second" | "requests/s" | "events/s" => return Meaning::PerSecond,
            "bytes" | "b" => return Meaning::Bytes,
            "percent" | "%" => return Meaning::Percent,
            "ratio" | "1" | "share" | "fraction" => return Meaning::Ratio,
            _ => {}
        }
        match semantic {
            "bytes" => Meaning::Bytes,
            "bytes_per_ns" | "throughput_bytes_per_ns" => Meaning::BytesPerSecond,
            "duration_ns" | "duration" | "duration_ns_quantiles" => Meaning::Duration(1.0),
            "percent" | "percentage" => Meaning::Percent,
            "ratio" | "share" => Meaning::Ratio,
            "throughput_per_ns" | "rate" | "per_second" => Meaning::PerSecond,
            "port" | "pid" | "asid" | "uid" => Meaning::Number,
            "http_resp_status" | "http_status" => Meaning::HttpStatus,
            _ => Meaning::Count,
        }
    }
}

fn ns_per(unit: arrow::datatypes::TimeUnit) -> f64 {
    use arrow::datatypes::TimeUnit::*;
    match unit {
        Second => 1e9,
        Millisecond => 1e6,
        Microsecond => 1e3,
        Nanosecond => 1.0,
    }
}

/// The type of a column in the words of the tables: `time64ns`, `int64`, `uint128`, `string`, …
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int64 => "int64".into(),
        DataType::Float64 => "float64".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Dictionary(_, value) => type_name(value),
        DataType::FixedSizeBinary(16) => "uint128".into(),
        DataType::Timestamp(..) => "time64ns".into(),
        other => other.to_string().to_lowercase(),
    }
}
