//! The unprivileged process of a node, whole: reads what the helper's probes see, keeps it in tables, and serves Vizier on
//! the link it dials.
//!
//! ```text
//! helper ─ring─▶ ingest thread ─Input─▶ core ─▶ tables ◀─scan─ link (tokio) ◀─dialled─▶ Vizier
//!                     ▲ └─Input─▶ recording
//!         sampler thread (/proc, helper's answers)
//! ```
//! The ingest thread alone owns the core; all it shares are the tables and a few counters ([`Shared`]). Nothing it does waits
//! for another process: what may wait is the sampler's.

mod capture;
mod config;
mod gap;
mod ingest;
mod link;
mod record;
mod replay;
mod sampler;
mod tls;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use pem_tables::{Store, StoreConfig, catalog};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vizier_engine::exchange::AgentPlugins;
use vizier_engine::{AgentId, AgentInfo};

pub use config::{Capture, Config, Dial, Replay, Speed, Vizier};
pub use record::{RecordConfig, Recorded, create as create_recording, record};
pub use tls::TlsFiles;

use crate::core::Core;
use crate::{core, recording, sandbox};

/// Fragments are walked by recursion, as deep as Vizier lets plans be; only what is touched becomes memory.
const LINK_STACK_BYTES: usize = 16 << 20;

/// Threads that answer queries. A query takes one core of the node at most; the second keeps the link alive meanwhile.
const LINK_THREADS: usize = 2;

/// Why an agent does not start, or ended.
#[derive(Debug, Error)]
pub enum Error {
    /// Privileges could not be given up.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// A file.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A recording that cannot be written.
    #[error("cannot record")]
    Record(#[from] recording::WriteError),
    /// A recording that cannot be read.
    #[error("cannot replay {}", path.display())]
    Replay {
        /// Which.
        path: PathBuf,
        /// Why.
        source: recording::ReadError,
    },
    /// The helper, for `record`, which has nothing to do without it.
    #[error(transparent)]
    Helper(#[from] crate::probes::client::Error),
    /// A thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A thread without which the rest is worthless.
    #[error("the {0} thread ended unasked: the log says why")]
    Ended(&'static str),
}

/// What the ingest thread lets others see.
#[derive(Debug)]
pub struct Shared {
    events: AtomicU64,
    events_lost: AtomicU64,
    state: Mutex<State>,
    /// The tables hold what there is to begin with: then Vizier may see them.
    ready: watch::Sender<bool>,
}

#[derive(Clone, Debug, Default)]
struct State {
    asid: u32,
    hostname: String,
    kernel: String,
    capture: String,
    since_ns: Option<i64>,
}

/// A running agent.
pub struct Agent {
    id: String,
    store: Arc<Store>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// The ingest thread ended with an error; [`Agent::stop`] gives it.
    failed: CancellationToken,
    ingest: Option<JoinHandle<Result<(), Error>>>,
}

/// Gives up privileges, then runs an agent until `shutdown`. Must be called while the process has one thread; makes its own
/// runtime, in which `shutdown` is polled.
pub fn run(config: Config, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    // Opened with the rights we still have; used without them.
    let files = Files::open(&config)?;
    if let Some(sandbox) = &config.sandbox {
        let entered = sandbox::enter(sandbox)?;
        tracing::info!(uid = entered.uid, filter = entered.filter, "privileges are given up");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(LINK_THREADS)
        .max_blocking_threads(LINK_THREADS)
        .thread_name("pem-link")
        .thread_stack_size(LINK_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    runtime.block_on(async {
        let agent = Agent::start_with(config, files)?;
        tokio::select! {
            () = shutdown => {}
            // Without its source the agent would go on with half of what was asked for, and nobody would know.
            () = agent.failed.cancelled() => {}
        }
        agent.stop().await
    })
}

/// Runs `work`, and cancels `failed` unless it ends well: an error or a panic.
fn watched<T>(failed: CancellationToken, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let failed = failed.drop_guard();
    let ended = work();
    if ended.is_ok() {
        failed.disarm();
    }
    ended
}

/// What Vizier may send. Without WebAssembly here, queries that call functions of plugins name this node as a gap.
fn plugins() -> AgentPlugins {
    let runtime = host::Runtime::new(host::Config {
        // Functions run on the link's threads; the pool's own have nothing to do here.
        threads: 1,
        runs_max: 1,
        ..host::Config::default()
    });
    match runtime {
        Ok(runtime) => AgentPlugins::default().with_functions(runtime),
        Err(error) => {
            tracing::warn!(%error, "functions of plugins cannot run here");
            AgentPlugins::default()
        }
    }
}

/// What needs rights to open.
struct Files {
    record: Option<File>,
    replay: Option<(PathBuf, File)>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Files {
    fn open(config: &Config) -> Result<Self, Error> {
        let open = |path: &PathBuf, source| Error::Open { path: path.clone(), source };
        let record = config.record.as_ref().map(|path| record::create(path).map_err(|e| open(path, e))).transpose()?;
        let replay = match &config.capture {
            Capture::Replay(replay) => {
                let file = File::open(&replay.path).map_err(|e| open(&replay.path, e))?;
                Some((replay.path.clone(), file))
            }
            _ => None,
        };
        let tls = config.vizier.as_ref().map(|v| tls::client(&v.tls)).transpose()?;
        Ok(Self { record, replay, tls })
    }
}

impl Agent {
    /// Starts one in the current runtime, with the privileges there are (`config.sandbox` is not looked at).
    pub fn start(config: Config) -> Result<Self, Error> {
        let files = Files::open(&config)?;
        Self::start_with(config, files)
    }

    fn start_with(config: Config, files: Files) -> Result<Self, Error> {
        let budget = StoreConfig { budget_bytes: config.store_bytes, ..StoreConfig::default() };
        let store = Store::new(budget, catalog::ALL);
        let shared = Arc::new(Shared::new(&config));
        let stop = CancellationToken::new();
        let recorder = files.record.map(ingest::Recorder::new).transpose()?;
        let make_core = {
            let (store, agent, settings) = (store.clone(), config.identity.id.clone(), config.settings.clone());
            move || {
                Core::new(
                    core::Config { agent: agent.clone(), settings: settings.clone(), ..Default::default() },
                    &store,
                )
            }
        };
        let ingest = ingest::Ingest::new(Box::new(make_core), recorder, shared.clone());
        let thread = std::thread::Builder::new().name("pem-ingest".into());
        let (capture, identity, token) = (config.capture, config.identity.clone(), stop.clone());
        let work = move || {
            let ingest = match (capture, files.replay) {
                (Capture::Helper { socket, token: shown }, _) => {
                    capture::run(ingest, &socket, &shown, None, &identity, &token)?
                }
                (Capture::Replay(replay), Some((path, file))) => {
                    replay::run(ingest, &replay, file, &token).map_err(|source| Error::Replay { path, source })?
                }
                _ => capture::idle(ingest, &identity, &token)?,
            };
            ingest.finish()?;
            Ok(())
        };
        let failed = CancellationToken::new();
        let told = failed.clone();
        let ingest = thread.spawn(move || watched(told, work)).map_err(Error::Thread)?;
        if let (Some(vizier), Some(tls)) = (config.vizier, files.tls) {
            let link = link::Link {
                dial: vizier.dial,
                tls,
                id: AgentId::from(config.identity.id.as_str()),
                store: store.clone(),
                shared: shared.clone(),
                limits: vizier.limits,
                plugins: Arc::new(plugins()),
            };
            tokio::spawn(link.keep(stop.clone()));
        }
        Ok(Self { id: config.identity.id, store, shared, stop, failed, ingest: Some(ingest) })
    }

    /// Its tables.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What it says of itself.
    pub fn info(&self) -> AgentInfo {
        self.shared.info(&AgentId::from(self.id.as_str()))
    }

    /// Waits until the tables hold what there is to begin with: a replay that is not in real time is in them whole.
    pub async fn ready(&self) {
        let _ = self.shared.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Ends its threads; what a recording lacks is written.
    pub async fn stop(self) -> Result<(), Error> {
        self.stop.cancel();
        self.stop_after_ingest().await
    }

    /// Waits for the ingest thread to end by itself.
    async fn stop_after_ingest(mut self) -> Result<(), Error> {
        let Some(ingest) = self.ingest.take() else { return Ok(()) };
        match tokio::task::spawn_blocking(move || ingest.join()).await {
            Ok(Ok(ended)) => ended,
            _ => Err(Error::Ended("ingest")),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn new(config: &Config) -> Self {
        let identity = &config.identity;
        Self {
            events: AtomicU64::new(0),
            events_lost: AtomicU64::new(0),
            state: Mutex::new(State {
                asid: identity.asid,
                hostname: identity.hostname.clone(),
                kernel: String::new(),
                capture: "none".into(),
                since_ns: None,
            }),
            ready: watch::Sender::new(false),
        }
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no panic while it is held"));
    }

    fn info(&self, id: &AgentId) -> AgentInfo {
        let state = self.state.lock().expect("no panic while it is held").clone();
        AgentInfo {
            id: id.clone(),
            asid: state.asid,
            hostname: state.hostname,
            version: env!("CARGO_PKG_VERSION").into(),
            kernel: state.kernel,
            capture: state.capture,
            since_ns: state.since_ns,
            events: self.events.load(Ordering::Relaxed),
            events_lost: self.events_lost.load(Ordering::Relaxed),
        }
    }
}
