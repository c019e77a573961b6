//! Batches that never change again: some thousands of rows, encoded column by column.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::Array;

use crate::chunk::{Chunk, Times};
use crate::encode::{Column, Encoder, Shared};
use crate::spec::TableSpec;

/// A sealed batch.
#[derive(Debug)]
pub(crate) struct Batch {
    pub first_row: u64,
    pub rows: usize,
    pub times: Times,
    pub columns: Vec<Column>,
    /// Bytes it takes, without its dictionaries: these may be shared with its neighbours.
    pub bytes: usize,
    pub bytes_plain: usize,
}

impl Batch {
    /// Bytes of its dictionaries, those left out that `neighbour` has too.
    pub fn dictionary_bytes(&self, neighbour: Option<&Batch>) -> usize {
        (0..self.columns.len()).map(|index| self.column_dictionary_bytes(index, neighbour)).sum()
    }

    /// Bytes of a column, without its dictionary where `neighbour` has it too.
    pub fn column_bytes(&self, index: usize, neighbour: Option<&Batch>) -> usize {
        size_of::<Column>() + self.columns[index].allocated() + self.column_dictionary_bytes(index, neighbour)
    }

    fn column_dictionary_bytes(&self, index: usize, neighbour: Option<&Batch>) -> usize {
        let Some(dictionary) = self.columns[index].dictionary() else { return 0 };
        let other = neighbour.and_then(|batch| batch.columns[index].dictionary());
        if other.is_some_and(|other| Arc::ptr_eq(other, dictionary)) { 0 } else { dictionary.allocated() }
    }
}

/// A batch in the making: the chunks it replaces, and the columns that are done.
#[derive(Debug)]
pub(crate) struct Seal {
    pub chunks: Vec<Arc<Chunk>>,
    columns: Vec<Column>,
}

impl Seal {
    pub fn new(chunks: Vec<Arc<Chunk>>) -> Seal {
        Seal { chunks, columns: Vec::new() }
    }

    /// Encodes the next column. Returns how many bytes it had.
    pub fn step(&mut self, spec: &TableSpec, encoder: &Mutex<Encoder>, shared: &mut [Shared]) -> usize {
        let index = self.columns.len();
        let parts: Vec<&dyn Array> = self.chunks.iter().map(|chunk| chunk.columns[index].as_ref()).collect();
        let bytes = parts.iter().map(|part| part.get_buffer_memory_size()).sum();
        let mut encoder = encoder.lock().unwrap_or_else(PoisonError::into_inner);
        self.columns.push(encoder.encode(&spec.columns[index], &parts, &mut shared[index]));
        bytes
    }

    /// Whether every column is encoded.
    pub fn done(&self, spec: &TableSpec) -> bool {
        self.columns.len() == spec.columns.len()
    }

    /// The batch, once done.
    pub fn finish(self) -> Batch {
        let columns = self.columns;
        let times = self.chunks.iter().map(|chunk| chunk.times).reduce(Times::then);
        let bytes = size_of::<Batch>()
            + columns.capacity() * size_of::<Column>()
            + columns.iter().map(Column::allocated).sum::<usize>();
        Batch {
            first_row: self.chunks[0].first_row,
            rows: self.chunks.iter().map(|chunk| chunk.rows).sum(),
            times: times.expect("a batch is made of at least one chunk"),
            bytes,
            bytes_plain: self.chunks.iter().map(|chunk| chunk.bytes_plain).sum(),
            columns,
        }
    }
}
