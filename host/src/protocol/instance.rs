//! An instance of a protocol plugin, and how it is called.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use wasmtime::{Store, Trap, UpdateDeadline};

use super::bindings::pyxis::common::log;
use super::bindings::{Event, Happening, Protocol, ProtocolPre, Verdict};
use super::{Inner, check};
use crate::bindings::pyxis::common::types;
use crate::convert;
use crate::error::{Error, Exhausted};
use crate::limits::Limits as MemoryLimits;
use crate::manifest::Manifest;
use crate::meter::{Budget, Meter};
use crate::report;
use crate::run::thread_clock_ns;

/// Longest line of its log; the rest of a longer one is cut.
const LOG_LINE_BYTES_MAX: usize = 4 << 10;
/// Log text in [`LOG_PERIOD`]: a plugin that says something of every message must not fill the journal.
const LOG_BYTES_MAX: usize = 16 << 10;
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// What an instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory, all of it. 10,000 connections with 4 KiB each fit into the default.
    pub memory_bytes: u64,
    /// Processor time of one call. The embedder gives at most some hundred KiB of events, which a parser is through within
    /// milliseconds; what takes a hundred times as long hangs.
    pub call_cpu_ns: u64,
    /// Rows of one call.
    pub call_rows_max: usize,
    /// Bytes that one call may give back, before any of them is looked at.
    pub call_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 64 << 20, call_cpu_ns: 500_000_000, call_rows_max: 65_536, call_bytes_max: 16 << 20 }
    }
}

/// Why an instance is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It trapped; a panic is one.
    #[error("it trapped: {0}")]
    Trapped(String),
    /// It computed for longer than [`Limits::call_cpu_ns`].
    #[error("it stalled: one call took more than {} ms of processor time", .0 / 1_000_000)]
    Stalled(u64),
    /// It wanted more than [`Limits::memory_bytes`].
    #[error("it wanted more than {} MiB of memory", .0 >> 20)]
    Memory(u64),
    /// It gave more than one call may.
    #[error("it flooded: {0}")]
    Flooded(String),
    /// It gave what makes no sense.
    #[error("it broke the contract: {0}")]
    Broken(String),
    /// It said itself that it cannot go on.
    #[error("it gave up: {0}")]
    GaveUp(String),
    /// Our failure.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Rows of a call, checked.
#[derive(Clone, Debug)]
pub struct Messages {
    /// Connection of each row; one that was open during the call.
    pub connections: Vec<u32>,
    /// When the request began, ns since the epoch.
    pub times: Vec<i64>,
    /// In the order of the manifest, of its types; durations are `Int64`, text is `Utf8` or a dictionary of it.
    pub columns: Vec<ArrayRef>,
    /// Messages that could not be read.
    pub skipped: u64,
}

/// A running parser.
pub struct Instance {
    shared: Arc<Inner>,
    store: Store<State>,
    exports: Protocol,
    manifest: Arc<Manifest>,
    limits: Limits,
    open: HashSet<u32>,
}

/// Data of the store.
pub(crate) struct State {
    plugin: String,
    memory: MemoryLimits,
    call_began_ns: u64,
    log_bytes: usize,
    log_since: Instant,
    log_dropped: u64,
    last_error: Option<String>,
}

impl Instance {
    pub(crate) fn new(
        shared: &Arc<Inner>,
        linked: &ProtocolPre<State>,
        manifest: &Arc<Manifest>,
        limits: Limits,
    ) -> Result<Self, Fault> {
        let meter = Meter::new(Budget { memory_bytes: limits.memory_bytes, ..Budget::default() });
        let state = State {
            plugin: manifest.name.clone(),
            memory: MemoryLimits::new(Arc::new(meter)),
            call_began_ns: thread_clock_ns(),
            log_bytes: 0,
            log_since: Instant::now(),
            log_dropped: 0,
            last_error: None,
        };
        let mut store = Store::new(&shared.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(limits.call_bytes_max);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |store| {
            let used = thread_clock_ns().saturating_sub(store.data().call_began_ns);
            if used > limits.call_cpu_ns {
                return Err(crate::state::stop(Error::Exhausted(Exhausted::Cpu)));
            }
            Ok(UpdateDeadline::Continue(1))
        });
        let running = shared.ticker.start();
        let exports = linked.instantiate(&mut store);
        drop(running);
        match exports {
            Ok(exports) => Ok(Self {
                shared: Arc::clone(shared),
                store,
                exports,
                manifest: Arc::clone(manifest),
                limits,
                open: HashSet::new(),
            }),
            Err(error) => Err(fault(&error, store.data(), &limits)),
        }
    }

    /// Whether these are the first bytes of a message of the protocol.
    pub fn infer(&mut self, bytes: &[u8]) -> Result<Verdict, Fault> {
        self.call(|exports, store| exports.pyxis_protocol_parser().call_infer(store, bytes))
    }

    /// What comes of these events.
    pub fn parse(&mut self, events: &[Event]) -> Result<Messages, Fault> {
        for event in events {
            if matches!(event.what, Happening::Opened) {
                self.open.insert(event.connection);
            }
        }
        let given = self.call(|exports, store| exports.pyxis_protocol_parser().call_parse(store, events))?;
        let given = given.map_err(|error| Fault::GaveUp(convert::error_in(error).to_string()))?;
        if given.connections.len() > self.limits.call_rows_max {
            let (rows, most) = (given.connections.len(), self.limits.call_rows_max);
            return Err(Fault::Flooded(format!("{rows} rows came of one call, at most {most} are allowed")));
        }
        let columns = &self.manifest.protocol.as_ref().expect("checked when it was loaded").table.columns;
        let messages = check::messages(given, columns, &self.limits, |connection| self.open.contains(&connection));
        for event in events {
            if matches!(event.what, Happening::Closed) {
                self.open.remove(&event.connection);
            }
        }
        messages.map_err(Fault::Broken)
    }

    fn call<R>(&mut self, call: impl FnOnce(&Protocol, &mut Store<State>) -> wasmtime::Result<R>) -> Result<R, Fault> {
        let state = self.store.data_mut();
        state.call_began_ns = thread_clock_ns();
        (state.last_error, state.memory.refused) = (None, false);
        self.store.set_epoch_deadline(1);
        let running = self.shared.ticker.start();
        let called = call(&self.exports, &mut self.store);
        drop(running);
        called.map_err(|error| fault(&error, self.store.data(), &self.limits))
    }
}

fn fault(error: &wasmtime::Error, state: &State, limits: &Limits) -> Fault {
    if let Some(crate::state::Stop(why)) = error.downcast_ref() {
        return match why {
            Error::Exhausted(Exhausted::Cpu) => Fault::Stalled(limits.call_cpu_ns),
            why => Fault::Internal(why.to_string()),
        };
    }
    let trap = error.downcast_ref::<Trap>().copied();
    let told = format!("{error:#}");
    if trap.is_none() && told.contains("fuel") {
        return Fault::Flooded(format!("more than {} MiB came of one call", limits.call_bytes_max >> 20));
    }
    // Its allocator gives up by trapping, without a word; one whose first memory is too large does not even begin.
    if state.memory.refused && state.last_error.is_none() && matches!(trap, None | Some(Trap::UnreachableCodeReached)) {
        return Fault::Memory(limits.memory_bytes);
    }
    let said = state.last_error.clone().unwrap_or_else(|| trap.map_or(told, |trap| trap.to_string()));
    Fault::Trapped(format!("{said}{}", report::frames(error)))
}

impl types::Host for State {}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let line = &message[..message.floor_char_boundary(LOG_LINE_BYTES_MAX)];
        if level == log::Level::Error {
            // A panic says what it was before it traps.
            self.last_error = Some(line.to_owned());
        }
        if self.log_since.elapsed() > LOG_PERIOD {
            if self.log_dropped > 0 {
                tracing::warn!(plugin = %self.plugin, lines = self.log_dropped, "log lines were dropped");
            }
            (self.log_bytes, self.log_dropped, self.log_since) = (0, 0, Instant::now());
        }
        if self.log_bytes + line.len() > LOG_BYTES_MAX {
            self.log_dropped += 1;
            return Ok(());
        }
        self.log_bytes += line.len();
        let plugin = &self.plugin;
        match level {
            log::Level::Trace => tracing::trace!(%plugin, "{line}"),
            log::Level::Debug => tracing::debug!(%plugin, "{line}"),
            log::Level::Info => tracing::info!(%plugin, "{line}"),
            log::Level::Warn => tracing::warn!(%plugin, "{line}"),
            log::Level::Error => tracing::error!(%plugin, "{line}"),
        }
        Ok(())
    }
}
