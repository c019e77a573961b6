//! Reading a snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;

use crate::arrays;
use crate::predicate::Predicate;
use crate::segment::Segment;
use crate::spec::TableSpec;

/// Instants in ns since the epoch: start inclusive, end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// First instant that belongs.
    pub start_ns: i64,
    /// First instant that does not. `i64::MAX` means no end: it belongs itself then.
    pub end_ns: i64,
}

impl TimeRange {
    /// All time.
    pub const ALL: TimeRange = TimeRange { start_ns: i64::MIN, end_ns: i64::MAX };

    fn contains(&self, time_ns: i64) -> bool {
        self.start_ns <= time_ns && (time_ns < self.end_ns || self.end_ns == i64::MAX)
    }
}

/// What a scan did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Rows of the batches that were read.
    pub rows_read: u64,
    /// Rows handed out.
    pub rows_out: u64,
    /// Bytes of the columns handed out or judged, decoded.
    pub bytes_read: u64,
    /// Batches read.
    pub batches_read: u64,
    /// Batches skipped because nothing in them could match.
    pub batches_skipped: u64,
}

/// Batches of a table as it was when the scan began, oldest first. Holds what it has still to read in memory, even when the
/// table has let go of it since; drop it when done.
#[derive(Debug)]
pub struct Scan {
    spec: &'static TableSpec,
    time_index: usize,
    schema: SchemaRef,
    projection: Vec<usize>,
    range: TimeRange,
    /// Rows before this one are cut.
    first_row: u64,
    predicates: Vec<Predicate>,
    segments: VecDeque<Segment>,
    newest_row_id: u64,
    rows_missed: u64,
    counts: ScanCounts,
    /// Where texts are decompressed to: reused, as it is large.
    scratch: Vec<u8>,
}

pub(crate) struct Request<'a> {
    pub spec: &'static TableSpec,
    pub time_index: usize,
    pub schema: &'a SchemaRef,
    pub projection: Option<&'a [usize]>,
    pub range: TimeRange,
    pub first_row: u64,
    pub predicates: &'a [Predicate],
}

impl Scan {
    pub(crate) fn new(
        request: Request<'_>,
        segments: impl Iterator<Item = Segment>,
        newest_row_id: u64,
        rows_missed: u64,
    ) -> Scan {
        let Request { spec, time_index, schema, projection, range, first_row, predicates } = request;
        let projection: Vec<usize> = match projection {
            Some(columns) => columns.to_vec(),
            None => (0..spec.columns.len()).collect(),
        };
        let schema = Arc::new(schema.project(&projection).expect("a projection names columns of the table"));
        let predicates: Vec<Predicate> =
            predicates.iter().filter(|predicate| predicate.applies(spec.columns)).cloned().collect();
        let mut counts = ScanCounts::default();
        let segments = segments
            .filter(|segment| {
                let times = segment.times();
                let outside = segment.first_row() + segment.rows() as u64 <= first_row
                    || times.max_ns < range.start_ns
                    || (times.min_ns >= range.end_ns && range.end_ns != i64::MAX);
                counts.batches_skipped += u64::from(outside);
                !outside
            })
            .collect();
        Scan {
            spec,
            time_index,
            schema,
            projection,
            range,
            first_row,
            predicates,
            segments,
            newest_row_id,
            rows_missed,
            counts,
            scratch: Vec::new(),
        }
    }

    /// Schema of the batches: the table's, projected.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Id of the newest row of the snapshot, 0 when there never was one: where [`Table::rows_after`](crate::Table::rows_after)
    /// goes on.
    pub fn newest_row_id(&self) -> u64 {
        self.newest_row_id
    }

    /// Rows asked for by id that had expired when the scan began.
    pub fn rows_missed(&self) -> u64 {
        self.rows_missed
    }

    /// Most rows that are still to come.
    pub fn rows_upper_bound(&self) -> usize {
        self.segments.iter().map(Segment::rows).sum()
    }

    /// What it did so far.
    pub fn counts(&self) -> ScanCounts {
        self.counts
    }

    /// The same scan in at most `parts` parts of about equally many rows, for as many threads. Rows of one part precede those
    /// of the next; what was counted stays with the first.
    pub fn split(mut self, parts: usize) -> Vec<Scan> {
        let mut scans = Vec::new();
        let mut rows_left = self.rows_upper_bound();
        for left in (1..=parts.max(1)).rev() {
            let goal = rows_left.div_ceil(left);
            let mut segments = VecDeque::new();
            let mut rows = 0;
            while rows < goal || left == 1 {
                let Some(segment) = self.segments.pop_front() else { break };
                rows += segment.rows();
                segments.push_back(segment);
            }
            rows_left -= rows;
            if segments.is_empty() && !scans.is_empty() {
                break;
            }
            scans.push(Scan {
                spec: self.spec,
                time_index: self.time_index,
                schema: self.schema.clone(),
                projection: self.projection.clone(),
                range: self.range,
                first_row: self.first_row,
                predicates: self.predicates.clone(),
                segments,
                newest_row_id: self.newest_row_id,
                rows_missed: if scans.is_empty() { self.rows_missed } else { 0 },
                counts: if scans.is_empty() { self.counts } else { ScanCounts::default() },
                scratch: Vec::new(),
            });
        }
        scans
    }

    fn read(&mut self, segment: &Segment) -> Option<RecordBatch> {
        let scratch = std::mem::take(&mut self.scratch);
        let mut columns = Columns { spec: self.spec, segment, decoded: Vec::new(), bytes: 0, scratch };
        let selection = self.select(segment, &mut columns);
        self.counts.batches_read += 1;
        self.counts.rows_read += segment.rows() as u64;
        let rows = selection.rows();
        let arrays = if rows == 0 {
            Vec::new()
        } else {
            self.projection.iter().map(|column| columns.select(*column, &selection)).collect()
        };
        self.counts.bytes_read += columns.bytes as u64;
        self.scratch = columns.scratch;
        if rows == 0 {
            return None;
        }
        self.counts.rows_out += rows as u64;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options);
        Some(batch.expect("columns of a table have the types of its schema"))
    }

    /// The rows of a segment to hand out.
    fn select(&self, segment: &Segment, columns: &mut Columns<'_>) -> Selection {
        let times = segment.times();
        let mut from = self.first_row.saturating_sub(segment.first_row()) as usize;
        let mut to = segment.rows();
        let mut mask: Option<BooleanBuffer> = None;
        if !self.range.contains(times.min_ns) || !self.range.contains(times.max_ns) {
            let array = columns.get(self.time_index);
            let values = arrays::int_values(&array);
            if times.sorted {
                from = from.max(values.partition_point(|time| *time < self.range.start_ns));
                if self.range.end_ns != i64::MAX {
                    to = to.min(values.partition_point(|time| *time < self.range.end_ns));
                }
            } else {
                let range = self.range;
                mask = Some(BooleanBuffer::collect_bool(values.len(), |i| range.contains(values[i])));
            }
        }
        for predicate in &self.predicates {
            let array = columns.get(predicate.column());
            let met = predicate.matches(&self.spec.columns[predicate.column()], &array);
            mask = Some(match mask {
                Some(mask) => &mask & &met,
                None => met,
            });
        }
        let to = to.max(from);
        match mask {
            None => Selection::slice(segment.rows(), from, to),
            Some(mask) => Selection::mask(mask, from, to),
        }
    }
}

impl Iterator for Scan {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        while let Some(segment) = self.segments.pop_front() {
            if !self.predicates.iter().all(|predicate| segment.may_match(predicate)) {
                self.counts.batches_skipped += 1;
                continue;
            }
            if let Some(batch) = self.read(&segment) {
                return Some(batch);
            }
        }
        None
    }
}

/// Columns of a segment, each decoded at most once.
struct Columns<'a> {
    spec: &'static TableSpec,
    segment: &'a Segment,
    decoded: Vec<(usize, ArrayRef)>,
    bytes: usize,
    scratch: Vec<u8>,
}

impl Columns<'_> {
    fn get(&mut self, index: usize) -> ArrayRef {
        if let Some((_, array)) = self.decoded.iter().find(|(column, _)| *column == index) {
            return array.clone();
        }
        let array = self.segment.column(self.spec, index, &mut self.scratch);
        self.bytes += array.get_buffer_memory_size();
        self.decoded.push((index, array.clone()));
        array
    }

    /// The chosen rows of a column.
    fn select(&mut self, index: usize, selection: &Selection) -> ArrayRef {
        if let Selection::Mask(mask, _) = selection
            && !self.decoded.iter().any(|(column, _)| *column == index)
            && let Some(array) = self.segment.column_rows(self.spec, index, mask.values(), &mut self.scratch)
        {
            self.bytes += array.get_buffer_memory_size();
            return array;
        }
        selection.apply(self.get(index))
    }
}

enum Selection {
    All(usize),
    Slice { from: usize, rows: usize },
    Mask(BooleanArray, usize),
}

impl Selection {
    fn slice(rows: usize, from: usize, to: usize) -> Selection {
        if from == 0 && to == rows { Selection::All(rows) } else { Selection::Slice { from, rows: to - from } }
    }

    fn mask(mask: BooleanBuffer, from: usize, to: usize) -> Selection {
        let rows = mask.len();
        let mask = if from == 0 && to == rows {
            mask
        } else {
            BooleanBuffer::collect_bool(rows, |i| i >= from && i < to && mask.value(i))
        };
        let chosen = mask.count_set_bits();
        if chosen == rows { Selection::All(rows) } else { Selection::Mask(BooleanArray::new(mask, None), chosen) }
    }

    fn rows(&self) -> usize {
        match self {
            Selection::All(rows) | Selection::Slice { rows, .. } | Selection::Mask(_, rows) => *rows,
        }
    }

    fn apply(&self, array: ArrayRef) -> ArrayRef {
        match self {
            Selection::All(_) => array,
            Selection::Slice { from, rows } => array.slice(*from, *rows),
            Selection::Mask(mask, _) => filter(&array, mask).expect("a mask has as many rows as its segment"),
        }
    }
}
