//! Rows that are published but not sealed: plain Arrow, a few hundred rows at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::compute::concat;

use crate::arrays;
use crate::intern::Interner;
use crate::spec::{DataType, TableSpec};

/// Published rows that are not sealed yet. Never changes.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Row id of the first row.
    pub first_row: u64,
    pub rows: usize,
    pub columns: Vec<ArrayRef>,
    pub times: Times,
    /// Bytes it takes.
    pub bytes: usize,
    /// Bytes that the same rows take as plain Arrow without dictionaries.
    pub bytes_plain: usize,
}

/// What is known of the times of consecutive rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub min_ns: i64,
    pub max_ns: i64,
    /// Whether no row is earlier than the one before it.
    pub sorted: bool,
}

impl Times {
    pub fn of(times: &[i64]) -> Times {
        Times {
            min_ns: times.iter().copied().min().unwrap_or(i64::MAX),
            max_ns: times.iter().copied().max().unwrap_or(i64::MIN),
            sorted: times.is_sorted(),
        }
    }

    /// Of these rows and those that follow them.
    pub fn then(self, next: Times) -> Times {
        Times {
            min_ns: self.min_ns.min(next.min_ns),
            max_ns: self.max_ns.max(next.max_ns),
            sorted: self.sorted && next.sorted && self.max_ns <= next.min_ns,
        }
    }
}

impl Chunk {
    pub fn new(time_index: usize, first_row: u64, columns: Vec<ArrayRef>, bytes_plain: usize) -> Chunk {
        let times = Times::of(arrays::int_values(&columns[time_index]));
        let rows = columns[time_index].len();
        let bytes = size_of::<Chunk>() + columns.iter().map(|column| column.get_array_memory_size()).sum::<usize>();
        Chunk { first_row, rows, columns, times, bytes, bytes_plain }
    }

    /// One chunk with the rows of all, which follow one another.
    pub fn merge(spec: &TableSpec, time_index: usize, chunks: &[Arc<Chunk>]) -> Chunk {
        let columns = spec
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let parts: Vec<&dyn Array> = chunks.iter().map(|chunk| chunk.columns[index].as_ref()).collect();
                if column.data_type == DataType::String && column.dictionary {
                    merge_labels(&parts)
                } else {
                    concat(&parts).expect("chunks of a table have the types of its columns")
                }
            })
            .collect();
        let bytes_plain = chunks.iter().map(|chunk| chunk.bytes_plain).sum();
        Chunk::new(time_index, chunks[0].first_row, columns, bytes_plain)
    }
}

fn merge_labels(parts: &[&dyn Array]) -> ArrayRef {
    let rows = parts.iter().map(|part| part.len()).sum();
    let mut interner = Interner::new();
    let mut keys = Vec::with_capacity(rows);
    for part in parts {
        let (part_keys, values) = arrays::label_parts(*part);
        let numbers: Vec<i32> = values.iter().flatten().map(|value| interner.intern(value.as_bytes()) as i32).collect();
        // The key of a null is 0 and numbers nothing where every row of the part is null.
        keys.extend(part_keys.iter().map(|key| numbers.get(*key as usize).copied().unwrap_or(0)));
    }
    arrays::label(keys, concat_nulls(parts), Arc::new(arrays::distinct(&interner)))
}

/// Validity of the rows of all parts, `None` when there is no null.
pub(crate) fn concat_nulls(parts: &[&dyn Array]) -> Option<NullBuffer> {
    if parts.iter().all(|part| part.null_count() == 0) {
        return None;
    }
    let mut builder = arrow::array::builder::NullBufferBuilder::new(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        match part.nulls() {
            Some(nulls) => builder.append_buffer(nulls),
            None => builder.append_n_non_nulls(part.len()),
        }
    }
    builder.finish()
}
