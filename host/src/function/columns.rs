//! Columns of functions: Arrow to the contract and back. What comes back is checked: a guest may send anything.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::compute::nullif;
use arrow::datatypes::{DataType as Arrow, Field, Int32Type, Schema, SchemaRef, TimeUnit};

use super::Given;
use super::bindings::pyxis::function::arguments::Argument;
use crate::arrays;
use crate::backend::Scalar;
use crate::bindings::pyxis::common::types::{Coded, ColumnValues, DataType, Values};
use crate::convert;
use crate::error::Error;
use crate::manifest::function::{Export, ExportColumn, ValueType};
use crate::rows;

/// The Arrow type of values of a declared type. Durations are whole numbers that mean ns, as in the tables.
pub fn arrow_type(value_type: ValueType) -> Arrow {
    match value_type {
        ValueType::Boolean => Arrow::Boolean,
        ValueType::Int64 | ValueType::DurationNs => Arrow::Int64,
        ValueType::Uint128 => Arrow::FixedSizeBinary(16),
        ValueType::Float64 => Arrow::Float64,
        ValueType::Utf8 => Arrow::Utf8,
        ValueType::Binary => Arrow::Binary,
        ValueType::TimeNs => Arrow::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
    }
}

/// A field of that type with its meaning.
pub fn field(name: &str, value_type: ValueType) -> Field {
    let field = Field::new(name, arrow_type(value_type), true);
    if value_type != ValueType::DurationNs {
        return field;
    }
    let meaning = [(arrays::SEMANTIC, "ST_DURATION_NS"), (arrays::UNIT, "ns")];
    field.with_metadata(meaning.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

/// Columns of a table function.
pub fn schema(columns: &[ExportColumn]) -> SchemaRef {
    let of = |column: &ExportColumn| {
        let field = field(&column.name, column.value_type);
        let mut metadata = field.metadata().clone();
        let said = [
            (arrays::SEMANTIC, &column.semantic),
            (arrays::UNIT, &column.unit),
            (arrays::DESCRIPTION, &column.description),
        ];
        for (key, value) in said.into_iter().filter(|(_, value)| !value.is_empty()) {
            metadata.insert(key.to_owned(), value.clone());
        }
        field.with_metadata(metadata)
    };
    Arc::new(Schema::new(columns.iter().map(of).collect::<Vec<_>>()))
}

fn wit_type(value_type: ValueType) -> DataType {
    match value_type {
        ValueType::Boolean => DataType::Boolean,
        ValueType::Int64 => DataType::Int64,
        ValueType::Uint128 => DataType::Uint128,
        ValueType::Float64 => DataType::Float64,
        ValueType::Utf8 => DataType::Utf8,
        ValueType::Binary => DataType::Binary,
        ValueType::TimeNs => DataType::TimeNs,
        ValueType::DurationNs => DataType::DurationNs,
    }
}

pub(super) fn arguments(export: &Export, rows: usize, given: &[Given<'_>]) -> Result<Vec<Argument>, String> {
    if given.len() != export.args.len() {
        return Err(format!("takes {} arguments, not {}", export.args.len(), given.len()));
    }
    let of = |(given, declared): (&Given<'_>, &crate::manifest::function::Argument)| match given {
        Given::Constant(value) => Ok(Argument::Constant(convert::scalar_out(value))),
        Given::Values(array) if array.len() == rows => column_out(array, declared.value_type)
            .map(Argument::Values)
            .map_err(|why| format!("takes for `{}` {}, not {why}", declared.name, declared.value_type.name())),
        Given::Values(array) => Err(format!("was given {} values for {rows} rows", array.len())),
    };
    given.iter().zip(&export.args).map(of).collect()
}

/// A column as the guest gets it, or the type that it is and that does not fit.
pub(super) fn column_out(array: &ArrayRef, value_type: ValueType) -> Result<ColumnValues, String> {
    let values = match value_type {
        ValueType::Boolean => arrays::booleans(array).map(Values::Booleans),
        ValueType::Int64 => arrays::int64s(array).map(Values::Int64s),
        ValueType::Uint128 => arrays::uint128s(array).map(Values::Uint128s),
        ValueType::Float64 => arrays::float64s(array).map(Values::Float64s),
        ValueType::Utf8 => coded(array).or_else(|| arrays::utf8s(array).map(Values::Utf8s)),
        ValueType::Binary => arrays::binaries(array).map(Values::Binaries),
        ValueType::TimeNs => arrays::int64s(array).map(Values::TimeNss),
        ValueType::DurationNs => arrays::int64s(array).map(Values::DurationNss),
    };
    let values = values.ok_or_else(|| array.data_type().to_string())?;
    Ok(ColumnValues { values, valid: arrays::valid(array) })
}

/// Text by reference. A dictionary with more entries than there are rows would be more to copy than the texts themselves.
fn coded(array: &ArrayRef) -> Option<Values> {
    let dictionary = array.as_dictionary_opt::<Int32Type>()?;
    let entries = dictionary.values();
    if entries.len() > dictionary.len() || entries.null_count() > 0 {
        return None;
    }
    let texts = arrays::utf8s(entries)?;
    // Keys of null rows may be anything; the contract promises indices.
    let last = entries.len().saturating_sub(1) as u32;
    let codes = dictionary.keys().values().iter().map(|key| (*key as u32).min(last)).collect();
    Some(Values::Coded(Coded { codes, dictionary: texts }))
}

/// A column that a guest gave, of the declared type or a dictionary of it.
pub(super) fn array_in(column: ColumnValues, declared: ValueType, rows: usize) -> Result<ArrayRef, String> {
    let array = rows::array(column, wit_type(declared), rows).map_err(|why| format!("gave a column that {why}"))?;
    match array.data_type() {
        Arrow::Timestamp(..) => arrow::compute::cast(&array, &arrow_type(declared)).map_err(|e| format!("gave {e}")),
        _ => Ok(array),
    }
}

/// Null where `nulls` is, too.
pub(super) fn with_nulls(array: &ArrayRef, nulls: &NullBuffer) -> Result<ArrayRef, Error> {
    let null_here = BooleanArray::new(!nulls.inner(), None);
    nullif(array, &null_here).map_err(|e| Error::Internal(format!("cannot set nulls: {e}")))
}

/// A constant as its declared type.
pub(super) fn scalar_out(value: &Scalar) -> crate::bindings::pyxis::common::types::Scalar {
    convert::scalar_out(value)
}
