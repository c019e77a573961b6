//! How a run ended.

use std::fmt::Write;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use wasmtime::{FrameInfo, FrameSymbol, Trap, WasmBacktrace};

use crate::bindings::pyxis::common::types;
use crate::convert;
use crate::error::{Error, Exhausted};
use crate::meter::Meter;
use crate::run::Control;
use crate::state::Stop;

/// Frames of the guest told with a trap.
const FRAMES_MAX: usize = 12;
/// Longest name of a function or file in them; generic Rust has some of hundreds of bytes.
const NAME_BYTES_MAX: usize = 512;
/// Longest name that is demangled; the longest of the bundled scripts has 400 bytes.
const MANGLED_BYTES_MAX: usize = 4 << 10;
/// Where `px plugin build` says that a plugin's own files lie.
const PLUGIN_DIR: &str = "/plugin/";

/// How a run ended, and what it used. What was displayed and emitted until then holds, whatever the result.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// The script's own result, or what ended it.
    pub result: Result<(), Error>,
    /// Processor time of the guest.
    pub guest_cpu_ns: u64,
    /// Processor time of calls into the host on its behalf (planning); counts against the same budget.
    pub host_cpu_ns: u64,
    /// Most memory it had at once.
    pub memory_peak: u64,
    /// Calls into the host.
    pub host_calls: u64,
    /// From the first step to a guest ready to be called.
    pub instantiate_ns: u64,
    /// From being asked to the report.
    pub total_ns: u64,
    /// Output tables that were cut at the output budget.
    pub truncated: Vec<String>,
    /// Log lines dropped at the log budget.
    pub logs_dropped: u64,
    /// Instructions used, on a runtime that counts them.
    pub fuel_used: Option<u64>,
}

impl RunReport {
    /// Whether a budget cut something or ended the run.
    pub fn exhausted(&self) -> Option<Exhausted> {
        match &self.result {
            Err(Error::Exhausted(which)) => Some(*which),
            _ if !self.truncated.is_empty() => Some(Exhausted::Output),
            _ => None,
        }
    }

    pub(crate) fn new(result: Result<(), Error>, control: &Control, meter: &Meter, fuel: bool, total_ns: u64) -> Self {
        let host_cpu_ns = control.host_ns.load(Ordering::Relaxed);
        let guest_cpu_ns = control.thread_ns().saturating_sub(host_cpu_ns);
        // Functions of plugins that its frames called have charged theirs already.
        meter.guest_cpu_ns.fetch_add(guest_cpu_ns, Ordering::Relaxed);
        let marks = control.marks.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            result,
            guest_cpu_ns,
            host_cpu_ns,
            memory_peak: meter.memory_peak_bytes.load(Ordering::Relaxed),
            host_calls: meter.host_calls.load(Ordering::Relaxed),
            instantiate_ns: control.instantiate_ns.load(Ordering::Relaxed),
            total_ns,
            truncated: marks.truncated.iter().cloned().collect(),
            logs_dropped: marks.logs_dropped,
            fuel_used: fuel.then(|| control.fuel_used.load(Ordering::Relaxed)),
        }
    }
}

/// What a finished call means.
pub(crate) fn outcome(called: wasmtime::Result<Result<(), types::Error>>, control: &Control) -> Result<(), Error> {
    let error = match called {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => return Err(convert::error_in(error)),
        Err(error) => error,
    };
    if let Some(Stop(why)) = error.downcast_ref::<Stop>() {
        return Err(match why {
            Error::Trapped(what) => Error::Trapped(format!("{what}{}", frames(&error))),
            why => why.clone(),
        });
    }
    let trap = error.downcast_ref::<Trap>().copied();
    if trap == Some(Trap::OutOfFuel) {
        return Err(Error::Exhausted(Exhausted::Cpu));
    }
    // A guest whose allocator gives up traps. Memory refused and then a trap of any other kind is possible, but the first is
    // what its author needs to hear.
    if control.memory_refused.load(Ordering::Relaxed) != 0 && trap == Some(Trap::UnreachableCodeReached) {
        return Err(Error::Exhausted(Exhausted::Memory));
    }
    if trap.is_none() && error.downcast_ref::<WasmBacktrace>().is_none() {
        if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
            return Err(Error::Unavailable("all slots for scripts are taken; try again".into()));
        }
        if control.memory_refused.load(Ordering::Relaxed) != 0 {
            // What it begins with is more than it may have.
            return Err(Error::Exhausted(Exhausted::Memory));
        }
        if control.instantiate_ns.load(Ordering::Relaxed) == 0 {
            return Err(Error::Internal(format!("the script could not be started: {error:#}")));
        }
        // No frame of the guest is there, and yet it was ready: what it was given or gives is not where it says, or not as the
        // contract has it.
        return Err(Error::Trapped(convert::said(error.root_cause().to_string())));
    }
    let last_error = control.marks.lock().unwrap_or_else(PoisonError::into_inner).last_error.clone();
    let cause = match (trap, last_error) {
        // A panic logs what it is and then traps; the trap itself says nothing.
        (Some(Trap::UnreachableCodeReached), Some(panic)) => panic,
        (Some(trap), _) => trap.to_string(),
        (None, _) => error.root_cause().to_string(),
    };
    Err(Error::Trapped(format!("{}{}", convert::said(cause), frames(&error))))
}

/// The guest's functions, innermost first, one a line; with file and line where the component has debug information.
pub(crate) fn frames(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let mut lines = backtrace.frames().iter().flat_map(lines).filter(|(name, _)| !is_panicking(name));
    let mut text = String::new();
    for (name, place) in lines.by_ref().take(FRAMES_MAX) {
        text.push_str("\n  at ");
        text.push_str(cut(&name));
        text.push_str(&place);
    }
    if lines.next().is_some() {
        text.push_str("\n  …");
    }
    text
}

/// Name and place of a frame, and of what was inlined into it.
fn lines(frame: &FrameInfo) -> Vec<(String, String)> {
    let own = match frame.func_name() {
        Some(name) => demangled(name),
        None => format!("function {}", frame.func_index()),
    };
    if frame.symbols().is_empty() {
        return vec![(own, String::new())];
    }
    let last = frame.symbols().len() - 1;
    let line = |(i, symbol): (usize, &FrameSymbol)| {
        // Line tables have names without the path to them; the function itself has a whole one.
        let name = if i == last { own.clone() } else { symbol.name().map_or_else(|| own.clone(), demangled) };
        let place = match (symbol.file(), symbol.line()) {
            (Some(file), Some(line)) => format!(" ({}:{line})", cut(file.strip_prefix(PLUGIN_DIR).unwrap_or(file))),
            _ => String::new(),
        };
        (name, place)
    };
    frame.symbols().iter().enumerate().map(line).collect()
}

/// `{:#}`: without the hash. A short mangled name can be a very long one.
fn demangled(name: &str) -> String {
    if name.len() > MANGLED_BYTES_MAX {
        return cut(name).to_owned();
    }
    let mut short = Short(String::new());
    // An error is the end of what is shown.
    let _ = write!(short, "{:#}", rustc_demangle::demangle(name));
    short.0
}

/// A text that ends at [`NAME_BYTES_MAX`].
struct Short(String);

impl Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let left = NAME_BYTES_MAX - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(left.min(text.len()))]);
        if text.len() > left { Err(std::fmt::Error) } else { Ok(()) }
    }
}

/// Names and files are the guest's own words.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(NAME_BYTES_MAX)]
}

/// Frames between a panic and the trap it ends in: the same every time.
fn is_panicking(name: &str) -> bool {
    ["std::panicking", "core::panicking", "std::sys::backtrace", "__rustc", "std::process::abort", "rust_panic"]
        .iter()
        .any(|part| name.contains(part))
}
