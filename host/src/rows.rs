//! Columns a guest made, as an Arrow batch. Everything is checked: a guest may send anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, RecordBatchOptions, StringArray, TimestampNanosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, Schema};

use crate::arrays::{DESCRIPTION, PATTERN, SEMANTIC, UNIT};
use crate::bindings::pyxis::common::types::{Coded, Column, ColumnValues, DataType, Rows, Texts, Values};
use crate::convert::{self, invalid};
use crate::error::Error;

/// Most rows of one call. A guest has at most 512 MiB, so this is not what limits it; it keeps offsets within 32 bits.
const ROWS_MAX: u32 = 1 << 24;

/// The batch, or what is wrong with the rows.
pub(crate) fn batch(rows: Rows) -> Result<RecordBatch, Error> {
    let Rows { count, columns, values } = rows;
    convert::count(columns.len(), "columns")?;
    if columns.len() != values.len() {
        return Err(invalid(format!("{} columns are described, {} have values", columns.len(), values.len())));
    }
    if count > ROWS_MAX {
        return Err(invalid(format!("{count} rows in one call, at most {ROWS_MAX} are allowed")));
    }
    let count = count as usize;
    let mut names = HashSet::new();
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (column, values) in columns.into_iter().zip(values) {
        let name = convert::name(column.name.clone())?;
        if !names.insert(name.clone()) {
            return Err(invalid(format!("there are two columns `{name}`")));
        }
        let array = array(values, column.data_type, count).map_err(|why| invalid(format!("column `{name}` {why}")))?;
        let metadata = metadata(column).map_err(|why| invalid(format!("column `{name}` {why}")))?;
        fields.push(Field::new(&name, array.data_type().clone(), true).with_metadata(metadata));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|e| Error::Internal(format!("checked columns make no batch: {e}")))
}

/// Longest text about a column: the catalog's longest has 200 bytes. Every frame made of the rows carries it along.
const ABOUT_BYTES_MAX: usize = 1 << 10;

fn metadata(column: Column) -> Result<HashMap<String, String>, String> {
    let mut semantic = column.semantic;
    let mut unit = column.unit;
    // Durations are whole numbers that mean ns, as in the tables; so they join and compare with those.
    if column.data_type == DataType::DurationNs && semantic.is_empty() {
        semantic = "ST_DURATION_NS".into();
        unit = "ns".into();
    }
    let about = [(SEMANTIC, semantic), (UNIT, unit), (PATTERN, column.pattern), (DESCRIPTION, column.description)];
    if let Some((_, long)) = about.iter().find(|(_, text)| text.len() > ABOUT_BYTES_MAX) {
        let bytes = long.len();
        return Err(format!("has a text of {bytes} bytes about it, at most {ABOUT_BYTES_MAX} are allowed"));
    }
    Ok(about.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), value)).collect())
}

pub(crate) fn array(column: ColumnValues, declared: DataType, count: usize) -> Result<ArrayRef, String> {
    let ColumnValues { values, valid } = column;
    let nulls = match valid {
        Some(bytes) => Some(NullBuffer::new(bitmap(bytes, count, "validity bitmap")?)),
        None => None,
    };
    let rows = |len: usize| {
        if len == count { Ok(()) } else { Err(format!("has {len} rows, the table has {count}")) }
    };
    let (data_type, array): (DataType, ArrayRef) = match values {
        Values::Booleans(bytes) => {
            (DataType::Boolean, Arc::new(BooleanArray::new(bitmap(bytes, count, "bitmap")?, nulls)))
        }
        Values::Int64s(list) => {
            rows(list.len())?;
            (DataType::Int64, Arc::new(Int64Array::new(list.into(), nulls)))
        }
        Values::DurationNss(list) => {
            rows(list.len())?;
            (DataType::DurationNs, Arc::new(Int64Array::new(list.into(), nulls)))
        }
        Values::TimeNss(list) => {
            rows(list.len())?;
            (DataType::TimeNs, Arc::new(TimestampNanosecondArray::new(list.into(), nulls).with_timezone("UTC")))
        }
        Values::Float64s(list) => {
            rows(list.len())?;
            (DataType::Float64, Arc::new(Float64Array::new(list.into(), nulls)))
        }
        Values::Uint128s(list) => {
            if list.len() != 2 * count {
                return Err(format!("has {} halves of 128-bit numbers, {count} rows need {}", list.len(), 2 * count));
            }
            let bytes: Vec<u8> = list.into_iter().flat_map(u64::to_be_bytes).collect();
            (DataType::Uint128, Arc::new(FixedSizeBinaryArray::new(16, Buffer::from(bytes), nulls)))
        }
        Values::Utf8s(texts) => {
            let array = utf8(texts, nulls)?;
            rows(arrow::array::Array::len(&array))?;
            (DataType::Utf8, Arc::new(array))
        }
        Values::Binaries(texts) => {
            let (offsets, bytes) = offsets(texts)?;
            rows(offsets.len() - 1)?;
            (DataType::Binary, Arc::new(BinaryArray::new(offsets, Buffer::from(bytes), nulls)))
        }
        Values::Coded(coded) => {
            rows(coded.codes.len())?;
            (DataType::Utf8, coded_array(coded, nulls)?)
        }
    };
    if data_type != declared {
        return Err(format!("is declared as {declared:?} and has values of {data_type:?}"));
    }
    Ok(array)
}

fn bitmap(bytes: Vec<u8>, count: usize, what: &str) -> Result<BooleanBuffer, String> {
    if bytes.len() != count.div_ceil(8) {
        return Err(format!("has a {what} of {} bytes, {count} rows need {}", bytes.len(), count.div_ceil(8)));
    }
    Ok(BooleanBuffer::new(Buffer::from(bytes), 0, count))
}

fn offsets(texts: Texts) -> Result<(OffsetBuffer<i32>, Vec<u8>), String> {
    let Texts { offsets, bytes } = texts;
    let well = offsets.first() == Some(&0)
        && offsets.windows(2).all(|w| w[0] <= w[1])
        && offsets.last().is_some_and(|last| *last as usize == bytes.len());
    if !well {
        return Err("has offsets that do not start at 0, fall, or do not end at the end of its bytes".into());
    }
    let offsets: Result<Vec<i32>, _> = offsets.into_iter().map(i32::try_from).collect();
    let offsets = offsets.map_err(|_| "has more than 2 GiB of text".to_owned())?;
    Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), bytes))
}

fn utf8(texts: Texts, nulls: Option<NullBuffer>) -> Result<StringArray, String> {
    let (offsets, bytes) = offsets(texts)?;
    if nulls.as_ref().is_some_and(|n| n.len() != offsets.len() - 1) {
        return Err(format!(
            "has {} texts and a validity bitmap for {}",
            offsets.len() - 1,
            nulls.map_or(0, |n| n.len())
        ));
    }
    StringArray::try_new(offsets, Buffer::from(bytes), nulls).map_err(|_| "has text that is not UTF-8".to_owned())
}

fn coded_array(coded: Coded, nulls: Option<NullBuffer>) -> Result<ArrayRef, String> {
    let values = utf8(coded.dictionary, None)?;
    let entries = arrow::array::Array::len(&values);
    let mut keys = Vec::with_capacity(coded.codes.len());
    for (row, code) in coded.codes.into_iter().enumerate() {
        if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            keys.push(0);
        } else if (code as usize) < entries {
            keys.push(code as i32);
        } else {
            return Err(format!("has code {code} in row {row}, its dictionary has {entries} entries"));
        }
    }
    let keys = Int32Array::new(keys.into(), nulls);
    let array =
        DictionaryArray::try_new(keys, Arc::new(values)).map_err(|e| format!("is no dictionary column: {e}"))?;
    Ok(Arc::new(array))
}

#[cfg(test)]
mod tests;
