//! One table: a writer, and snapshots for readers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow::datatypes::SchemaRef;

use crate::encode::Encoder;
use crate::predicate::Predicate;
use crate::scan::{Request, Scan, TimeRange};
use crate::segment::BatchStats;
use crate::spec::TableSpec;
use crate::value::{AppendError, Value};
use crate::writer::{Snapshot, Writer};

/// A table of a [`Store`](crate::Store).
#[derive(Debug)]
pub struct Table {
    spec: &'static TableSpec,
    time_index: usize,
    schema: SchemaRef,
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

impl Table {
    pub(crate) fn new(
        spec: &'static TableSpec,
        budget_bytes: usize,
        batch_rows: usize,
        encoder: Arc<Mutex<Encoder>>,
    ) -> Table {
        let time_index = spec.time_index();
        Table {
            spec,
            time_index,
            schema: spec.schema(),
            snapshot: RwLock::new(Arc::new(Snapshot::empty(budget_bytes))),
            newest_row_id: AtomicU64::new(0),
            writer: Mutex::new(Some(Box::new(Writer::new(spec, time_index, budget_bytes, batch_rows, encoder)))),
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
        self.snapshot().segments().map(|segment| segment.stats(self.spec)).collect()
    }

    /// Bytes that each column takes in sealed batches, those of a dictionary that batches share in the first of them.
    pub fn column_bytes(&self) -> Vec<usize> {
        self.snapshot().column_bytes(self.spec)
    }

    /// Shows every byte that stands for the table's rows to `see`, in order: the same appends and publishes show the same
    /// bytes. For tests of determinism; hash them.
    pub fn visit_bytes(&self, see: &mut dyn FnMut(&[u8])) {
        self.snapshot().segments().for_each(|segment| segment.visit(see));
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
        Scan::new(request, snapshot.segments(), stats.rows_appended, missed)
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
    /// Adds a row, one value per column in order. It can be read after the next [`Appender::publish`], or earlier when a batch
    /// is full before. A row that does not fit leaves no trace.
    pub fn append(&mut self, row: &[Value<'_>]) -> Result<(), AppendError> {
        if self.writer_mut().append(row)? {
            self.writer_mut().cut();
            self.show();
        }
        Ok(())
    }

    /// Makes the rows appended so far visible, then seals and expires as due; call it at each tick. `now_ns` is the caller's
    /// time: nothing is decided by it yet, and nothing ever by a clock.
    pub fn publish(&mut self, now_ns: i64) {
        let _ = now_ns;
        self.publish_rows();
    }

    /// The table it writes to.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    fn publish_rows(&mut self) {
        if self.writer_mut().publish() {
            self.show();
        }
    }

    /// Puts a new snapshot in the place of the old.
    fn show(&mut self) {
        let snapshot = Arc::new(self.writer_mut().snapshot());
        let newest = snapshot.stats.rows_appended;
        let table = &self.table;
        let old = std::mem::replace(&mut *table.snapshot.write().unwrap_or_else(PoisonError::into_inner), snapshot);
        table.newest_row_id.store(newest, Ordering::Release);
        // Freed here, outside of the lock.
        drop(old);
    }

    fn writer_mut(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("only drop takes the writer")
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.publish_rows();
        *self.table.writer.lock().unwrap_or_else(PoisonError::into_inner) = self.writer.take();
    }
}
