//! Function plugins: scalar functions, aggregates and table functions that the engine calls a batch at a time.
//!
//! [`Runtime::load_function`] admits, compiles and links a component, as [`Runtime::load`] does with scripts. A query binds
//! what it calls to its [`Bounds`] ([`FunctionPlugin::bind`]), and makes instances of that as it needs them: one for each
//! thread that calls a scalar function, one for each accumulator and cursor. Calls are synchronous, on the caller's thread:
//! an epoch's callback ends one whose run is out of processor time or was stopped. All instances of a query together have
//! one budget of memory, the run's.

mod accumulator;
mod bindings;
mod columns;
mod cursor;
mod instance;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use wasmtime::component::{HasSelf, Linker};

pub use accumulator::Accumulator;
pub use columns::{arrow_type, field, schema};
pub use cursor::Cursor;

use crate::admission::{self, Inspection};
use crate::backend::{Level, Scalar};
use crate::error::Error;
use crate::manifest::function::{Export, ExportKind, Nulls};
use crate::manifest::{Kind, Manifest};
use crate::meter::Meter;
use crate::runtime::{Inner, Runtime};
use bindings::FunctionPre;
use bindings::pyxis::function::arguments::Argument;
use instance::{FunctionState, Instance};

/// Instances of one bound function that wait for the next batch: more threads than a query has partitions do not call at once.
const IDLE_MAX: usize = 16;

/// A function plugin that is compiled, linked and ready to be called, by any number of queries at once.
pub struct FunctionPlugin {
    runtime: Arc<Inner>,
    linked: FunctionPre<FunctionState>,
    inspection: Inspection,
    ready_ns: u64,
}

impl std::fmt::Debug for FunctionPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FunctionPlugin")
            .field("name", &self.inspection.manifest.name)
            .field("digest", &self.inspection.digest)
            .finish_non_exhaustive()
    }
}

/// What calls on behalf of one run are bounded by and charged to. One for all functions of a run (on a PEM: of a fragment).
pub struct Bounds {
    meter: Arc<Meter>,
    stopped: Box<dyn Fn() -> Option<Error> + Send + Sync>,
    log: Box<dyn Fn(Level, &str) + Send + Sync>,
}

impl std::fmt::Debug for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounds").field("meter", &self.meter).finish_non_exhaustive()
    }
}

impl Bounds {
    /// Bounded by the meter's budget of processor time, memory and log text; `stopped` is asked at every epoch, and its error
    /// ends the call.
    pub fn new(meter: Arc<Meter>, stopped: impl Fn() -> Option<Error> + Send + Sync + 'static) -> Self {
        Self { meter, stopped: Box::new(stopped), log: Box::new(|_, _| ()) }
    }

    /// Gives log lines to someone.
    pub fn with_log(mut self, log: impl Fn(Level, &str) + Send + Sync + 'static) -> Self {
        self.log = Box::new(log);
        self
    }

    /// Why the run is over, if it is.
    pub fn stopped(&self) -> Option<Error> {
        (self.stopped)()
    }

    /// What is charged.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}

/// An argument of a call.
#[derive(Clone, Debug)]
pub enum Given<'a> {
    /// A value for each row.
    Values(&'a ArrayRef),
    /// The same for each row.
    Constant(Scalar),
}

impl Runtime {
    /// Admits, compiles and links a function plugin. Call it off the async workers.
    pub fn load_function(&self, bytes: &[u8]) -> Result<Arc<FunctionPlugin>, Error> {
        let began = Instant::now();
        let inspection = admission::inspect(bytes)?;
        if inspection.manifest.kind != Kind::Function {
            let (name, kind) = (&inspection.manifest.name, inspection.manifest.kind.name());
            return Err(Error::Invalid {
                message: format!("`{name}` is a {kind}, not a function plugin"),
                hint: Some("write kind = \"function\" into plugin.toml and declare its [[exports]]".into()),
                position: None,
            });
        }
        let (component, _) = self.compiled(bytes, &inspection.digest)?;
        let mut linker = Linker::new(&self.0.engine);
        bindings::Function::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)
            .map_err(|e| Error::Internal(format!("cannot offer the world: {e:#}")))?;
        let unfit = |e: wasmtime::Error| Error::Invalid {
            message: format!("the component does not fit the world {}: {e:#}", Kind::Function.world()),
            hint: Some("it was built for another version of the contract; rebuild it with this version's SDK".into()),
            position: None,
        };
        let linked = linker.instantiate_pre(&component).and_then(FunctionPre::new).map_err(unfit)?;
        let ready_ns = began.elapsed().as_nanos() as u64;
        Ok(Arc::new(FunctionPlugin { runtime: Arc::clone(&self.0), linked, inspection, ready_ns }))
    }
}

impl FunctionPlugin {
    /// `sha256:<hex>`
    pub fn digest(&self) -> &str {
        &self.inspection.digest
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.inspection.manifest
    }

    /// What loading took.
    pub fn ready_ns(&self) -> u64 {
        self.ready_ns
    }

    /// Its function of that name, for one run.
    pub fn bind(self: &Arc<Self>, function: &str, bounds: Arc<Bounds>) -> Result<Bound, Error> {
        let exports = &self.manifest().exports;
        let Some(export) = exports.iter().find(|e| e.name == function) else {
            let names: Vec<_> = exports.iter().map(|e| e.name.as_str()).collect();
            return Err(Error::NotFound {
                message: format!("plugin `{}` has no function `{function}`", self.manifest().name),
                hint: Some(format!("it has {}", names.join(", "))),
            });
        };
        Ok(Bound { plugin: Arc::clone(self), export: export.clone(), bounds, idle: Mutex::default() })
    }
}

/// A function of a plugin, bound to a run.
pub struct Bound {
    plugin: Arc<FunctionPlugin>,
    export: Export,
    bounds: Arc<Bounds>,
    /// At most [`IDLE_MAX`].
    idle: Mutex<Vec<Instance>>,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("plugin", &self.plugin)
            .field("function", &self.export.name)
            .finish_non_exhaustive()
    }
}

impl Bound {
    /// As the manifest declares it.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Whose it is.
    pub fn plugin(&self) -> &Arc<FunctionPlugin> {
        &self.plugin
    }

    /// Calls a scalar function. The result has the type that [`arrow_type`] says, or is a dictionary of it.
    pub fn call(&self, rows: usize, arguments: &[Given<'_>]) -> Result<ArrayRef, Error> {
        let returns = self.returns(ExportKind::Scalar)?;
        let wit = self.arguments(rows, arguments)?;
        let count = u32::try_from(rows).map_err(|_| self.broke("is called for more than 4 billion rows"))?;
        // An instance that failed is dropped: what it holds is in no known state.
        let mut instance = self.instance()?;
        let called = instance.call(&self.export.name, |store, guest, name| {
            guest.pyxis_function_scalars().call_call(store, name, count, &wit)
        })?;
        self.put_back(instance);
        let array = columns::array_in(called, returns, rows).map_err(|why| self.broke(&why))?;
        if self.export.nulls == Nulls::Pass {
            return Ok(array);
        }
        match null_rows(arguments) {
            Some(nulls) => columns::with_nulls(&array, &nulls),
            None => Ok(array),
        }
    }

    /// A new accumulator of an aggregate.
    pub fn accumulate(&self) -> Result<Accumulator, Error> {
        self.returns(ExportKind::Aggregate)?;
        Accumulator::new(self.fresh()?, self.export.clone())
    }

    /// Begins a table function. Arguments that are left out are null.
    pub fn open(&self, arguments: &[Scalar]) -> Result<Cursor, Error> {
        if self.export.kind != ExportKind::Table {
            return Err(self.broke("is no table function"));
        }
        Cursor::new(self.fresh()?, self.export.clone(), arguments)
    }

    fn returns(&self, kind: ExportKind) -> Result<crate::manifest::function::ValueType, Error> {
        match self.export.returns {
            Some(returns) if self.export.kind == kind => Ok(returns),
            _ => Err(self.broke(&format!("is called as a function of kind {}, which it is not", kind.name()))),
        }
    }

    fn arguments(&self, rows: usize, given: &[Given<'_>]) -> Result<Vec<Argument>, Error> {
        columns::arguments(&self.export, rows, given).map_err(|why| self.broke(&why))
    }

    fn instance(&self) -> Result<Instance, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.fresh(), Ok)
    }

    fn fresh(&self) -> Result<Instance, Error> {
        Instance::new(&self.plugin, &self.export.name, Arc::clone(&self.bounds))
    }

    fn put_back(&self, instance: Instance) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(instance);
        }
    }

    fn broke(&self, why: &str) -> Error {
        broke(&self.plugin.manifest().name, &self.export.name, why)
    }
}

/// A function that did not keep to the contract.
fn broke(plugin: &str, function: &str, why: &str) -> Error {
    Error::Invalid {
        message: format!("function `{function}` of plugin `{plugin}` {why}"),
        hint: Some("this is a fault of the plugin: tell its author, or call another function".into()),
        position: None,
    }
}

/// Rows in which an argument is null; none: no row is.
fn null_rows(arguments: &[Given<'_>]) -> Option<NullBuffer> {
    let mut union = None;
    for argument in arguments {
        if let Given::Values(array) = argument {
            union = NullBuffer::union(union.as_ref(), array.logical_nulls().as_ref());
        }
    }
    union.filter(|nulls| nulls.null_count() > 0)
}

/// A place among the instances of a runtime.
struct Place(Arc<Inner>);

impl Place {
    fn take(runtime: &Arc<Inner>) -> Result<Self, Error> {
        let most = crate::engine::FUNCTION_INSTANCES_MAX as usize;
        let before = runtime.functions.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(runtime));
        if before >= most {
            return Err(Error::Unavailable(format!("{most} functions of plugins are at work already; try again")));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.functions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The same type, or the same in the form that a guest gives it.
fn arrow_like(is: &DataType, declared: &DataType) -> bool {
    match (is, declared) {
        (DataType::Timestamp(..), DataType::Timestamp(..)) => true,
        (DataType::Dictionary(_, value), declared) => **value == *declared,
        (is, declared) => is == declared,
    }
}
