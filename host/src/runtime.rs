//! The runtime and its scripts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::admission::{self, Inspection};
use crate::aot::{self, Cache, Refused};
use crate::bindings::{self, ScriptPre};
use crate::compiler::{self, Gate};
use crate::convert;
use crate::engine::{Ticker, engine};
use crate::error::{Error, Exhausted};
use crate::manifest::{Kind, Manifest};
use crate::pool::{Pool, Task};
use crate::report::{RunReport, outcome};
use crate::run::{Control, Driver, Offload, RunRequest, call};
use crate::scope::Scope;
use crate::slots::{Full, Slot, Slots};
use crate::state::{Parts, State};
use crate::tenant::Tenant;

/// Scripts kept ready. A linked Rust script takes about 0.2 MiB, most of it code; the least recently used go first.
const SCRIPTS_MAX: usize = 128;

/// After a run was told to stop, its report waits this long for the guest to be gone. A guest stops within 2 ms; planning that
/// is under way cannot be interrupted, and ends by itself.
const STOP_GRACE: Duration = Duration::from_millis(250);

/// Compiler processes at once: each may take as much memory as its limit says.
const COMPILERS_MAX: usize = 2;

/// How a runtime is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where compiled components are kept; made with mode 0700. None: only in memory.
    pub cache_dir: Option<PathBuf>,
    /// Runs at once. Each takes a slot of the instance pool: 8 GiB of address space, and no memory while it is free.
    pub runs_max: u32,
    /// Threads that run guests at normal priority; half as many run those that compute for long. 0: as many as there are
    /// cores.
    pub threads: usize,
    /// Count instructions too, so that a run's cost is the same every time and [`RunRequest::fuel`] bounds it. Costs a
    /// fifth to a half more time; for tests and for tenants billed by work.
    pub fuel: bool,
    /// Compile in a process of its own. None: in this one, bounded only by what admission lets through.
    pub compiler: Option<compiler::Process>,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache_dir: None, runs_max: 64, threads: 0, fuel: false, compiler: None }
    }
}

/// Compiles scripts and runs them.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    linker: Linker<State>,
    pool: Pool,
    pub(crate) ticker: Ticker,
    fuel: bool,
    /// Instances of function plugins there are.
    pub(crate) functions: AtomicUsize,
    cache: Option<Cache>,
    compiler: Option<compiler::Process>,
    scripts: Mutex<HashMap<String, (u64, Arc<Script>)>>,
    used: AtomicU64,
    compiling: Gate,
    slots: Slots,
}

/// A component that is compiled, linked and ready to run, any number of times at once.
pub struct Script {
    runtime: Arc<Inner>,
    linked: ScriptPre<State>,
    inspection: Inspection,
    manifest: Arc<Manifest>,
    ready_ns: u64,
    cached: bool,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script")
            .field("name", &self.manifest.name)
            .field("digest", &self.inspection.digest)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// Starts the guest threads. A cache folder that cannot be used is told in the log, and done without.
    pub fn new(config: Config) -> Result<Self, Error> {
        let engine = engine(&config)?;
        let mut linker = Linker::new(&engine);
        bindings::Script::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)
            .map_err(|e| Error::Internal(format!("cannot offer the world: {e:#}")))?;
        let cache = config.cache_dir.as_deref().and_then(|dir| match Cache::open(dir, &engine) {
            Ok(cache) => Some(cache),
            Err(reason) => {
                tracing::warn!(dir = %dir.display(), %reason, "compiled scripts are not kept");
                None
            }
        });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if config.threads == 0 { cores } else { config.threads };
        Ok(Self(Arc::new(Inner {
            pool: Pool::spawn(threads)?,
            ticker: Ticker::spawn(engine.clone())?,
            engine,
            linker,
            fuel: config.fuel,
            functions: AtomicUsize::new(0),
            cache,
            scripts: Mutex::default(),
            used: AtomicU64::new(0),
            // In this process compiling takes all cores for itself; one after the other is as fast and leaves memory to others. A
            // process may be one that takes as long as it may: a second does not wait for it.
            compiling: Gate::new(if config.compiler.is_some() { COMPILERS_MAX } else { 1 }),
            compiler: config.compiler,
            slots: Slots::new(config.runs_max as usize),
        })))
    }

    /// What a component says about itself, and whether it would be admitted. Compiles nothing.
    pub fn inspect(&self, bytes: &[u8]) -> Result<Inspection, Error> {
        admission::inspect(bytes)
    }

    /// A script this runtime has loaded before and still holds, by `sha256:<hex>`.
    pub fn script(&self, digest: &str) -> Option<Arc<Script>> {
        let mut scripts = self.0.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, script) = scripts.get_mut(digest)?;
        *used = self.0.used.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(script))
    }

    /// Admits, compiles and links a component; microseconds for one that was loaded before, milliseconds for one whose compiled
    /// form is in the cache folder, 10 ms for a new Rust script, seconds for an interpreter. Call it off the async workers.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Script>, Error> {
        let began = Instant::now();
        if bytes.len() <= admission::COMPONENT_BYTES_MAX
            && let Some(script) = self.script(&admission::digest(bytes))
        {
            return Ok(script);
        }
        let inspection = admission::inspect(bytes)?;
        if inspection.manifest.kind != Kind::Script {
            return Err(Error::Invalid {
                message: format!(
                    "`{}` is a {}, not a script",
                    inspection.manifest.name,
                    inspection.manifest.kind.name()
                ),
                hint: Some("it is not run: what it makes is there for scripts to use".into()),
                position: None,
            });
        }
        let (component, cached) = self.compiled(bytes, &inspection.digest)?;
        let unfit = |e: wasmtime::Error| Error::Invalid {
            message: format!("the component does not fit the world {}: {e:#}", crate::manifest::WORLD),
            hint: Some("it was built for another version of the contract; rebuild it with this version's SDK".into()),
            position: None,
        };
        let linked = self.0.linker.instantiate_pre(&component).map_err(unfit)?;
        let linked = ScriptPre::new(linked).map_err(unfit)?;
        let script = Arc::new(Script {
            runtime: Arc::clone(&self.0),
            linked,
            manifest: Arc::new(inspection.manifest.clone()),
            inspection,
            ready_ns: began.elapsed().as_nanos() as u64,
            cached,
        });
        self.keep(&script);
        Ok(script)
    }

    fn keep(&self, script: &Arc<Script>) {
        let mut scripts = self.0.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        let used = self.0.used.fetch_add(1, Ordering::Relaxed);
        scripts.insert(script.inspection.digest.clone(), (used, Arc::clone(script)));
        if scripts.len() > SCRIPTS_MAX
            && let Some(oldest) = scripts.iter().min_by_key(|(_, (used, _))| *used).map(|(digest, _)| digest.clone())
        {
            scripts.remove(&oldest);
        }
    }

    /// The component's code, and whether it came from the cache folder.
    pub(crate) fn compiled(&self, bytes: &[u8], digest: &str) -> Result<(Component, bool), Error> {
        if let Some(cache) = &self.0.cache {
            match cache.load(&self.0.engine, digest) {
                Ok(component) => return Ok((component, true)),
                Err(Refused::Absent) => {}
                Err(reason) => tracing::warn!(digest, %reason, "compiled script not used, compiling again"),
            }
        }
        let (component, code) = self.0.compiling.pass(|| self.compile(bytes))?;
        if let Some(cache) = &self.0.cache {
            let stored = code.and_then(|code| cache.store(digest, &code).map_err(|e| e.to_string()));
            if let Err(reason) = stored {
                tracing::warn!(digest, reason, "compiled script not kept");
            }
        }
        Ok((component, false))
    }

    /// The component, and its code to be kept.
    fn compile(&self, bytes: &[u8]) -> Result<(Component, Result<Vec<u8>, String>), Error> {
        let Some(compiler) = &self.0.compiler else {
            let component =
                Component::new(&self.0.engine, bytes).map_err(|e| compiler::does_not_compile(&format!("{e:#}")))?;
            let code = component.serialize().map_err(|e| e.to_string());
            return Ok((component, code));
        };
        let code = compiler.compile(bytes, self.0.fuel)?;
        let component = aot::ours(&self.0.engine, &code)
            .map_err(|e| Error::Internal(format!("the compiler's code does not load: {e:#}")))?;
        Ok((component, Ok(code)))
    }
}

impl Script {
    /// `sha256:<hex>`
    pub fn digest(&self) -> &str {
        &self.inspection.digest
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Manifest, imports, exports, size.
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// What loading took.
    pub fn ready_ns(&self) -> u64 {
        self.ready_ns
    }

    /// Whether its code came from the cache folder.
    pub fn cached(&self) -> bool {
        self.cached
    }

    /// Runs it once. Must be called within a tokio runtime with timers. Dropping the future cancels the run; the guest is gone
    /// within 2 ms.
    pub async fn run(&self, request: RunRequest) -> RunReport {
        let began = Instant::now();
        let control = Arc::new(Control::default());
        let meter = Arc::clone(&request.meter);
        let result = self.ran(request, &control).await;
        RunReport::new(result, &control, &meter, self.runtime.fuel, began.elapsed().as_nanos() as u64)
    }

    async fn ran(&self, request: RunRequest, control: &Arc<Control>) -> Result<(), Error> {
        let args = self.manifest.arguments(&request.args).map_err(|e| Error::Invalid {
            message: e.message,
            hint: e.hint,
            position: None,
        })?;
        let args = args.into_iter().map(|(name, value)| (name, convert::argument(value))).collect();
        let deadline = tokio::time::Instant::now() + Duration::from_nanos(request.meter.budget.wall_ns);
        let cancel = request.cancel.clone();
        let tenant = request.meter.tenant.clone();
        let slot = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Error::Cancelled),
            slot = self.runtime.slot(tenant.as_deref()) => slot?,
            () = tokio::time::sleep_until(deadline) => return Err(Error::Exhausted(Exhausted::Deadline)),
        };
        let runtime = tokio::runtime::Handle::current();
        let offload = Offload::default();
        let state = State::new(Parts {
            meter: request.meter,
            control: Arc::clone(control),
            offload: offload.clone(),
            backend: Arc::new(Scope::new(request.backend, Arc::clone(&self.manifest))),
            sink: request.sink,
            manifest: Arc::clone(&self.manifest),
            args,
            now_ns: request.now_ns,
            range: request.range,
            runtime: runtime.clone(),
        });
        let place = self.runtime.pool.place(tenant.as_deref());
        let inner =
            Box::pin(call(self.runtime.engine.clone(), self.linked.clone(), state, place.clone(), request.fuel));
        let driver = Driver { inner, control: Arc::clone(control), offload, runtime, tenant };
        let running = self.runtime.ticker.start();
        let (sender, mut done) = oneshot::channel();
        let task = self.runtime.pool.spawn_task(
            &place,
            Box::pin(async move {
                // The driver, and the guest with it, is gone before its slot is given to the next.
                let driven = driver.await;
                drop(running);
                drop(slot);
                let _ = sender.send(driven);
            }),
        );
        let stopper = Stopper { task, control: Arc::clone(control) };
        let why = tokio::select! {
            biased;
            driven = &mut done => return finished(driven, control),
            () = cancel.cancelled() => Error::Cancelled,
            () = tokio::time::sleep_until(deadline) => Error::Exhausted(Exhausted::Deadline),
        };
        stopper.stop(&why);
        match tokio::time::timeout(STOP_GRACE, done).await {
            // It may have finished in the meantime; then that is what happened.
            Ok(driven) => finished(driven, control),
            Err(_) => Err(why),
        }
    }
}

type Called = wasmtime::Result<Result<(), crate::bindings::pyxis::common::types::Error>>;

fn finished(driven: Result<Result<Called, Error>, oneshot::error::RecvError>, control: &Control) -> Result<(), Error> {
    match driven {
        Ok(Ok(called)) => outcome(called, control),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(Error::Internal("the run ended without a result".into())),
    }
}

impl Inner {
    async fn slot(&self, tenant: Option<&Tenant>) -> Result<Slot, Error> {
        if tenant.is_some_and(|tenant| tenant.exhausted() == Some(Exhausted::Cpu)) {
            return Err(Error::Exhausted(Exhausted::Cpu));
        }
        let (id, most) = tenant.map_or((0, usize::MAX), |tenant| (tenant.id(), tenant.budget().runs));
        let slot = self.slots.acquire(id, most).await;
        slot.map_err(|Full(waiting)| Error::Unavailable(format!("{waiting} runs wait already; try again")))
    }
}

/// Stops the run when whoever waits for it goes away.
struct Stopper {
    task: Arc<Task>,
    control: Arc<Control>,
}

impl Stopper {
    fn stop(&self, why: &Error) {
        self.control.stop(why);
        std::task::Wake::wake_by_ref(&self.task);
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        // After the end this wakes no one.
        self.stop(&Error::Cancelled);
    }
}
