//! Rows that follow one another, hot or sealed, as a scan sees them.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};

use crate::chunk::{Chunk, Times};
use crate::predicate::Predicate;

/// Consecutive rows of a snapshot.
#[derive(Debug, Clone)]
pub(crate) enum Segment {
    Hot(Arc<Chunk>),
}

/// What is known of some consecutive rows without decoding them.
#[derive(Debug, Clone)]
pub struct BatchStats {
    /// Row id of the first row.
    pub first_row: u64,
    /// Rows.
    pub rows: usize,
    /// Bytes it takes.
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

/// What is known of a column of a batch.
#[derive(Debug, Clone)]
pub enum ColumnStats {
    /// Nothing.
    Unknown,
    /// Bounds of the integers or times; a null counts as 0.
    Range {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Every distinct string, and maybe more.
    Labels(Arc<StringArray>),
}

impl Segment {
    pub fn first_row(&self) -> u64 {
        match self {
            Segment::Hot(chunk) => chunk.first_row,
        }
    }

    pub fn rows(&self) -> usize {
        match self {
            Segment::Hot(chunk) => chunk.rows,
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Segment::Hot(chunk) => chunk.bytes,
        }
    }

    pub fn times(&self) -> Times {
        match self {
            Segment::Hot(chunk) => chunk.times,
        }
    }

    /// A column, decoded.
    pub fn column(&self, index: usize) -> ArrayRef {
        match self {
            Segment::Hot(chunk) => chunk.columns[index].clone(),
        }
    }

    /// Whether some row may meet the predicate.
    pub fn may_match(&self, _predicate: &Predicate) -> bool {
        match self {
            Segment::Hot(_) => true,
        }
    }

    pub fn stats(&self) -> BatchStats {
        let times = self.times();
        BatchStats {
            first_row: self.first_row(),
            rows: self.rows(),
            bytes: self.bytes(),
            sealed: false,
            min_ns: times.min_ns,
            max_ns: times.max_ns,
            columns: match self {
                Segment::Hot(chunk) => chunk.columns.iter().map(|_| ColumnStats::Unknown).collect(),
            },
        }
    }
}
