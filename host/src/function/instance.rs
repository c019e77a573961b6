//! One instance of a function plugin: its store, its limits, and how calls of it end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};

use super::bindings::Function;
use super::{Bounds, FunctionPlugin, Place, broke};
use crate::backend::Level;
use crate::bindings::pyxis::common::{log, types};
use crate::convert;
use crate::error::{Error, Exhausted};
use crate::limits::Limits;
use crate::report::frames;
use crate::run::thread_clock_ns;
use crate::state::{Stop, stop};

/// Bytes a guest may hand over in one call, copied into the host before any check of ours: a column of 8,192 texts of 8 KiB.
const CALL_BYTES_MAX: usize = 64 << 20;
/// An accumulator or a cursor, and the borrow of a call.
const HANDLES_MAX: usize = 16;
/// Longest log line; the rest of a longer one is cut.
const LINE_BYTES_MAX: usize = 4 << 10;

/// The data of an instance's store.
pub(crate) struct FunctionState {
    bounds: Arc<Bounds>,
    limits: Limits,
    /// Processor time of this thread when the call began.
    began_ns: u64,
    /// The last line at level error: what a panic says before it traps.
    last_error: Option<String>,
}

/// An instance.
pub(super) struct Instance {
    plugin: Arc<FunctionPlugin>,
    store: Store<FunctionState>,
    guest: Function,
    // After the store: its slot of the pool is free when this is.
    _place: Place,
}

impl Instance {
    pub(super) fn new(plugin: &Arc<FunctionPlugin>, function: &str, bounds: Arc<Bounds>) -> Result<Self, Error> {
        let place = Place::take(&plugin.runtime)?;
        let state =
            FunctionState { limits: Limits::new(Arc::clone(&bounds.meter)), bounds, began_ns: 0, last_error: None };
        let mut store = Store::new(&plugin.runtime.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(CALL_BYTES_MAX);
        store.set_max_component_handles(HANDLES_MAX);
        // A runtime that counts instructions bounds runs of scripts by them; functions are bounded by time.
        let _ = store.set_fuel(u64::MAX);
        store.epoch_deadline_callback(|store| {
            let state = store.data();
            if let Some(why) = (state.bounds.stopped)() {
                return Err(stop(why));
            }
            let meter = &state.bounds.meter;
            let used = meter.guest_cpu_ns.load(Ordering::Relaxed) + thread_clock_ns().saturating_sub(state.began_ns);
            if used > meter.budget.guest_cpu_ns {
                return Err(stop(Error::Exhausted(Exhausted::Cpu)));
            }
            Ok(UpdateDeadline::Continue(1))
        });
        let (made, charged, refused) = {
            let _running = plugin.runtime.ticker.start();
            metered(&mut store, |store| plugin.linked.instantiate(store))
        };
        match made {
            Ok(_) if charged.is_err() => Err(exhausted(plugin, function, Exhausted::Cpu, store.data())),
            Ok(guest) => Ok(Self { plugin: Arc::clone(plugin), store, guest, _place: place }),
            Err(error) => Err(failure(plugin, function, &error, store.data(), refused)),
        }
    }

    /// Calls the guest, which is given its function's name.
    pub(super) fn call<R>(
        &mut self,
        function: &str,
        call: impl FnOnce(&mut Store<FunctionState>, &Function, &str) -> wasmtime::Result<Result<R, types::Error>>,
    ) -> Result<R, Error> {
        let Self { plugin, store, guest, .. } = self;
        let running = plugin.runtime.ticker.start();
        let (called, charged, refused) = metered(store, |store| call(store, guest, function));
        drop(running);
        match called {
            // A short call may have used what was left without an epoch passing.
            Ok(Ok(_)) if charged.is_err() => Err(exhausted(plugin, function, Exhausted::Cpu, store.data())),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(named(plugin, function, convert::error_in(error), store.data())),
            Err(error) => Err(failure(plugin, function, &error, store.data(), refused)),
        }
    }

    /// Bytes of its memories and tables.
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.store.data().limits.used()).unwrap_or(usize::MAX)
    }

    pub(super) fn broke(&self, function: &str, why: &str) -> Error {
        broke(&self.plugin.manifest().name, function, why)
    }
}

/// Runs guest code, and charges the run for it. Tells whether that was more than it may use, and whether memory was refused
/// meanwhile.
fn metered<R>(
    store: &mut Store<FunctionState>,
    work: impl FnOnce(&mut Store<FunctionState>) -> wasmtime::Result<R>,
) -> (wasmtime::Result<R>, Result<(), Error>, bool) {
    let began_ns = thread_clock_ns();
    let state = store.data_mut();
    state.began_ns = began_ns;
    state.limits.refused = false;
    store.set_epoch_deadline(1);
    let done = work(store);
    let state = store.data();
    let charged = state.bounds.meter.charge_cpu(thread_clock_ns().saturating_sub(began_ns));
    (done, charged, state.limits.refused)
}

fn failure(
    plugin: &FunctionPlugin,
    function: &str,
    error: &wasmtime::Error,
    state: &FunctionState,
    refused: bool,
) -> Error {
    if let Some(Stop(why)) = error.downcast_ref::<Stop>() {
        return named(plugin, function, why.clone(), state);
    }
    let trap = error.downcast_ref::<Trap>().copied();
    // A guest whose allocator gives up traps.
    if refused && trap == Some(Trap::UnreachableCodeReached) {
        return exhausted(plugin, function, Exhausted::Memory, state);
    }
    if trap.is_none() && error.downcast_ref::<WasmBacktrace>().is_none() {
        if refused {
            // What it begins with is more than it may have.
            return exhausted(plugin, function, Exhausted::Memory, state);
        }
        let why = convert::said(format!("{error:#}"));
        return match error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>() {
            Some(_) => Error::Unavailable("all slots for functions are taken; try again".into()),
            None => broke(&plugin.manifest().name, function, &format!("cannot be called: {why}")),
        };
    }
    let cause = match (trap, &state.last_error) {
        // A panic logs what it is and then traps; the trap itself says nothing.
        (Some(Trap::UnreachableCodeReached), Some(panic)) => panic.clone(),
        (Some(trap), _) => trap.to_string(),
        (None, _) => error.root_cause().to_string(),
    };
    broke(&plugin.manifest().name, function, &format!("trapped: {}{}", convert::said(cause), frames(error)))
}

fn exhausted(plugin: &FunctionPlugin, function: &str, which: Exhausted, state: &FunctionState) -> Error {
    let budget = &state.bounds.meter.budget;
    let what = match which {
        Exhausted::Cpu => format!("the {} ms of processor time that the run may use", budget.guest_cpu_ns / 1_000_000),
        _ => format!("the {} MiB of memory that the run may use", budget.memory_bytes >> 20),
    };
    Error::Invalid {
        message: format!(
            "function `{function}` of plugin `{}` used up {what} (exhausted: {which})",
            plugin.manifest().name
        ),
        hint: Some("narrow the time range, or ask for a larger budget".into()),
        position: None,
    }
}

/// The same error, with the function's name where it has a text.
fn named(plugin: &FunctionPlugin, function: &str, error: Error, state: &FunctionState) -> Error {
    let name = |message: String| format!("function `{function}` of plugin `{}`: {message}", plugin.manifest().name);
    match error {
        Error::NotFound { message, hint } => Error::NotFound { message: name(message), hint },
        Error::Invalid { message, hint, position } => Error::Invalid { message: name(message), hint, position },
        Error::Denied(why) => Error::Denied(name(why)),
        Error::Unavailable(why) => Error::Unavailable(name(why)),
        Error::Exhausted(which @ (Exhausted::Cpu | Exhausted::Memory)) => exhausted(plugin, function, which, state),
        error => error,
    }
}

impl types::Host for FunctionState {}
impl super::bindings::pyxis::function::arguments::Host for FunctionState {}

impl log::Host for FunctionState {
    fn log(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let meter = &self.bounds.meter;
        meter.charge_call().map_err(stop)?;
        let line = &message[..message.floor_char_boundary(LINE_BYTES_MAX.min(message.len()))];
        let level = match level {
            log::Level::Trace => Level::Trace,
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        if level == Level::Error {
            self.last_error = Some(line.to_owned());
        }
        if meter.charge_log(line) {
            (self.bounds.log)(level, line);
        }
        Ok(())
    }
}
