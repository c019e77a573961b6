//! A column of a sealed batch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, StringArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};

use super::dictionary::{self, Compressor, Dictionary};
use super::ints::Ints;
use crate::arrays::{self, WIDE};
use crate::chunk::concat_nulls;
use crate::intern::Interner;
use crate::spec::{ColumnSpec, DataType};

/// A column of a sealed batch.
#[derive(Debug)]
pub(crate) struct Column {
    data: Data,
    nulls: Option<NullBuffer>,
    /// Least and greatest of the values that are not null, for integers and times.
    bounds: Option<(i64, i64)>,
}

#[derive(Debug)]
enum Data {
    /// Integers and times; booleans as 0 and 1; floats by their bits.
    Ints(Ints),
    /// Numbers of distinct 16-byte values.
    Wide { numbers: Ints, values: Box<[u8]> },
    /// Numbers of distinct strings.
    Strings { numbers: Ints, values: Arc<Dictionary> },
}

/// Bytes of strings up to which a dictionary is kept to be shared with the next batch: each batch looks its strings up in it,
/// and the strings are held twice meanwhile.
const SHARED_BYTES_MAX: usize = 64 << 10;

/// The dictionary of a column's last batch, for the next to use where it can.
#[derive(Debug, Default)]
pub(crate) struct Shared(Option<(Interner, Arc<Dictionary>)>);

impl Shared {
    /// Bytes it holds on to beyond those of the dictionary.
    pub fn allocated(&self) -> usize {
        self.0.as_ref().map_or(0, |(interner, _)| interner.allocated())
    }
}

/// Encodes columns; holds what is costly to make anew for each.
pub(crate) struct Encoder {
    ints: Vec<i64>,
    words: Vec<u64>,
    interner: Interner,
    compressor: Compressor,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    pub fn new() -> Encoder {
        Encoder { ints: Vec::new(), words: Vec::new(), interner: Interner::new(), compressor: Compressor::new() }
    }

    /// One column from the parts of it, which follow one another.
    pub fn encode(&mut self, spec: &ColumnSpec, parts: &[&dyn Array], shared: &mut Shared) -> Column {
        let nulls = concat_nulls(parts);
        self.ints.clear();
        let mut bounds = None;
        let data = match spec.data_type {
            DataType::Int64 | DataType::Time64Ns => {
                parts.iter().for_each(|part| self.ints.extend_from_slice(arrays::int_values(*part)));
                bounds = close_gaps(&mut self.ints, nulls.as_ref());
                Data::Ints(Ints::new(&self.ints, &mut self.words))
            }
            DataType::Boolean => {
                for part in parts {
                    let part = part.as_any().downcast_ref::<BooleanArray>().expect("a boolean column");
                    self.ints.extend(part.values().iter().map(i64::from));
                }
                Data::Ints(Ints::new(&self.ints, &mut self.words))
            }
            DataType::Float64 => {
                for part in parts {
                    let part = part.as_any().downcast_ref::<Float64Array>().expect("a float column");
                    self.ints.extend(part.values().iter().map(|value| value.to_bits() as i64));
                }
                Data::Ints(Ints::new(&self.ints, &mut self.words))
            }
            DataType::UInt128 => self.encode_wide(parts),
            DataType::String => self.encode_strings(spec, parts, shared),
        };
        Column { data, nulls, bounds }
    }

    fn encode_wide(&mut self, parts: &[&dyn Array]) -> Data {
        self.interner.clear();
        for part in parts {
            for value in arrays::wide_values(*part).chunks_exact(WIDE) {
                self.ints.push(i64::from(self.interner.intern(value)));
            }
        }
        Data::Wide { numbers: Ints::new(&self.ints, &mut self.words), values: self.interner.parts().0.into() }
    }

    fn encode_strings(&mut self, spec: &ColumnSpec, parts: &[&dyn Array], shared: &mut Shared) -> Data {
        self.interner.clear();
        for part in parts {
            if spec.dictionary {
                let (keys, values) = arrays::label_parts(*part);
                let numbers: Vec<u32> =
                    (0..values.len()).map(|i| self.interner.intern(values.value(i).as_bytes())).collect();
                // The key of a null is 0, which numbers nothing where all are null.
                self.ints.extend(keys.iter().map(|key| i64::from(numbers.get(*key as usize).copied().unwrap_or(0))));
            } else {
                let values = arrays::text(*part);
                for i in 0..values.len() {
                    self.ints.push(i64::from(self.interner.intern(values.value(i).as_bytes())));
                }
            }
        }
        if self.interner.len() == 0 {
            self.interner.intern(b"");
        }
        if let Some(values) = self.share(shared) {
            return Data::Strings { numbers: Ints::new(&self.ints, &mut self.words), values };
        }
        let numbers = Ints::new(&self.ints, &mut self.words);
        let compress_from = if spec.dictionary { dictionary::LABEL_BYTES_MIN } else { dictionary::TEXT_BYTES_MIN };
        let values = if self.interner.bytes_len() < compress_from {
            Dictionary::plain(&self.interner)
        } else {
            Dictionary::new(&self.interner, &mut self.compressor, &mut self.ints, &mut self.words)
        };
        let values = Arc::new(values);
        if self.interner.bytes_len() <= SHARED_BYTES_MAX {
            shared.0 = Some((self.interner.compact(), values.clone()));
        } else {
            shared.0 = None;
        }
        Data::Strings { numbers, values }
    }

    /// The last batch's dictionary, with `self.ints` renumbered to it, if it has every string of this one and is not much larger.
    fn share(&mut self, shared: &Shared) -> Option<Arc<Dictionary>> {
        let (known, dictionary) = shared.0.as_ref()?;
        if known.len() > self.interner.len() * 4 + 16 {
            return None;
        }
        let numbers: Vec<i64> = (0..self.interner.len() as u32)
            .map(|number| known.find(self.interner.get(number)).map(i64::from))
            .collect::<Option<_>>()?;
        self.ints.iter_mut().for_each(|number| *number = numbers[*number as usize]);
        Some(dictionary.clone())
    }
}

impl Column {
    /// The column as plain Arrow.
    pub fn decode(&self, spec: &ColumnSpec, rows: usize, scratch: &mut Vec<u8>) -> ArrayRef {
        let nulls = self.nulls.clone();
        match (&self.data, spec.data_type) {
            (Data::Ints(ints), DataType::Boolean) => {
                let bits = ints.decode::<i32>(rows);
                Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(rows, |i| bits[i] != 0), nulls))
            }
            (Data::Ints(ints), DataType::Float64) => {
                let values: Vec<f64> =
                    ints.decode::<i64>(rows).into_iter().map(|bits| f64::from_bits(bits as u64)).collect();
                Arc::new(Float64Array::new(values.into(), nulls))
            }
            (Data::Ints(ints), data_type) => arrays::ints(data_type, ints.decode(rows), nulls),
            (Data::Wide { numbers, values }, _) => {
                let mut bytes = Vec::with_capacity(rows * WIDE);
                for number in numbers.decode::<i32>(rows) {
                    let at = number as usize * WIDE;
                    bytes.extend_from_slice(&values[at..at + WIDE]);
                }
                arrays::wide(bytes, nulls)
            }
            (Data::Strings { numbers, values }, _) if spec.dictionary => {
                arrays::label(numbers.decode(rows), nulls, values.strings())
            }
            (Data::Strings { numbers, values }, _) => {
                // As many strings as rows means that the strings are the rows: numbers follow first appearance.
                if values.len() == rows && nulls.is_none() && numbers.counts_up(rows) {
                    return values.strings();
                }
                let numbers = numbers.decode(rows);
                Arc::new(values.read(scratch, |bytes, offsets| gather(bytes, offsets, &numbers, nulls)))
            }
        }
    }

    /// The chosen rows of a text column, so that only they are copied; `None` for other types, which are as well decoded whole.
    pub fn decode_rows(
        &self,
        spec: &ColumnSpec,
        rows: usize,
        chosen: &BooleanBuffer,
        scratch: &mut Vec<u8>,
    ) -> Option<ArrayRef> {
        let Data::Strings { numbers, values } = &self.data else { return None };
        if spec.dictionary {
            return None;
        }
        let numbers = numbers.decode::<i32>(rows);
        let numbers: Vec<i32> = chosen.set_indices().map(|row| numbers[row]).collect();
        let nulls = self.nulls.as_ref().map(|nulls| chosen.set_indices().map(|row| nulls.is_valid(row)).collect());
        Some(Arc::new(values.read(scratch, |bytes, offsets| gather(bytes, offsets, &numbers, nulls))))
    }

    /// Least and greatest of an integer or time column's values; `None` when all are null, or of another type.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        self.bounds
    }

    /// The distinct values of a 128-bit column.
    pub fn wide_values(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Wide { values, .. } => Some(values),
            _ => None,
        }
    }

    /// The dictionary of a string column.
    pub fn dictionary(&self) -> Option<&Arc<Dictionary>> {
        match &self.data {
            Data::Strings { values, .. } => Some(values),
            _ => None,
        }
    }

    /// Bytes on the heap, without the dictionary, which may be shared.
    pub fn allocated(&self) -> usize {
        let data = match &self.data {
            Data::Ints(ints) => ints.allocated(),
            Data::Wide { numbers, values } => numbers.allocated() + values.len(),
            Data::Strings { numbers, .. } => numbers.allocated(),
        };
        data + self.nulls.as_ref().map_or(0, |nulls| nulls.buffer().capacity())
    }

    /// Shows every stored byte to `see`.
    pub fn visit(&self, see: &mut dyn FnMut(&[u8])) {
        match &self.data {
            Data::Ints(ints) => ints.visit(see),
            Data::Wide { numbers, values } => {
                numbers.visit(see);
                see(values);
            }
            Data::Strings { numbers, values } => {
                numbers.visit(see);
                values.visit(see);
            }
        }
        if let Some(nulls) = &self.nulls {
            see(nulls.buffer().as_slice());
        }
    }
}

/// Puts the neighbour's value under each null, so that nulls do not widen the range, and returns the bounds of the others.
fn close_gaps(values: &mut [i64], nulls: Option<&NullBuffer>) -> Option<(i64, i64)> {
    if let Some(nulls) = nulls {
        let first = nulls.valid_indices().next()?;
        let mut last = values[first];
        for (i, value) in values.iter_mut().enumerate() {
            if nulls.is_null(i) {
                *value = last;
            } else {
                last = *value;
            }
        }
    }
    Some((values.iter().copied().min()?, values.iter().copied().max()?))
}

fn gather(strings: &[u8], starts: &[i32], numbers: &[i32], nulls: Option<NullBuffer>) -> StringArray {
    let total = numbers.iter().map(|number| (starts[*number as usize + 1] - starts[*number as usize]) as usize).sum();
    let mut bytes = Vec::with_capacity(total);
    let mut offsets = Vec::with_capacity(numbers.len() + 1);
    offsets.push(0);
    for number in numbers {
        let number = *number as usize;
        bytes.extend_from_slice(&strings[starts[number] as usize..starts[number + 1] as usize]);
        offsets.push(bytes.len() as i32);
    }
    arrays::strings(bytes, offsets, nulls)
}
