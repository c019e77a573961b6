//! Reading single values out of Arrow columns, for the formats that are text.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Float64Type, Int64Type, Schema, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Result};

use super::human::{self, Clock};
use super::meaning::Meaning;
use super::text::sanitize;

/// One column, its dictionary resolved and its type one of the few that are left then.
#[derive(Debug, Clone)]
pub struct Column {
    pub meaning: Meaning,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    Bool(BooleanArray),
    Int(Int64Array),
    Uint(UInt64Array),
    Float(Float64Array),
    Text(StringArray),
    Time(TimestampNanosecondArray),
    Fixed(FixedSizeBinaryArray),
    Bytes(BinaryArray),
    /// Lists, structs, maps: as Arrow prints them.
    Printed(StringArray),
}

/// The columns of a batch.
pub fn columns(batch: &RecordBatch) -> Result<Vec<Column>> {
    batch.schema().fields().iter().zip(batch.columns()).map(|(field, array)| Column::new(field, array)).collect()
}

impl Column {
    pub fn new(field: &Field, array: &ArrayRef) -> Result<Column> {
        let values = values(array).map_err(|e| Error::internal(format!("cannot read column {}: {e}", field.name())))?;
        let meaning = match field.data_type() {
            // Metadata stays on the field when its values are in a dictionary.
            DataType::Dictionary(_, value) => Meaning::of(&field.clone().with_data_type(value.as_ref().clone())),
            _ => Meaning::of(field),
        };
        Ok(Column { meaning, values })
    }

    fn array(&self) -> &dyn Array {
        match &self.values {
            Values::Bool(a) => a,
            Values::Int(a) => a,
            Values::Uint(a) => a,
            Values::Float(a) => a,
            Values::Text(a) | Values::Printed(a) => a,
            Values::Time(a) => a,
            Values::Fixed(a) => a,
            Values::Bytes(a) => a,
        }
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.array().is_null(row)
    }

    pub fn right_aligned(&self) -> bool {
        matches!(self.values, Values::Int(_) | Values::Uint(_) | Values::Float(_))
    }

    /// Smallest and largest time, when this is a column of times.
    pub fn time_range(&self) -> Option<(i64, i64)> {
        let Values::Time(times) = &self.values else { return None };
        Some((arrow::compute::min(times)?, arrow::compute::max(times)?))
    }

    fn number(&self, row: usize) -> Option<f64> {
        match &self.values {
            Values::Int(a) => Some(a.value(row) as f64),
            Values::Uint(a) => Some(a.value(row) as f64),
            Values::Float(a) => Some(a.value(row)),
            _ => None,
        }
    }

    /// Whether a person should notice this value: an HTTP status that is an error.
    pub fn http_status(&self, row: usize) -> Option<u16> {
        match (&self.values, self.meaning) {
            (Values::Int(a), Meaning::HttpStatus) if a.is_valid(row) => u16::try_from(a.value(row)).ok(),
            _ => None,
        }
    }

    /// For people: in units, in local time, and safe to print.
    pub fn human(&self, row: usize, clock: Clock, out: &mut String) {
        if self.is_null(row) {
            return out.push('-');
        }
        if let Some(value) = self.number(row) {
            match self.meaning {
                Meaning::Duration(ns) => return human::duration_ns(out, value * ns),
                Meaning::Bytes => return human::bytes(out, value),
                Meaning::BytesPerSecond => {
                    human::bytes(out, value);
                    return out.push_str("/s");
                }
                Meaning::PerSecond => return human::per_second(out, value),
                Meaning::Percent => return human::percent(out, value),
                Meaning::Ratio => return human::percent(out, value * 100.0),
                Meaning::Grouped if value.fract() == 0.0 && (0.0..9e15).contains(&value) => {
                    return out.push_str(&human::count(value as u64));
                }
                Meaning::Time => return human::time_local(out, value as i64, clock),
                _ => {}
            }
        }
        match &self.values {
            Values::Float(a) => human::float(out, a.value(row)),
            Values::Text(a) | Values::Printed(a) => out.push_str(&sanitize(a.value(row))),
            Values::Time(a) => human::time_local(out, a.value(row), clock),
            _ => self.plain(row, out),
        }
    }

    /// For programs: the value as text, whole and unrounded. Null is empty.
    pub fn plain(&self, row: usize, out: &mut String) {
        use std::fmt::Write as _;
        if self.is_null(row) {
            return;
        }
        let _ = match &self.values {
            Values::Bool(a) => write!(out, "{}", a.value(row)),
            Values::Int(a) => write!(out, "{}", a.value(row)),
            Values::Uint(a) => write!(out, "{}", a.value(row)),
            Values::Float(a) => write!(out, "{}", a.value(row)),
            Values::Text(a) | Values::Printed(a) => write!(out, "{}", a.value(row)),
            Values::Time(a) => {
                human::time_utc(out, a.value(row));
                Ok(())
            }
            Values::Fixed(a) => {
                if human::upid(out, a.value(row)).is_none() {
                    hex(out, a.value(row));
                }
                Ok(())
            }
            Values::Bytes(a) => {
                hex(out, a.value(row));
                Ok(())
            }
        };
    }

    /// As a JSON value: numbers and booleans bare, the rest quoted, what JSON cannot say (NaN) as null.
    pub fn json(&self, row: usize, out: &mut String) {
        if self.is_null(row) {
            return out.push_str("null");
        }
        match &self.values {
            Values::Bool(_) | Values::Int(_) | Values::Uint(_) => self.plain(row, out),
            Values::Float(a) if a.value(row).is_finite() => self.plain(row, out),
            Values::Float(_) => out.push_str("null"),
            Values::Text(a) | Values::Printed(a) => quote(a.value(row), out),
            Values::Time(_) | Values::Fixed(_) | Values::Bytes(_) => {
                out.push('"');
                self.plain(row, out);
                out.push('"');
            }
        }
    }
}

/// `text` as a JSON string.
pub fn quote(text: &str, out: &mut String) {
    if text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

fn hex(out: &mut String, bytes: &[u8]) {
    use std::fmt::Write as _;
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

fn values(array: &ArrayRef) -> std::result::Result<Values, arrow::error::ArrowError> {
    use DataType::*;
    Ok(match array.data_type() {
        Boolean => Values::Bool(array.as_boolean().clone()),
        Int64 => Values::Int(array.as_primitive::<Int64Type>().clone()),
        UInt64 => Values::Uint(array.as_primitive::<UInt64Type>().clone()),
        Float64 => Values::Float(array.as_primitive::<Float64Type>().clone()),
        Utf8 => Values::Text(array.as_string::<i32>().clone()),
        Timestamp(TimeUnit::Nanosecond, _) => Values::Time(array.as_primitive::<TimestampNanosecondType>().clone()),
        FixedSizeBinary(_) => Values::Fixed(array.as_fixed_size_binary().clone()),
        Binary => Values::Bytes(array.as_binary::<i32>().clone()),
        Dictionary(_, value) => return values(&cast(array, value)?),
        Utf8View | LargeUtf8 | Null => return values(&cast(array, &Utf8)?),
        BinaryView | LargeBinary => return values(&cast(array, &Binary)?),
        Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 | Duration(_) => return values(&cast(array, &Int64)?),
        Float16 | Float32 => return values(&cast(array, &Float64)?),
        Timestamp(_, zone) => return values(&cast(array, &Timestamp(TimeUnit::Nanosecond, zone.clone()))?),
        _ => {
            let formatter = ArrayFormatter::try_new(array, &FormatOptions::default())?;
            let printed: StringArray =
                (0..array.len()).map(|row| array.is_valid(row).then(|| formatter.value(row).to_string())).collect();
            Values::Printed(printed)
        }
    })
}

/// The batch with its dictionaries resolved: for the formats whose files hold one dictionary per column at most.
pub fn without_dictionaries(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = schema_without_dictionaries(&batch.schema());
    let columns: std::result::Result<Vec<ArrayRef>, _> =
        batch.columns().iter().zip(schema.fields()).map(|(array, field)| cast(array, field.data_type())).collect();
    columns
        .and_then(|columns| RecordBatch::try_new(Arc::new(schema), columns))
        .map_err(|e| Error::internal(format!("cannot resolve a dictionary: {e}")))
}

pub fn schema_without_dictionaries(schema: &Schema) -> Schema {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Dictionary(_, value) => field.as_ref().clone().with_data_type(value.as_ref().clone()),
            _ => field.as_ref().clone(),
        })
        .collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}
