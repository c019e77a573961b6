//! What belongs to one run: the data of its store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use tokio::sync::mpsc;
use wasmtime::component::{Resource, ResourceTable};

use crate::arrays::Dictionary;
use crate::backend::{Frame, Scalar, Sink, TimeRange};
use crate::bindings::pyxis::common::types;
use crate::convert;
use crate::error::{Error, Exhausted};
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::meter::Meter;
use crate::run::{Control, Offload};
use crate::scope::Scope;

/// Handles a script may hold at once: frames, streams and batches. A script needs tens.
pub(crate) const HANDLES_MAX: usize = 4_096;

/// Streams open at once: each is a query that runs on every node.
pub(crate) const STREAMS_MAX: usize = 8;

/// Bytes of batches a script may hold at once on the host's side: 128 batches of 8,192 rows with eight numbers each.
pub(crate) const HELD_BYTES_MAX: u64 = 64 << 20;

/// Bytes of all dictionaries of a run.
pub(crate) const DICTIONARY_BYTES_MAX: u64 = 64 << 20;

/// Calls a script has left after it was told that a budget ran out, to put out what it has. Then it is stopped.
const GRACE_CALLS: u32 = 16;

/// What a host function gives: a value, an error for the script, or a trap.
pub(crate) type Answer<T> = wasmtime::Result<Result<T, types::Error>>;

/// Ends a run from within: what the trap that carries it means.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Stop(pub(crate) Error);

/// A frame the script holds.
pub struct GuestFrame(pub(crate) Arc<dyn Frame>);

/// A stream the script holds.
pub struct GuestStream {
    pub(crate) batches: mpsc::Receiver<Result<RecordBatch, Error>>,
    pub(crate) done: bool,
    pub(crate) shared: Arc<StreamShared>,
}

/// What the batches of a stream have in common.
pub(crate) struct StreamShared {
    pub(crate) columns: Vec<types::Column>,
    pub(crate) schema: SchemaRef,
    /// One for each column; used for text.
    pub(crate) dictionaries: Mutex<Vec<Dictionary>>,
}

/// A batch the script holds.
pub struct GuestBatch {
    /// As the engine gave it.
    pub(crate) batch: RecordBatch,
    /// In the forms the contract has.
    pub(crate) arrays: Vec<ArrayRef>,
    pub(crate) bytes: u64,
    pub(crate) stream: Arc<StreamShared>,
}

/// An output table.
pub(crate) enum Output {
    Displayed,
    Emitted(SchemaRef),
}

pub(crate) struct State {
    pub(crate) limits: Limits,
    pub(crate) table: ResourceTable,
    pub(crate) meter: Arc<Meter>,
    pub(crate) control: Arc<Control>,
    pub(crate) offload: Offload,
    pub(crate) backend: Arc<Scope>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) args: Vec<(String, Scalar)>,
    pub(crate) now_ns: i64,
    pub(crate) range: TimeRange,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) outputs: BTreeMap<String, Output>,
    pub(crate) streams: usize,
    pub(crate) held_bytes: u64,
    pub(crate) dictionary_bytes: Arc<AtomicU64>,
    /// The script was told that a budget ran out; so many calls are left.
    told: Option<(Exhausted, u32)>,
    /// Frames the script dropped. A plan can be deep and dropping it recurses, so it is not done on the guest's stack.
    garbage: Vec<Arc<dyn Frame>>,
}

/// What [`State::new`] takes.
pub(crate) struct Parts {
    pub(crate) meter: Arc<Meter>,
    pub(crate) control: Arc<Control>,
    pub(crate) offload: Offload,
    pub(crate) backend: Arc<Scope>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) args: Vec<(String, Scalar)>,
    pub(crate) now_ns: i64,
    pub(crate) range: TimeRange,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl State {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { meter, control, offload, backend, sink, manifest, args, now_ns, range, runtime } = parts;
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        Self {
            limits: Limits::new(Arc::clone(&meter)),
            table,
            meter,
            control,
            offload,
            backend,
            sink,
            manifest,
            args,
            now_ns,
            range,
            runtime,
            outputs: BTreeMap::new(),
            streams: 0,
            held_bytes: 0,
            dictionary_bytes: Arc::default(),
            told: None,
            garbage: Vec::new(),
        }
    }

    /// Every call of the script begins with this.
    pub(crate) fn enter(&mut self) -> wasmtime::Result<()> {
        // Not every function can return an error, so this budget ends the run at once.
        self.meter.charge_call().map_err(stop)?;
        match &mut self.told {
            Some((which, 0)) => Err(stop(Error::Exhausted(*which))),
            Some((_, left)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Tells the script what came of its call. Our own failures end the run instead of looking like the script's.
    pub(crate) fn answer<T>(&mut self, result: Result<T, Error>) -> Answer<T> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(error @ (Error::Internal(_) | Error::Trapped(_))) => Err(stop(error)),
            Err(error) => {
                if let Error::Exhausted(which) = &error {
                    self.told.get_or_insert((*which, GRACE_CALLS));
                }
                Ok(Err(convert::error_out(error)))
            }
        }
    }

    /// Runs what may be slow or deep off the guest's stack (see [`Offload`]).
    pub(crate) async fn outside<R: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        let garbage = std::mem::take(&mut self.garbage);
        self.offload
            .run(move || {
                drop(garbage);
                work()
            })
            .await
    }

    pub(crate) fn frame(&self, frame: &Resource<GuestFrame>) -> wasmtime::Result<Arc<dyn Frame>> {
        Ok(Arc::clone(&self.table.get(frame)?.0))
    }

    /// A handle for the script. Too many are a budget, not a trap: it can drop some.
    pub(crate) fn hand<T: Send + 'static>(&mut self, value: T) -> Result<Resource<T>, Error> {
        self.table.push(value).map_err(|_| Error::Exhausted(Exhausted::Memory))
    }

    pub(crate) fn drop_frame(&mut self, frame: Resource<GuestFrame>) -> wasmtime::Result<()> {
        let frame = self.table.delete(frame)?;
        self.garbage.push(frame.0);
        Ok(())
    }

    /// Marks an output table as cut.
    pub(crate) fn mark_truncated(&self, name: &str) {
        let mut marks = self.control.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.truncated.insert(name.to_owned());
    }

    /// Counts bytes the dictionaries grew by.
    pub(crate) fn charge_dictionary(&self, bytes: u64) -> Result<(), Error> {
        let now = self.dictionary_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if now > DICTIONARY_BYTES_MAX { Err(Error::Exhausted(Exhausted::Memory)) } else { Ok(()) }
    }
}

pub(crate) fn stop(error: Error) -> wasmtime::Error {
    wasmtime::Error::new(Stop(error))
}
