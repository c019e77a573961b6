//! Arrow arrays as the contract has columns: out to the guest.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, OffsetSizeTrait, RecordBatch, StringArray, new_null_array,
};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{
    DataType as Arrow, DurationNanosecondType, Field, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampNanosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::bindings::pyxis::common::types::{Column, DataType, Texts};
use crate::error::Error;

/// Field metadata: what a column means beyond its type.
pub(crate) const SEMANTIC: &str = "pyxis.semantic";
pub(crate) const UNIT: &str = "pyxis.unit";
pub(crate) const PATTERN: &str = "pyxis.pattern";
pub(crate) const DESCRIPTION: &str = "pyxis.description";

/// Code of a null row.
pub(crate) const NULL_CODE: u32 = u32::MAX;
/// Most entries of a dictionary.
pub(crate) const DICTIONARY_ENTRIES_MAX: usize = 1 << 20;

/// How the contract describes a field.
pub(crate) fn column(field: &Field) -> Column {
    let meta = |key: &str| field.metadata().get(key).cloned().unwrap_or_default();
    Column {
        name: field.name().clone(),
        data_type: data_type(field.data_type()),
        semantic: meta(SEMANTIC),
        unit: meta(UNIT),
        pattern: meta(PATTERN),
        description: meta(DESCRIPTION),
    }
}

fn data_type(arrow: &Arrow) -> DataType {
    match arrow {
        Arrow::Boolean => DataType::Boolean,
        Arrow::Int8 | Arrow::Int16 | Arrow::Int32 | Arrow::Int64 => DataType::Int64,
        Arrow::UInt8 | Arrow::UInt16 | Arrow::UInt32 | Arrow::UInt64 => DataType::Int64,
        Arrow::Float16 | Arrow::Float32 | Arrow::Float64 => DataType::Float64,
        Arrow::Decimal32(..) | Arrow::Decimal64(..) | Arrow::Decimal128(..) | Arrow::Decimal256(..) => {
            DataType::Float64
        }
        Arrow::FixedSizeBinary(16) => DataType::Uint128,
        Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView | Arrow::FixedSizeBinary(_) => DataType::Binary,
        Arrow::Timestamp(..) | Arrow::Date32 | Arrow::Date64 => DataType::TimeNs,
        Arrow::Duration(_) => DataType::DurationNs,
        Arrow::Dictionary(_, values) => match data_type(values) {
            // Only text is handed out as codes; other dictionaries are unpacked.
            DataType::Utf8 => DataType::Utf8,
            other => other,
        },
        _ => DataType::Utf8,
    }
}

/// All columns of a batch in the few forms the functions below read.
pub(crate) fn plain(batch: &RecordBatch) -> Result<Vec<ArrayRef>, Error> {
    batch.columns().iter().map(plain_array).collect()
}

fn plain_array(array: &ArrayRef) -> Result<ArrayRef, Error> {
    let target = match (data_type(array.data_type()), array.data_type()) {
        (DataType::Boolean, _) => Arrow::Boolean,
        (DataType::Int64, _) => Arrow::Int64,
        (DataType::Float64, _) => Arrow::Float64,
        (DataType::Uint128, _) => Arrow::FixedSizeBinary(16),
        (DataType::Binary, _) => Arrow::Binary,
        (DataType::TimeNs, Arrow::Timestamp(TimeUnit::Nanosecond, _)) => return Ok(Arc::clone(array)),
        (DataType::TimeNs, _) => Arrow::Timestamp(TimeUnit::Nanosecond, None),
        (DataType::DurationNs, _) => Arrow::Duration(TimeUnit::Nanosecond),
        (DataType::Utf8, Arrow::Dictionary(_, values)) if data_type(values) == DataType::Utf8 => {
            Arrow::Dictionary(Box::new(Arrow::Int32), Box::new(Arrow::Utf8))
        }
        (DataType::Utf8, _) => Arrow::Utf8,
    };
    if *array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    if can_cast_types(array.data_type(), &target) {
        // What does not fit (an unsigned beyond 2^63) becomes null rather than a wrong number.
        let options = CastOptions { safe: true, ..CastOptions::default() };
        return cast_with_options(array, &target, &options)
            .map_err(|e| Error::Internal(format!("cannot hand {} to a script: {e}", array.data_type())));
    }
    text_of(array)
}

/// The text form of types the contract has no place for (lists, structs, intervals).
fn text_of(array: &ArrayRef) -> Result<ArrayRef, Error> {
    let internal = |e| Error::Internal(format!("cannot write {} as text: {e}", array.data_type()));
    if *array.data_type() == Arrow::Null {
        return Ok(new_null_array(&Arrow::Utf8, array.len()));
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &options).map_err(internal)?;
    let texts: StringArray =
        (0..array.len()).map(|i| (!array.is_null(i)).then(|| formatter.value(i).to_string())).collect();
    Ok(Arc::new(texts))
}

/// Bit `i % 8` of byte `i / 8` is 1 where row `i` has a value; none = all.
pub(crate) fn valid(array: &ArrayRef) -> Option<Vec<u8>> {
    // A dictionary may also have null entries that valid keys refer to.
    let nulls = array.logical_nulls()?;
    (nulls.null_count() > 0).then(|| bits(nulls.inner()))
}

fn bits(buffer: &arrow::buffer::BooleanBuffer) -> Vec<u8> {
    let bytes = buffer.len().div_ceil(8);
    let mut out = buffer.sliced().as_slice()[..bytes].to_vec();
    // Bits past the last row are of no row and hence zero.
    if buffer.len() % 8 != 0
        && let Some(last) = out.last_mut()
    {
        *last &= (1 << (buffer.len() % 8)) - 1;
    }
    out
}

/// None: the column is of another type.
pub(crate) fn booleans(array: &ArrayRef) -> Option<Vec<u8>> {
    array.as_boolean_opt().map(|a| bits(a.values()))
}

/// None: the column is of another type.
pub(crate) fn int64s(array: &ArrayRef) -> Option<Vec<i64>> {
    if let Some(a) = array.as_primitive_opt::<Int64Type>() {
        return Some(a.values().to_vec());
    }
    if let Some(a) = array.as_primitive_opt::<TimestampNanosecondType>() {
        return Some(a.values().to_vec());
    }
    array.as_primitive_opt::<DurationNanosecondType>().map(|a| a.values().to_vec())
}

/// None: the column is of another type.
pub(crate) fn float64s(array: &ArrayRef) -> Option<Vec<f64>> {
    array.as_primitive_opt::<Float64Type>().map(|a| a.values().to_vec())
}

/// None: the column is of another type.
pub(crate) fn uint128s(array: &ArrayRef) -> Option<Vec<u64>> {
    let array = array.as_fixed_size_binary_opt().filter(|a| a.value_length() == 16)?;
    let half = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("a half of 16 bytes has 8"));
    Some((0..array.len()).flat_map(|i| [half(&array.value(i)[..8]), half(&array.value(i)[8..])]).collect())
}

/// None: the column is of another type. A dictionary written out may be far larger than it is: see [`utf8_bytes`].
pub(crate) fn utf8s(array: &ArrayRef) -> Option<Texts> {
    if let Some(a) = array.as_string_opt::<i32>() {
        return Some(texts(a.value_offsets(), a.value_data()));
    }
    let coded = text_dictionary(array)?;
    let values = coded.values().as_string::<i32>();
    let (mut offsets, mut bytes) = (Vec::with_capacity(coded.len() + 1), Vec::new());
    offsets.push(0);
    for key in coded.keys() {
        if let Some(key) = key.filter(|k| !values.is_null(*k as usize)) {
            bytes.extend_from_slice(values.value(key as usize).as_bytes());
        }
        offsets.push(bytes.len() as u32);
    }
    Some(Texts { offsets, bytes })
}

/// Bytes of all rows of a text column together, written out.
pub(crate) fn utf8_bytes(array: &ArrayRef) -> u64 {
    let Some(coded) = text_dictionary(array) else { return 0 };
    let values = coded.values().as_string::<i32>();
    let length = |key: usize| if values.is_null(key) { 0 } else { values.value_length(key) as u64 };
    coded.keys().iter().flatten().map(|key| length(key as usize)).sum()
}

/// None: the column is of another type.
pub(crate) fn binaries(array: &ArrayRef) -> Option<Texts> {
    array.as_binary_opt::<i32>().map(|a| texts(a.value_offsets(), a.value_data()))
}

fn texts<O: OffsetSizeTrait>(offsets: &[O], bytes: &[u8]) -> Texts {
    let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    Texts {
        offsets: offsets.iter().map(|o| (o.as_usize() - first) as u32).collect(),
        bytes: bytes[first..last].to_vec(),
    }
}

fn text_dictionary(array: &ArrayRef) -> Option<&DictionaryArray<Int32Type>> {
    let coded = array.as_dictionary_opt::<Int32Type>()?;
    (*coded.values().data_type() == Arrow::Utf8).then_some(coded)
}

/// The texts of one column of a stream: each has one code for all batches.
#[derive(Default)]
pub(crate) struct Dictionary {
    codes: HashMap<Box<str>, u32>,
    offsets: Vec<u32>,
    bytes: Vec<u8>,
    /// Codes of the entries of the last Arrow dictionary seen; batches of one table tend to share it.
    last: Option<(ArrayRef, Vec<u32>)>,
}

/// A dictionary has too many entries.
#[derive(Debug)]
pub(crate) struct Full;

impl Dictionary {
    /// Codes of a text column; `grown` is told how many bytes it took. None: the column is no text.
    pub(crate) fn codes(&mut self, array: &ArrayRef) -> Option<Result<Vec<u32>, Full>> {
        if let Some(texts) = array.as_string_opt::<i32>() {
            return Some(texts.iter().map(|t| t.map_or(Ok(NULL_CODE), |t| self.code(t))).collect());
        }
        let coded = text_dictionary(array)?;
        Some(self.translate(coded))
    }

    fn translate(&mut self, coded: &DictionaryArray<Int32Type>) -> Result<Vec<u32>, Full> {
        let values = coded.values();
        let mut map = match self.last.take() {
            Some((seen, map)) if seen.to_data().ptr_eq(&values.to_data()) => map,
            // NULL_CODE stands for "not met yet": entries that no row uses get no code.
            _ => vec![NULL_CODE; values.len()],
        };
        let texts = values.as_string::<i32>();
        let mut codes = Vec::with_capacity(coded.len());
        for key in coded.keys() {
            let Some(key) = key.map(|k| k as usize).filter(|k| !texts.is_null(*k)) else {
                codes.push(NULL_CODE);
                continue;
            };
            if map[key] == NULL_CODE {
                map[key] = self.code(texts.value(key))?;
            }
            codes.push(map[key]);
        }
        self.last = Some((Arc::clone(values), map));
        Ok(codes)
    }

    fn code(&mut self, text: &str) -> Result<u32, Full> {
        if let Some(code) = self.codes.get(text) {
            return Ok(*code);
        }
        if self.codes.len() >= DICTIONARY_ENTRIES_MAX || self.bytes.len() + text.len() > u32::MAX as usize {
            return Err(Full);
        }
        let code = self.codes.len() as u32;
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.codes.insert(text.into(), code);
        self.bytes.extend_from_slice(text.as_bytes());
        self.offsets.push(self.bytes.len() as u32);
        Ok(code)
    }

    /// Bytes held, texts twice.
    pub(crate) fn bytes(&self) -> u64 {
        // An entry of the map: the boxed text's pointer and length, the code, and the table's own byte.
        const ENTRY_BYTES: usize = 32;
        (2 * self.bytes.len() + self.offsets.len() * 4 + self.codes.len() * ENTRY_BYTES) as u64
    }

    /// Entries from `from` on.
    pub(crate) fn tail(&self, from: u32) -> Texts {
        let from = (from as usize).min(self.codes.len());
        if self.offsets.is_empty() {
            return Texts { offsets: vec![0], bytes: Vec::new() };
        }
        texts_from(&self.offsets[from..], &self.bytes)
    }
}

fn texts_from(offsets: &[u32], bytes: &[u8]) -> Texts {
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    Texts { offsets: offsets.iter().map(|o| o - first).collect(), bytes: bytes[first as usize..last as usize].to_vec() }
}

/// Bytes the rows of a batch take, not counting what a slice shares with its neighbours.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|a| a.to_data().get_slice_memory_size().unwrap_or(0) as u64).sum()
}

#[cfg(test)]
mod tests;
