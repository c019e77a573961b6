//! Compiling in a process of its own.
//!
//! Compiling is the only work a component can cause before it has a budget, and what it takes does not follow from the
//! component's size. So it happens in a child that the embedder's own program becomes ([`serve`]): the child gets limits on
//! processor time, memory and descriptors before it reads the first byte of the component, the parent holds it to the wall
//! clock, and a compiler that crashes takes nothing along. Of the child's descriptors only stdin, stdout and stderr are open,
//! and it can open no other: no file, no socket.
//!
//! What comes back is native code that will run in the parent. It comes over a pipe that only the child has, and the child
//! is our own program; [`crate::Config::cache_dir`] says how it is kept.

use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use wasmtime::Engine;

use crate::engine;
use crate::error::Error;
use crate::runtime::Config;

/// Most compiled code taken from a child: four times what the largest component seen (Python) compiles to.
const CODE_BYTES_MAX: usize = 128 << 20;

/// Of what the child says on stderr. One that runs out of memory says so in a line.
const WORDS_BYTES_MAX: u64 = 4 << 10;

/// Threads of the child: each has a stack and an arena of the allocator, which count against its memory.
const THREADS_MAX: usize = 4;

/// Address space beyond the memory that may be written: the program itself, and what allocators reserve and do not use.
const ADDRESSES_BYTES_MORE: u64 = 4 << 30;

/// How often a child that has closed its output is looked at until it is gone.
const GONE_POLL: Duration = Duration::from_millis(2);

/// What compiling one component may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processor time, all threads together; whole seconds, as the kernel counts it.
    pub cpu: Duration,
    /// Memory that can be written.
    pub memory_bytes: u64,
    /// Wall clock, waiting for a core included.
    pub wall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A Rust script takes 10 ms, QuickJS 2 s, Python (20,000 functions) some 20 s of one core.
            cpu: Duration::from_secs(60),
            // Python takes about a third of it.
            memory_bytes: 1 << 30,
            wall: Duration::from_secs(90),
        }
    }
}

/// The program that becomes a compiler.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its file. `/proc/self/exe` is this very program, even where the file was replaced since.
    pub program: PathBuf,
    /// Arguments by which it knows to call [`serve`].
    pub args: Vec<String>,
    /// What it may take.
    pub limits: Limits,
}

/// First line the child reads.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    fuel: bool,
    cpu_s: u64,
    memory_bytes: u64,
}

/// Begins what the child gives: code, or words.
const CODE: u8 = b'+';
const WORDS: u8 = b'-';

impl Process {
    /// Compiles for engines that count instructions if `fuel`.
    pub(crate) fn compile(&self, component: &[u8], fuel: bool) -> Result<Vec<u8>, Error> {
        let until = Instant::now() + self.limits.wall;
        let mut child = Killed(self.start()?);
        let order = Order { fuel, cpu_s: self.limits.cpu.as_secs().max(1), memory_bytes: self.limits.memory_bytes };
        let (mut stdin, stdout, stderr) = (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take());
        let (said, output) = std::thread::scope(|threads| {
            // A child that is killed closes its ends, and so ends both.
            threads.spawn(move || stdin.take().map(|stdin| give(stdin, &order, component)));
            let words = threads.spawn(move || read(stderr, WORDS_BYTES_MAX));
            let (sender, receiver) = mpsc::channel();
            threads.spawn(move || sender.send(read(stdout, CODE_BYTES_MAX as u64 + 2)));
            let output = receiver.recv_timeout(self.limits.wall).ok();
            let ended = output.is_some().then(|| child.wait_until(until)).flatten();
            let _ = child.0.kill();
            (words.join().unwrap_or_default(), output.zip(ended))
        });
        match output {
            None => Err(self.over("time", &format!("{} s on the wall", self.limits.wall.as_secs_f64()))),
            Some((output, status)) => self.result(output, status, &said),
        }
    }

    fn start(&self) -> Result<Child, Error> {
        Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env("RAYON_NUM_THREADS", threads().to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::Internal(format!("cannot start the compiler {}: {e}", self.program.display())))
    }

    fn result(&self, mut output: Vec<u8>, status: ExitStatus, said: &[u8]) -> Result<Vec<u8>, Error> {
        use std::os::unix::process::ExitStatusExt;
        if status.success() && output.len() <= CODE_BYTES_MAX + 1 {
            return match output.first() {
                Some(&CODE) => {
                    output.remove(0);
                    Ok(output)
                }
                Some(&WORDS) => Err(does_not_compile(&String::from_utf8_lossy(&output[1..]))),
                _ => Err(Error::Internal("the compiler gave nothing".into())),
            };
        }
        if output.len() > CODE_BYTES_MAX + 1 {
            return Err(self.over("code", &format!("{CODE_BYTES_MAX} bytes of compiled code")));
        }
        let said = String::from_utf8_lossy(said);
        let signal = status.signal();
        if signal == Some(nix::libc::SIGXCPU) {
            return Err(self.over("processor time", &format!("{} s", self.limits.cpu.as_secs())));
        }
        // What the allocator says before it aborts; the kernel says nothing.
        if said.contains("memory allocation of") || said.contains("Cannot allocate memory") {
            return Err(self.memory());
        }
        if signal == Some(nix::libc::SIGKILL) {
            return Err(self.memory());
        }
        tracing::error!(%status, said = %said.trim_end(), "the compiler crashed over a component");
        Err(Error::Invalid {
            message: format!("the component makes the compiler fail ({status})"),
            hint: Some("rebuild it with current tools; the log of the host has more".into()),
            position: None,
        })
    }

    fn memory(&self) -> Error {
        self.over("memory", &format!("{} MiB", self.limits.memory_bytes >> 20))
    }

    fn over(&self, which: &str, limit: &str) -> Error {
        Error::Invalid {
            message: format!("compiling the component exceeds the limit on {which} ({limit})"),
            hint: Some("split its functions, or leave out what it does not use".into()),
            position: None,
        }
    }
}

/// Lets so many through at a time.
pub(crate) struct Gate {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Gate {
    pub(crate) fn new(places: usize) -> Self {
        Self { free: Mutex::new(places), freed: Condvar::new() }
    }

    pub(crate) fn pass<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Place<'a>(&'a Gate);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                self.0.freed.notify_one();
            }
        }
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        drop(free);
        let _place = Place(self);
        work()
    }
}

pub(crate) fn does_not_compile(why: &str) -> Error {
    Error::Invalid {
        message: format!("the component does not compile: {why}"),
        hint: Some("rebuild it with current tools".into()),
        position: None,
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// A child that does not outlive the call.
struct Killed(Child);

impl Killed {
    fn wait_until(&mut self, until: Instant) -> Option<ExitStatus> {
        loop {
            match self.0.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(GONE_POLL),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn give(mut stdin: ChildStdin, order: &Order, component: &[u8]) {
    // A child that does not read to the end has a reason, which its end tells.
    let _ = stdin.write_all(order.line().as_bytes()).and_then(|()| stdin.write_all(component));
}

fn read(from: Option<impl Read>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let mut from = from.take(most);
        // What came before an error is what there is.
        let _ = from.read_to_end(&mut bytes);
    }
    bytes
}

impl Order {
    fn line(&self) -> String {
        format!("{} {} {}\n", u8::from(self.fuel), self.cpu_s, self.memory_bytes)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        let order = Self { fuel: number()? != 0, cpu_s: number()?, memory_bytes: number()? };
        words.next().is_none().then_some(order)
    }
}

/// The child: limits itself, reads a component from stdin, writes its code to stdout. Call it first thing in `main`, where
/// the arguments are those of [`Process::args`]; nobody else has anything to say on stdin.
pub fn serve() -> ExitCode {
    let served = (|| {
        let mut stdin = io::stdin().lock();
        let mut line = String::new();
        (&mut stdin).take(100).read_line(&mut line)?;
        let order = Order::parse(&line).ok_or_else(|| io::Error::other("not started by a host"))?;
        limit(&order)?;
        crate::pool::yield_priority();
        let mut component = Vec::new();
        stdin.take(crate::admission::COMPONENT_BYTES_MAX as u64).read_to_end(&mut component)?;
        let mut stdout = io::stdout().lock();
        match compile(&component, order.fuel) {
            Ok(code) => stdout.write_all(&[CODE]).and_then(|()| stdout.write_all(&code)),
            Err(why) => stdout.write_all(&[WORDS]).and_then(|()| stdout.write_all(why.as_bytes())),
        }?;
        stdout.flush()
    })();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "cannot compile: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The same settings as the host's own engine, without the pool: nothing is run here.
fn compile(component: &[u8], fuel: bool) -> Result<Vec<u8>, String> {
    let config = Config { fuel, ..Config::default() };
    let engine = Engine::new(&engine::settings(&config, false)).map_err(|e| format!("{e:#}"))?;
    engine.precompile_component(component).map_err(|e| format!("{e:#}"))
}

/// Before anything of a component was read. None of these can be raised again without a capability.
fn limit(order: &Order) -> io::Result<()> {
    let set = |which, soft, hard| setrlimit(which, soft, hard).map_err(io::Error::from);
    // At the soft limit comes a signal of its own, by which the parent knows; a second later the end.
    set(Resource::RLIMIT_CPU, order.cpu_s, order.cpu_s + 1)?;
    set(Resource::RLIMIT_DATA, order.memory_bytes, order.memory_bytes)?;
    let addresses = order.memory_bytes.saturating_add(ADDRESSES_BYTES_MORE);
    set(Resource::RLIMIT_AS, addresses, addresses)?;
    set(Resource::RLIMIT_CORE, 0, 0)?;
    set(Resource::RLIMIT_FSIZE, 0, 0)?;
    // Of descriptors there are three already, and no other can be made.
    set(Resource::RLIMIT_NOFILE, 3, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let order = Order { fuel: true, cpu_s: 7, memory_bytes: 1 << 30 };
        assert_eq!(Order::parse(&order.line()), Some(order));
        for wrong in ["", "1 2", "1 2 x\n", "1 2 3 4\n"] {
            assert_eq!(Order::parse(wrong), None, "{wrong}");
        }
    }
}
