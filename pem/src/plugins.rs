//! Protocol plugins: parsers that are sandboxed components, each on a thread of its own.
//!
//! ```text
//! conns ─▶ Relay (a Parser) ─▶ Tap: a batch ─▶ bounded queue ─▶ worker thread: infer, parse (in the sandbox) ─▶ its table
//! ```
//! To the connection tracker a plugin is one more protocol. What it does with the bytes happens elsewhere: the ingest thread only
//! copies them into a batch ([`tap`]), which goes to the plugin's thread ([`worker`]) with every tick, or earlier when it is
//! full. Live, a batch that finds the queue full is dropped and counted in `data_loss`; on a replay at full speed the queue
//! waits instead, so that the same recording gives the same rows.
//!
//! A plugin that traps, stalls or floods is switched off: `probe_status` says so by its name, its connections are no longer
//! copied by the kernel, and nothing else changes.

mod conns;
mod guard;
mod queue;
mod table;
mod tap;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use host::protocol::{Limits, Protocols};
use pem_tables::Store;

use crate::core::loss::Entry;
use crate::probes::wire::Listening;

pub use self::guard::{BYTES_PER_SECOND_MAX, ROWS_PER_SECOND_MAX, SHARE_PERCENT};
pub use self::queue::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, QUEUE_BATCHES};
pub use self::tap::{Tap, Taps};

/// Plugins at once: as many numbers as the kernel programs know.
pub const PLUGINS_MAX: usize = ebpf_abi::PLUGINS_MAX;
/// Statuses that wait for the next tick: a plugin tells two or three in its life.
const STATUSES_MAX: usize = 4 * PLUGINS_MAX;

/// Whether the queue may drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// What does not fit is dropped and counted: the machine does not wait for a plugin.
    Live,
    /// Nothing is dropped, each tick waits until the plugin has taken what came before: results follow from the input alone.
    Exact,
}

/// What `probe_status` shall tell of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Name of the plugin.
    pub plugin: String,
    /// gRPC status code: 0 = it parses.
    pub code: i64,
    /// Why it does not.
    pub error: String,
    /// JSON object with details.
    pub info: String,
}

/// gRPC's codes, as `probe_status` numbers states.
mod code {
    pub const INVALID_ARGUMENT: i64 = 3;
    pub const RESOURCE_EXHAUSTED: i64 = 8;
    pub const FAILED_PRECONDITION: i64 = 9;
    pub const ABORTED: i64 = 10;
    pub const INTERNAL: i64 = 13;
}

/// Why a plugin was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The component, or its manifest.
    #[error("{0}")]
    Refused(#[from] host::error::Error),
    /// Its table.
    #[error("its table cannot be made")]
    Table(#[from] table::Error),
    /// Too many.
    #[error("{PLUGINS_MAX} protocol plugins run already: remove one")]
    TooMany,
    /// The kernel compares so many beginnings and ports and no more.
    #[error(
        "the beginnings and ports of all plugins are more than the kernel compares ({} and {}): remove a plugin",
        ebpf_abi::BEGINNINGS_MAX,
        ebpf_abi::PORTS_MAX
    )]
    Crowded,
    /// No thread, no engine.
    #[error("cannot start it")]
    Start(#[source] std::io::Error),
}

/// The protocol plugins of an agent.
#[derive(Clone)]
pub struct Plugins(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    pace: Pace,
    limits: Limits,
    state: Mutex<State>,
    /// Raised when what the kernel shall listen to, or the list of taps, changes.
    version: AtomicU64,
    outbox: Arc<Outbox>,
}

#[derive(Default)]
struct State {
    /// Made with the first plugin: an agent without any has no engine and no clock thread.
    protocols: Option<Protocols>,
    taps: Vec<Arc<Tap>>,
}

/// What threads of plugins have to tell; taken by the core.
#[derive(Default)]
struct Outbox {
    statuses: Mutex<Vec<Status>>,
    losses: Mutex<Vec<Entry>>,
    /// Rows in all tables of plugins.
    rows: AtomicU64,
}

impl Plugins {
    /// None yet. Their tables are added to `store`.
    pub fn new(store: Arc<Store>, pace: Pace) -> Self {
        Self::with_limits(store, pace, Limits::default())
    }

    /// With other limits, for tests.
    pub fn with_limits(store: Arc<Store>, pace: Pace, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            store,
            pace,
            limits,
            state: Mutex::default(),
            version: AtomicU64::new(1),
            outbox: Arc::default(),
        }))
    }

    /// Takes a plugin: one that was there at the start, or one that came while the agent runs. One of the same name takes the
    /// place of the one before, if that was switched off or is of the same kind of table. Returns its name.
    pub fn add(&self, component: &[u8]) -> Result<String, AddError> {
        let inspection = host::admission::inspect(component)?;
        let manifest = inspection.manifest;
        let declared = manifest.protocol.as_ref().ok_or_else(|| host::error::Error::Invalid {
            message: format!("`{}` is no protocol plugin", manifest.name),
            hint: Some("its plugin.toml needs kind = \"protocol\"".into()),
            position: None,
        })?;
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.taps.iter().position(|tap| tap.name() == manifest.name);
        if let Some(at) = before
            && state.taps[at].digest() == inspection.digest
            && !state.taps[at].off()
        {
            return Ok(manifest.name);
        }
        let free = (0..PLUGINS_MAX as u8).map(|n| ebpf_abi::protocol::PLUGIN_FIRST + n).find(|number| {
            state.taps.iter().enumerate().all(|(at, tap)| Some(at) == before || tap.number() != *number)
        });
        let number = before.map(|at| state.taps[at].number()).or(free).ok_or(AddError::TooMany)?;
        let listening = tap::Listens::of(declared, number)?;
        let others = state.taps.iter().enumerate().filter(|(at, tap)| Some(*at) != before && !tap.off());
        let (beginnings, ports) = others
            .fold((listening.beginnings.len(), listening.ports.len()), |(b, p), (_, tap)| {
                (b + tap.listens().beginnings.len(), p + tap.listens().ports.len())
            });
        if beginnings > ebpf_abi::BEGINNINGS_MAX || ports > ebpf_abi::PORTS_MAX {
            return Err(AddError::Crowded);
        }
        if let Some(at) = before {
            // Its thread gives the table's writer back when it ends.
            let old = state.taps.remove(at);
            old.end();
        }
        let table = table::Rows::new(&self.0.store, &declared.table)?;
        if state.protocols.is_none() {
            state.protocols = Some(Protocols::new()?);
        }
        let protocols = state.protocols.clone().expect("made above");
        let (tap, queue) = Tap::new(&manifest, inspection.digest, number, listening, table.name(), self.0.pace);
        let tap = Arc::new(tap);
        let worker = worker::Worker::new(worker::Parts {
            tap: tap.clone(),
            queue,
            rows: table,
            outbox: self.0.outbox.clone(),
            pace: self.0.pace,
            limits: self.0.limits,
        });
        let component = component.to_vec();
        // Weak: else the thread would keep alive what ends it.
        let changed = Arc::downgrade(&self.0);
        let thread = std::thread::Builder::new().name(format!("plugin-{}", manifest.name));
        let handle = thread
            .spawn(move || {
                worker.run(&protocols, &component);
                // Whether it ended or was switched off, the kernel need not copy for it.
                if let Some(plugins) = changed.upgrade() {
                    plugins.version.fetch_add(1, Ordering::Release);
                }
            })
            .map_err(AddError::Start)?;
        tap.set_thread(handle);
        let name = manifest.name;
        match before {
            Some(at) => state.taps.insert(at, tap),
            None => state.taps.push(tap),
        }
        self.0.version.fetch_add(1, Ordering::Release);
        Ok(name)
    }

    /// Tells that a plugin could not be taken.
    pub fn refused(&self, plugin: &str, error: &AddError) {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        if let AddError::Refused(host::error::Error::Invalid { hint: Some(hint), .. }) = error {
            text = format!("{text} ({hint})");
        }
        tracing::warn!(plugin, error = %text, "a protocol plugin cannot be used");
        self.0.outbox.status(Status {
            plugin: plugin.into(),
            code: code::INVALID_ARGUMENT,
            error: text,
            info: String::new(),
        });
    }

    /// Changes when [`Plugins::listening`] or [`Plugins::taps`] may have.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// What the kernel shall copy for those that parse.
    pub fn listening(&self) -> Listening {
        let mut listening = Listening::default();
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        for tap in state.taps.iter().filter(|tap| !tap.off()) {
            listening.beginnings.extend_from_slice(&tap.listens().beginnings);
            listening.ports.extend_from_slice(&tap.listens().ports);
        }
        listening
    }

    /// For the connection tracker.
    pub fn taps(&self) -> Taps {
        Taps::new(self.clone())
    }

    /// Waits until every plugin is ready to parse, or switched off. For a start that shall miss nothing.
    pub fn settle(&self) {
        let taps = self.0.state.lock().unwrap_or_else(PoisonError::into_inner).taps.clone();
        taps.iter().for_each(|tap| tap.wait_started());
    }

    /// Rows in the tables of all plugins.
    pub fn rows_appended(&self) -> u64 {
        self.0.outbox.rows.load(Ordering::Relaxed)
    }

    fn current(&self) -> Vec<Arc<Tap>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).taps.clone()
    }

    /// Takes what is to be told in `probe_status`.
    pub(crate) fn take_statuses(&self) -> Vec<Status> {
        std::mem::take(&mut self.0.outbox.statuses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what is to be told in `data_loss`.
    pub(crate) fn take_losses(&self) -> Vec<Entry> {
        std::mem::take(&mut self.0.outbox.losses.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.taps.drain(..).for_each(|tap| tap.end());
    }
}

impl Outbox {
    fn status(&self, status: Status) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        if statuses.len() < STATUSES_MAX {
            statuses.push(status);
        }
    }

    fn loss(&self, table: &'static str, reason: &'static str, events: u64, bytes: u64) {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        match losses.iter_mut().find(|loss| loss.table == table && loss.reason == reason) {
            Some(loss) => {
                loss.events = loss.events.saturating_add(events);
                loss.bytes = loss.bytes.saturating_add(bytes);
            }
            None => losses.push(Entry { source: crate::core::loss::Source::Parser, table, reason, events, bytes }),
        }
    }
}
