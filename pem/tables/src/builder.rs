//! Rows that are appended but not published: one growing column each, reused from publish to publish.

use std::sync::Arc;

use arrow::array::builder::{BooleanBufferBuilder, NullBufferBuilder};
use arrow::array::{ArrayRef, BooleanArray, Float64Array};
use arrow::buffer::NullBuffer;

use crate::arrays;
use crate::chunk::Chunk;
use crate::intern::Interner;
use crate::spec::{DataType, TableSpec};
use crate::value::{AppendError, STRING_BYTES_MAX, Value, cut};

/// Collects rows until they are published.
#[derive(Debug)]
pub(crate) struct Builder {
    spec: &'static TableSpec,
    time_index: usize,
    rows: usize,
    columns: Vec<Column>,
    bytes_plain: usize,
    values_cut: u64,
}

#[derive(Debug)]
struct Column {
    data: Data,
    nulls: Option<NullBufferBuilder>,
}

#[derive(Debug)]
enum Data {
    Bool(BooleanBufferBuilder),
    Int(Vec<i64>),
    Time(Vec<i64>),
    Wide(Vec<u8>),
    Float(Vec<f64>),
    Label { keys: Vec<i32>, values: Interner },
    Text { bytes: Vec<u8>, offsets: Vec<i32> },
}

impl Builder {
    pub fn new(spec: &'static TableSpec) -> Builder {
        let columns = spec.columns.iter().map(|column| Column::new(column.data_type, column.dictionary)).collect();
        Builder { spec, time_index: spec.time_index(), rows: 0, columns, bytes_plain: 0, values_cut: 0 }
    }

    /// Rows waiting to be published.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What the waiting rows take as plain Arrow.
    pub fn bytes_plain(&self) -> usize {
        self.bytes_plain
    }

    /// Strings cut at [`STRING_BYTES_MAX`] so far.
    pub fn values_cut(&self) -> u64 {
        self.values_cut
    }

    /// Adds a row, or nothing at all.
    pub fn append(&mut self, row: &[Value<'_>]) -> Result<(), AppendError> {
        self.check(row)?;
        for (column, value) in self.columns.iter_mut().zip(row) {
            let (bytes, was_cut) = column.push(self.rows, value);
            self.bytes_plain += bytes;
            self.values_cut += u64::from(was_cut);
        }
        self.rows += 1;
        Ok(())
    }

    fn check(&self, row: &[Value<'_>]) -> Result<(), AppendError> {
        let table = self.spec.name;
        if row.len() != self.spec.columns.len() {
            return Err(AppendError::Width { table, given: row.len(), expected: self.spec.columns.len() });
        }
        for (spec, value) in self.spec.columns.iter().zip(row) {
            let Some(given) = value.data_type() else { continue };
            if given != spec.data_type {
                return Err(AppendError::Type { table, column: spec.name, given, expected: spec.data_type });
            }
        }
        if row[self.time_index] == Value::Null {
            return Err(AppendError::NoTime { table, column: self.spec.columns[self.time_index].name });
        }
        Ok(())
    }

    /// The rows so far as a chunk; the builder is empty after, and keeps its memory for the next rows.
    pub fn freeze(&mut self, first_row: u64) -> Chunk {
        let rows = self.rows;
        let columns = self.columns.iter_mut().map(|column| column.freeze(rows)).collect();
        let chunk = Chunk::new(self.time_index, first_row, columns, self.bytes_plain);
        self.rows = 0;
        self.bytes_plain = 0;
        chunk
    }

    /// Bytes it holds on to.
    pub fn allocated(&self) -> usize {
        self.columns.iter().map(Column::allocated).sum()
    }
}

impl Column {
    fn new(data_type: DataType, dictionary: bool) -> Column {
        let data = match data_type {
            DataType::Boolean => Data::Bool(BooleanBufferBuilder::new(0)),
            DataType::Int64 => Data::Int(Vec::new()),
            DataType::Time64Ns => Data::Time(Vec::new()),
            DataType::UInt128 => Data::Wide(Vec::new()),
            DataType::Float64 => Data::Float(Vec::new()),
            DataType::String if dictionary => Data::Label { keys: Vec::new(), values: Interner::new() },
            DataType::String => Data::Text { bytes: Vec::new(), offsets: vec![0] },
        };
        Column { data, nulls: None }
    }

    /// Adds a value that was checked. Returns its bytes in plain Arrow and whether it was cut.
    fn push(&mut self, rows_before: usize, value: &Value<'_>) -> (usize, bool) {
        let null = *value == Value::Null;
        if null || self.nulls.is_some() {
            let nulls = self.nulls.get_or_insert_with(|| {
                let mut nulls = NullBufferBuilder::new(0);
                nulls.append_n_non_nulls(rows_before);
                nulls
            });
            nulls.append(!null);
        }
        match (&mut self.data, value) {
            (Data::Int(values), Value::Int(value)) | (Data::Time(values), Value::Time(value)) => {
                values.push(*value);
                (8, false)
            }
            (Data::Label { keys, values }, Value::Str(text)) => {
                let kept = cut(text, STRING_BYTES_MAX);
                keys.push(values.intern(kept.as_bytes()) as i32);
                (4 + kept.len(), kept.len() < text.len())
            }
            (Data::Text { bytes, offsets }, Value::Str(text)) => {
                let kept = cut(text, STRING_BYTES_MAX);
                bytes.extend_from_slice(kept.as_bytes());
                offsets.push(bytes.len() as i32);
                (4 + kept.len(), kept.len() < text.len())
            }
            (Data::Bool(values), Value::Bool(value)) => {
                values.append(*value);
                // An eighth of a byte; a whole one per eight rows.
                (usize::from(rows_before % 8 == 0), false)
            }
            (Data::Wide(bytes), Value::U128(value)) => {
                bytes.extend_from_slice(&value.to_be_bytes());
                (arrays::WIDE, false)
            }
            (Data::Float(values), Value::Float(value)) => {
                values.push(*value);
                (8, false)
            }
            (data, _) => (data.push_nothing(), false),
        }
    }

    fn freeze(&mut self, rows: usize) -> ArrayRef {
        let nulls: Option<NullBuffer> = self.nulls.take().and_then(|mut nulls| nulls.finish());
        match &mut self.data {
            Data::Bool(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Data::Int(values) => arrays::ints(DataType::Int64, take(values), nulls),
            Data::Time(values) => arrays::ints(DataType::Time64Ns, take(values), nulls),
            Data::Wide(bytes) => arrays::wide(take(bytes), nulls),
            Data::Float(values) => Arc::new(Float64Array::new(take(values).into(), nulls)),
            Data::Label { keys, values } => {
                let distinct = Arc::new(arrays::distinct(values));
                values.clear_and_shrink();
                // Arrow asks a key of null to be in range only where it is not null.
                arrays::label(take(keys), nulls, distinct)
            }
            Data::Text { bytes, offsets } => {
                let all = take(offsets);
                offsets.push(0);
                debug_assert_eq!(all.len(), rows + 1);
                Arc::new(arrays::strings(take(bytes), all, nulls))
            }
        }
    }

    fn allocated(&self) -> usize {
        match &self.data {
            Data::Bool(values) => values.capacity() / 8,
            Data::Int(values) | Data::Time(values) => values.capacity() * 8,
            Data::Wide(bytes) => bytes.capacity(),
            Data::Float(values) => values.capacity() * 8,
            Data::Label { keys, values } => keys.capacity() * 4 + values.allocated(),
            Data::Text { bytes, offsets } => bytes.capacity() + offsets.capacity() * 4,
        }
    }
}

impl Data {
    /// Adds the value that stands under a null. Returns its bytes in plain Arrow.
    fn push_nothing(&mut self) -> usize {
        match self {
            Data::Bool(values) => {
                values.append(false);
                0
            }
            Data::Int(values) | Data::Time(values) => {
                values.push(0);
                8
            }
            Data::Wide(bytes) => {
                bytes.extend_from_slice(&[0; arrays::WIDE]);
                arrays::WIDE
            }
            Data::Float(values) => {
                values.push(0.0);
                8
            }
            Data::Label { keys, .. } => {
                keys.push(0);
                4
            }
            Data::Text { bytes, offsets } => {
                offsets.push(bytes.len() as i32);
                4
            }
        }
    }
}

/// What was collected, without spare room. What stays has room for about as much again, so that rows are written to memory
/// once and neither copied nor, after a burst, paid for ever after.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(values.len() + values.len() / 8);
    let mut all = std::mem::replace(values, next);
    all.shrink_to_fit();
    all
}
