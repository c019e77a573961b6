//! What the one writer of a table owns: rows on their way from the builder to sealed batches, and what they cost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::builder::Builder;
use crate::chunk::{Chunk, Times};
use crate::encode::{Encoder, Shared};
use crate::sealed::{Batch, Seal};
use crate::segment::Segment;
use crate::spec::TableSpec;
use crate::table::TableStats;
use crate::value::{AppendError, Value};

/// Most bytes (as plain Arrow) of a batch. Bounds what a scan decodes at a time and what a table holds unsealed.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// A batch is at most this part of its table's budget, so that expiry takes small steps and unsealed rows a small share.
const BATCHES_PER_BUDGET: usize = 16;

/// Least bytes of a batch: below it, what a batch has besides its rows outweighs them.
const BATCH_BYTES_MIN: usize = 16 << 10;

/// Chunks below this many rows are merged with their neighbours as they come, so that a quiet table's rows of thousands of
/// ticks do not stay thousands of chunks. Larger ones are left, since merging copies them.
const CHUNK_ROWS_MIN: usize = 128;

/// Least bytes (as plain Arrow) that one publish seals while a batch waits for it: a few ms of work. More rows since the last
/// publish raise it, so that sealing keeps up with any rate and its cost follows the rows; a second waiting batch means that it
/// does not, and then the first is finished whatever it takes, which bounds the rows that are unsealed.
const SEAL_STEP_BYTES: usize = 1 << 20;

/// Bytes sealed per byte appended, while there are any to seal: above 1, so that a batch is done before the next is full.
const SEAL_PER_APPENDED: usize = 2;

#[derive(Debug)]
pub(crate) struct Writer {
    spec: &'static TableSpec,
    time_index: usize,
    budget_bytes: usize,
    batch_rows: usize,
    batch_bytes: usize,
    encoder: Arc<Mutex<Encoder>>,

    builder: Builder,
    /// Published rows of the next batch.
    open: Vec<Arc<Chunk>>,
    open_rows: usize,
    open_bytes_plain: usize,
    /// Bytes published since batches were last worked on.
    bytes_since_seal: usize,
    sealing: VecDeque<Seal>,
    sealed: VecDeque<Arc<Batch>>,
    /// Dictionaries of the last batch, by column.
    shared: Vec<Shared>,
    /// Bytes of sealed batches with their dictionaries, each counted once.
    sealed_bytes: usize,
    /// Made again only when batches come or go, so that a publish costs what its rows cost.
    sealed_view: Option<Arc<SealedView>>,
    rows_appended: u64,
    rows_expired: u64,
}

/// What readers see: immutable.
#[derive(Debug)]
pub(crate) struct Snapshot {
    sealed: Arc<SealedView>,
    hot: Vec<Arc<Chunk>>,
    pub stats: TableStats,
}

#[derive(Debug)]
struct SealedView {
    batches: Vec<Arc<Batch>>,
    bytes_plain: usize,
    times: Option<Times>,
}

impl SealedView {
    fn new(batches: Vec<Arc<Batch>>) -> SealedView {
        SealedView {
            bytes_plain: batches.iter().map(|batch| batch.bytes_plain).sum(),
            times: batches.iter().map(|batch| batch.times).reduce(Times::then),
            batches,
        }
    }
}

impl Snapshot {
    /// Of an empty table.
    pub fn empty(budget_bytes: usize) -> Snapshot {
        let stats = TableStats { budget_bytes, ..TableStats::default() };
        Snapshot { sealed: Arc::new(SealedView::new(Vec::new())), hot: Vec::new(), stats }
    }

    /// Bytes of each column in sealed batches.
    pub fn column_bytes(&self, spec: &TableSpec) -> Vec<usize> {
        let mut bytes = vec![0; spec.columns.len()];
        let mut before: Option<&Batch> = None;
        for batch in &self.sealed.batches {
            for (index, sum) in bytes.iter_mut().enumerate() {
                *sum += batch.column_bytes(index, before);
            }
            before = Some(batch);
        }
        bytes
    }

    /// Everything that can be read, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        let sealed = self.sealed.batches.iter().cloned().map(Segment::Sealed);
        sealed.chain(self.hot.iter().cloned().map(Segment::Hot))
    }
}

impl Writer {
    pub fn new(
        spec: &'static TableSpec,
        time_index: usize,
        budget_bytes: usize,
        batch_rows: usize,
        encoder: Arc<Mutex<Encoder>>,
    ) -> Writer {
        Writer {
            spec,
            time_index,
            budget_bytes,
            batch_rows: batch_rows.max(1),
            batch_bytes: (budget_bytes / BATCHES_PER_BUDGET).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX),
            encoder,
            builder: Builder::new(spec),
            open: Vec::new(),
            open_rows: 0,
            open_bytes_plain: 0,
            bytes_since_seal: 0,
            sealing: VecDeque::new(),
            sealed: VecDeque::new(),
            shared: spec.columns.iter().map(|_| Shared::default()).collect(),
            sealed_bytes: 0,
            sealed_view: None,
            rows_appended: 0,
            rows_expired: 0,
        }
    }

    /// Adds a row. Tells whether the batch is full and must be published now.
    pub fn append(&mut self, row: &[Value<'_>]) -> Result<bool, AppendError> {
        self.builder.append(row)?;
        Ok(self.full(self.builder.rows(), self.builder.bytes_plain()))
    }

    /// Makes rows appended so far part of the table, then seals and expires as due. False when there was nothing to do.
    pub fn publish(&mut self) -> bool {
        if self.builder.rows() == 0 && self.sealing.is_empty() {
            return false;
        }
        self.cut();
        self.seal();
        self.expire();
        true
    }

    /// Moves the builder's rows into a chunk, and a full batch's chunks on to be sealed: at the next publish, unless others wait.
    pub fn cut(&mut self) {
        self.freeze();
        if self.open_rows > 0 && self.full(0, 0) {
            self.sealing.push_back(Seal::new(std::mem::take(&mut self.open)));
            self.open_rows = 0;
            self.open_bytes_plain = 0;
        }
        if self.sealing.len() > 1 {
            self.seal();
            self.expire();
        }
    }

    fn full(&self, more_rows: usize, more_bytes: usize) -> bool {
        self.open_rows + more_rows >= self.batch_rows || self.open_bytes_plain + more_bytes >= self.batch_bytes
    }

    fn freeze(&mut self) {
        if self.builder.rows() > 0 {
            let chunk = self.builder.freeze(self.rows_appended + 1);
            self.rows_appended += chunk.rows as u64;
            self.open_rows += chunk.rows;
            self.open_bytes_plain += chunk.bytes_plain;
            self.bytes_since_seal += chunk.bytes_plain;
            self.open.push(Arc::new(chunk));
            self.merge_small();
        }
    }

    /// Keeps the sizes of small chunks falling by halves, so that each row is copied a few times at most.
    fn merge_small(&mut self) {
        while let [.., before, last] = self.open.as_slice() {
            if before.rows >= CHUNK_ROWS_MIN || before.rows > last.rows * 2 {
                return;
            }
            let merged = Chunk::merge(self.spec, self.time_index, &self.open[self.open.len() - 2..]);
            self.open.truncate(self.open.len() - 2);
            self.open.push(Arc::new(merged));
        }
    }

    fn seal(&mut self) {
        let bytes_max = SEAL_STEP_BYTES.max(std::mem::take(&mut self.bytes_since_seal) * SEAL_PER_APPENDED);
        let mut bytes = 0;
        while let Some(mut seal) = self.sealing.pop_front() {
            while !seal.done(self.spec) {
                if bytes >= bytes_max && self.sealing.is_empty() {
                    self.sealing.push_front(seal);
                    return;
                }
                bytes += seal.step(self.spec, &self.encoder, &mut self.shared);
            }
            let batch = seal.finish();
            self.sealed_bytes += batch.bytes + batch.dictionary_bytes(self.sealed.back().map(Arc::as_ref));
            self.sealed.push_back(Arc::new(batch));
            self.sealed_changed();
        }
    }

    /// Lets the oldest rows go until the rest fits the budget. The newest batch or chunk stays whatever it takes: a budget too
    /// small for it would else keep nothing at all.
    fn expire(&mut self) {
        while self.bytes() > self.budget_bytes && self.sealed.len() + self.hot().count() > 1 {
            if let Some(batch) = self.sealed.pop_front() {
                self.sealed_bytes -= batch.bytes + batch.dictionary_bytes(self.sealed.front().map(Arc::as_ref));
                self.rows_expired += batch.rows as u64;
                self.sealed_changed();
            } else if let Some(seal) = self.sealing.pop_front() {
                self.rows_expired += seal.chunks.iter().map(|chunk| chunk.rows as u64).sum::<u64>();
            } else {
                let chunk = self.open.remove(0);
                self.open_rows -= chunk.rows;
                self.open_bytes_plain -= chunk.bytes_plain;
                self.rows_expired += chunk.rows as u64;
            }
        }
    }

    fn sealed_changed(&mut self) {
        self.sealed_view = None;
    }

    fn hot(&self) -> impl Iterator<Item = &Arc<Chunk>> {
        self.sealing.iter().flat_map(|seal| &seal.chunks).chain(&self.open)
    }

    fn bytes(&self) -> usize {
        self.sealed_bytes
            + self.hot().map(|chunk| chunk.bytes).sum::<usize>()
            + self.builder.allocated()
            + self.shared.iter().map(Shared::allocated).sum::<usize>()
    }

    /// What readers are to see from now on.
    pub fn snapshot(&mut self) -> Snapshot {
        let sealed = match &self.sealed_view {
            Some(view) => view.clone(),
            None => Arc::new(SealedView::new(self.sealed.iter().cloned().collect())),
        };
        self.sealed_view = Some(sealed.clone());
        let hot: Vec<Arc<Chunk>> = self.hot().cloned().collect();
        let hot_times = hot.iter().map(|chunk| chunk.times).reduce(Times::then);
        let times = match (sealed.times, hot_times) {
            (Some(sealed), Some(hot)) => Some(sealed.then(hot)),
            (one, other) => one.or(other),
        };
        let stats = TableStats {
            rows: self.rows_appended - self.rows_expired,
            bytes: self.bytes(),
            bytes_plain: sealed.bytes_plain + hot.iter().map(|chunk| chunk.bytes_plain).sum::<usize>(),
            budget_bytes: self.budget_bytes,
            oldest_ns: times.map(|times| times.min_ns),
            newest_ns: times.map(|times| times.max_ns),
            rows_appended: self.rows_appended,
            rows_expired: self.rows_expired,
            sealed_batches: sealed.batches.len() as u64,
            values_cut: self.builder.values_cut(),
        };
        Snapshot { sealed, hot, stats }
    }
}
