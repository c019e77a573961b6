//! One table: a writer, and snapshots for readers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow::datatypes::SchemaRef;

use crate::builder::Builder;
use crate::chunk::Chunk;
use crate::predicate::Predicate;
use crate::scan::{Request, Scan, TimeRange};
use crate::segment::{BatchStats, Segment};
use crate::spec::TableSpec;
use crate::store::StoreConfig;
use crate::value::{AppendError, Value};

/// A table of a [`Store`](crate::Store).
#[derive(Debug)]
pub struct Table {
    spec: &'static TableSpec,
    time_index: usize,
    schema: SchemaRef,
    budget_bytes: usize,
    /// What readers see. The lock is held to copy or replace the pointer and never longer.
    snapshot: RwLock<Arc<Snapshot>>,
    newest_row_id: AtomicU64,
    /// Absent while an [`Appender`] has it.
    writer: Mutex<Option<Box<Writer>>>,
}

/// Figures of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Rows that can be read.
    pub rows: u64,
    /// Bytes that the table takes: sealed batches, hot chunks, and the memory its writer holds on to.
    pub bytes: usize,
    /// Bytes that the same rows would take as plain Arrow (Utf8, Int64, ...).
    pub bytes_plain: usize,
    /// Bytes it may take.
    pub budget_bytes: usize,
    /// Earliest `time_`, `None` when empty.
    pub oldest_ns: Option<i64>,
    /// Latest `time_`, `None` when empty.
    pub newest_ns: Option<i64>,
    /// Rows ever published.
    pub rows_appended: u64,
    /// Rows dropped from the old end to stay within the budget.
    pub rows_expired: u64,
    /// Sealed batches.
    pub sealed_batches: u64,
    /// Strings cut at [`STRING_BYTES_MAX`](crate::STRING_BYTES_MAX).
    pub values_cut: u64,
}

#[derive(Debug, Default)]
struct Snapshot {
    segments: Vec<Segment>,
    stats: TableStats,
}

#[derive(Debug)]
struct Writer {
    builder: Builder,
    chunks: Vec<Arc<Chunk>>,
    rows_appended: u64,
    rows_expired: u64,
}

impl Table {
    pub(crate) fn new(spec: &'static TableSpec, budget_bytes: usize, _config: &StoreConfig) -> Table {
        let stats = TableStats { budget_bytes, ..TableStats::default() };
        Table {
            spec,
            time_index: spec.time_index(),
            schema: spec.schema(),
            budget_bytes,
            snapshot: RwLock::new(Arc::new(Snapshot { stats, ..Snapshot::default() })),
            newest_row_id: AtomicU64::new(0),
            writer: Mutex::new(Some(Box::new(Writer {
                builder: Builder::new(spec),
                chunks: Vec::new(),
                rows_appended: 0,
                rows_expired: 0,
            }))),
        }
    }

    /// What it was made from.
    pub fn spec(&self) -> &'static TableSpec {
        self.spec
    }

    /// Schema of its batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The writer of this table.
    ///
    /// # Panics
    /// When there is one already: a table has one writer at a time. See [`Table::try_appender`].
    pub fn appender(self: &Arc<Self>) -> Appender {
        self.try_appender().unwrap_or_else(|| panic!("table {} has a writer already", self.spec.name))
    }

    /// The writer of this table, unless there is one already. Dropping it frees the place.
    pub fn try_appender(self: &Arc<Self>) -> Option<Appender> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Appender { table: self.clone(), writer: Some(writer) })
    }

    /// Rows in a time range, oldest batch first. `projection` lists columns by index, `None` is all of them.
    ///
    /// # Panics
    /// When the projection names a column that the table does not have.
    pub fn scan(&self, range: TimeRange, projection: Option<&[usize]>) -> Scan {
        self.scan_filtered(range, projection, &[])
    }

    /// As [`Table::scan`], less most of the rows that do not meet all of `predicates`: see [`Predicate`].
    pub fn scan_filtered(&self, range: TimeRange, projection: Option<&[usize]>, predicates: &[Predicate]) -> Scan {
        self.read(range, 0, projection, predicates)
    }

    /// Rows published after the one with this id, all columns, for readers that follow a table: begin with 0 or
    /// [`Table::newest_row_id`], go on with [`Scan::newest_row_id`]. [`Scan::rows_missed`] tells when the reader was too slow.
    pub fn rows_after(&self, row_id: u64) -> Scan {
        self.rows_after_filtered(row_id, None, &[])
    }

    /// As [`Table::rows_after`], of some columns and with predicates.
    pub fn rows_after_filtered(&self, row_id: u64, projection: Option<&[usize]>, predicates: &[Predicate]) -> Scan {
        self.read(TimeRange::ALL, row_id + 1, projection, predicates)
    }

    /// Id of the newest row that can be read; ids count from 1 and 0 means that there never was one. Costs one load.
    pub fn newest_row_id(&self) -> u64 {
        self.newest_row_id.load(Ordering::Acquire)
    }

    /// Figures as of the last publish.
    pub fn stats(&self) -> TableStats {
        self.snapshot().stats
    }

    /// What is known of each batch without decoding it, oldest first.
    pub fn batches(&self) -> Vec<BatchStats> {
        self.snapshot().segments.iter().map(Segment::stats).collect()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read(&self, range: TimeRange, first_row: u64, projection: Option<&[usize]>, predicates: &[Predicate]) -> Scan {
        let snapshot = self.snapshot();
        let request = Request {
            spec: self.spec,
            time_index: self.time_index,
            schema: &self.schema,
            projection,
            range,
            first_row,
            predicates,
        };
        let stats = snapshot.stats;
        let missed = if first_row == 0 { 0 } else { (stats.rows_expired + 1).saturating_sub(first_row) };
        Scan::new(request, snapshot.segments.iter().cloned(), stats.rows_appended, missed)
    }
}

/// The one writer of a table. Dropping it publishes what was appended and lets another take its place.
#[derive(Debug)]
pub struct Appender {
    table: Arc<Table>,
    /// Taken by `drop` only.
    writer: Option<Box<Writer>>,
}

impl Appender {
    /// Adds a row, one value per column in order. It can be read after the next [`Appender::publish`]. A row that does not
    /// fit leaves no trace.
    pub fn append(&mut self, row: &[Value<'_>]) -> Result<(), AppendError> {
        self.writer_mut().builder.append(row)
    }

    /// Makes the rows appended so far visible, then seals and expires as due. `now_ns` is the caller's time.
    pub fn publish(&mut self, _now_ns: i64) {
        let table = self.table.clone();
        let writer = self.writer_mut();
        if writer.builder.rows() > 0 {
            let chunk = writer.builder.freeze(writer.rows_appended + 1);
            writer.rows_appended += chunk.rows as u64;
            writer.chunks.push(Arc::new(chunk));
        }
        let bytes = |writer: &Writer| writer.chunks.iter().map(|chunk| chunk.bytes).sum::<usize>();
        while bytes(writer) > table.budget_bytes && writer.chunks.len() > 1 {
            writer.rows_expired += writer.chunks.remove(0).rows as u64;
        }
        let stats = TableStats {
            rows: writer.rows_appended - writer.rows_expired,
            bytes: bytes(writer) + writer.builder.allocated(),
            bytes_plain: writer.chunks.iter().map(|chunk| chunk.bytes_plain).sum(),
            budget_bytes: table.budget_bytes,
            oldest_ns: writer.chunks.iter().map(|chunk| chunk.times.min_ns).min(),
            newest_ns: writer.chunks.iter().map(|chunk| chunk.times.max_ns).max(),
            rows_appended: writer.rows_appended,
            rows_expired: writer.rows_expired,
            sealed_batches: 0,
            values_cut: writer.builder.values_cut(),
        };
        let segments = writer.chunks.iter().cloned().map(Segment::Hot).collect();
        let snapshot = Arc::new(Snapshot { segments, stats });
        let old = std::mem::replace(&mut *table.snapshot.write().unwrap_or_else(PoisonError::into_inner), snapshot);
        table.newest_row_id.store(stats.rows_appended, Ordering::Release);
        drop(old);
    }

    /// The table it writes to.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    fn writer_mut(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("only drop takes the writer")
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.publish(0);
        *self.table.writer.lock().unwrap_or_else(PoisonError::into_inner) = self.writer.take();
    }
}
