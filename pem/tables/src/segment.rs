//! Rows that follow one another, hot or sealed, as a scan sees them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::buffer::BooleanBuffer;

use crate::arrays::{self, WIDE};
use crate::chunk::{Chunk, Times};
use crate::predicate::Predicate;
use crate::sealed::Batch;
use crate::spec::{DataType, TableSpec};

/// Distinct values up to which a predicate is tried on all of them to skip a batch. With more, a match becomes likely, and
/// trying costs as much as the scan that it may save.
const DISTINCT_TRIED_MAX: usize = 256;

/// Consecutive rows of a snapshot.
#[derive(Debug, Clone)]
pub(crate) enum Segment {
    Hot(Arc<Chunk>),
    Sealed(Arc<Batch>),
}

/// What is known of some consecutive rows without decoding them.
#[derive(Debug, Clone)]
pub struct BatchStats {
    /// Row id of the first row.
    pub first_row: u64,
    /// Rows.
    pub rows: usize,
    /// Bytes it takes; those of dictionaries that a sealed batch shares with the one before it count in each.
    pub bytes: usize,
    /// Whether it is sealed.
    pub sealed: bool,
    /// Earliest `time_`.
    pub min_ns: i64,
    /// Latest `time_`.
    pub max_ns: i64,
    /// One per column of the table.
    pub columns: Vec<ColumnStats>,
}

/// What is known of a column of a batch. Values are those of rows that are not null.
#[derive(Debug, Clone)]
pub enum ColumnStats {
    /// Nothing.
    Unknown,
    /// Bounds of integers or times.
    Range {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// Every distinct string, and maybe more.
    Strings(Arc<StringArray>),
}

impl Segment {
    pub fn first_row(&self) -> u64 {
        match self {
            Segment::Hot(chunk) => chunk.first_row,
            Segment::Sealed(batch) => batch.first_row,
        }
    }

    pub fn rows(&self) -> usize {
        match self {
            Segment::Hot(chunk) => chunk.rows,
            Segment::Sealed(batch) => batch.rows,
        }
    }

    pub fn times(&self) -> Times {
        match self {
            Segment::Hot(chunk) => chunk.times,
            Segment::Sealed(batch) => batch.times,
        }
    }

    /// A column, decoded. `scratch` is for reuse.
    pub fn column(&self, spec: &TableSpec, index: usize, scratch: &mut Vec<u8>) -> ArrayRef {
        match self {
            Segment::Hot(chunk) => chunk.columns[index].clone(),
            Segment::Sealed(batch) => batch.columns[index].decode(&spec.columns[index], batch.rows, scratch),
        }
    }

    /// The chosen rows of a column, if the column has a cheaper way than to decode and filter all of it.
    pub fn column_rows(
        &self,
        spec: &TableSpec,
        index: usize,
        chosen: &BooleanBuffer,
        scratch: &mut Vec<u8>,
    ) -> Option<ArrayRef> {
        match self {
            Segment::Hot(_) => None,
            Segment::Sealed(batch) => {
                batch.columns[index].decode_rows(&spec.columns[index], batch.rows, chosen, scratch)
            }
        }
    }

    /// Whether some row may meet the predicate, as far as is known without decoding.
    pub fn may_match(&self, predicate: &Predicate) -> bool {
        let Segment::Sealed(batch) = self else { return true };
        let column = &batch.columns[predicate.column()];
        if let Some((min, max)) = column.bounds() {
            return predicate.may_hold_between(min, max);
        }
        if let Some(values) = column.wide_values() {
            let count = values.len() / WIDE;
            return count > DISTINCT_TRIED_MAX
                || (0..count).any(|i| predicate.holds_wide(arrays::wide_value(values, i)));
        }
        match column.dictionary().and_then(|dictionary| dictionary.strings_if_plain()) {
            Some(strings) if strings.len() <= DISTINCT_TRIED_MAX => {
                (0..strings.len()).any(|i| predicate.holds_str(strings.value(i)))
            }
            _ => true,
        }
    }

    pub fn stats(&self, spec: &TableSpec) -> BatchStats {
        let times = self.times();
        let columns = match self {
            Segment::Hot(chunk) => {
                spec.columns.iter().map(|_| ColumnStats::Unknown).take(chunk.columns.len()).collect()
            }
            Segment::Sealed(batch) => batch
                .columns
                .iter()
                .zip(spec.columns)
                .map(|(column, spec)| {
                    match (column.bounds(), column.dictionary().and_then(|dictionary| dictionary.strings_if_plain())) {
                        (Some((min, max)), _) => ColumnStats::Range { min, max },
                        (None, Some(strings)) if spec.data_type == DataType::String => {
                            ColumnStats::Strings(strings.clone())
                        }
                        _ => ColumnStats::Unknown,
                    }
                })
                .collect(),
        };
        BatchStats {
            first_row: self.first_row(),
            rows: self.rows(),
            bytes: match self {
                Segment::Hot(chunk) => chunk.bytes,
                Segment::Sealed(batch) => batch.bytes + batch.dictionary_bytes(None),
            },
            sealed: matches!(self, Segment::Sealed(_)),
            min_ns: times.min_ns,
            max_ns: times.max_ns,
            columns,
        }
    }

    /// Shows every stored byte to `see`.
    pub fn visit(&self, see: &mut dyn FnMut(&[u8])) {
        see(&self.first_row().to_le_bytes());
        see(&(self.rows() as u64).to_le_bytes());
        match self {
            Segment::Hot(chunk) => {
                for column in &chunk.columns {
                    visit_array(column, see);
                }
            }
            Segment::Sealed(batch) => batch.columns.iter().for_each(|column| column.visit(see)),
        }
    }
}

fn visit_array(array: &dyn Array, see: &mut dyn FnMut(&[u8])) {
    let data = array.to_data();
    for buffer in data.buffers() {
        see(buffer.as_slice());
    }
    if let Some(nulls) = data.nulls() {
        see(nulls.buffer().as_slice());
    }
    for child in data.child_data() {
        for buffer in child.buffers() {
            see(buffer.as_slice());
        }
    }
}
