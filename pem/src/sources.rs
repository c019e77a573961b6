//! What is read from `/proc` by the unprivileged agent, as inputs for the core.
//!
//! [`Sources::observe`] is shown every ring record (it reacts to a few), [`Sources::poll`] is called with every tick and
//! does what is due:
//!
//! | what | how often |
//! |---|---|
//! | processes that appeared or vanished | 1 s (one `readdir` of `/proc`), and 20 ms after their exec |
//! | CPU, memory and I/O of a process | 1 s while it uses CPU; backing off to 16 s while it does not |
//! | traffic of each network namespace | 1 s; 10 s for those where nothing moved |
//! | own CPU and memory | 5 s |
//! | the wall clock | 10 s, told when it moved by more than 1 ms |
//!
//! Pixie reads every process once a second. On an idle host nearly all of that finds nothing new, and reading a process
//! costs 10-20 µs: 300 idle processes would cost more than the whole budget of 0.3 % of a core.

pub mod clock;
mod network;
mod overhead;
pub mod proc;
mod processes;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use ebpf_abi::Kind;

use self::network::Networks;
use self::overhead::Overhead;
pub use self::proc::{IoCounters, LocalProc, ProcReader};
use self::processes::Processes;
use crate::core::record;
use crate::input::Input;

const SECOND_NS: u64 = 1_000_000_000;

/// How often the list of processes is read.
const SCAN_NS: u64 = SECOND_NS;

/// Own use changes slowly.
const OVERHEAD_NS: u64 = 5 * SECOND_NS;

/// The wall clock drifts by at most 500 ppm: 5 ms in this time.
const CLOCK_NS: u64 = 10 * SECOND_NS;

/// How the sources are set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Id of this agent for its [`crate::upid::Upid`]s.
    pub asid: u32,
    /// Name of the component that [`crate::input::AgentSample`]s are of.
    pub component: &'static str,
    /// Where `/proc` is: another place in tests.
    pub proc: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { asid: 1, component: "pem", proc: PathBuf::from("/proc") }
    }
}

/// All samplers.
pub struct Sources {
    config: Config,
    processes: Processes,
    networks: Networks,
    overhead: Overhead,
    scan_at: u64,
    overhead_at: u64,
    clock_at: u64,
    boot_to_epoch_ns: Option<i64>,
}

impl Sources {
    /// Nothing is read before the first poll.
    pub fn new(config: Config) -> Self {
        Self {
            processes: Processes::new(config.proc.clone()),
            networks: Networks::new(config.proc.clone()),
            overhead: Overhead::new(config.proc.clone()),
            config,
            scan_at: 0,
            overhead_at: 0,
            clock_at: 0,
            boot_to_epoch_ns: None,
        }
    }

    /// Looks at a ring record: an exec is looked up soon, while the process lives. Cheap for all others.
    pub fn observe(&mut self, bytes: &[u8]) {
        let Some(header) = record::header(bytes) else { return };
        if header.kind == Kind::ProcExec as u16 {
            if let Ok((_, record::Record::ProcExec(_, exec))) = record::decode(bytes) {
                self.processes.expect(exec.process.pid);
            }
        } else if header.kind == Kind::ProcExit as u16
            && let Ok((_, record::Record::ProcExit(exit))) = record::decode(bytes)
        {
            self.processes.forget(exit.process.pid);
        }
    }

    /// Does what is due and gives the inputs to `to`. The first call gives the clock, then all processes.
    /// `ring_bytes_waiting` goes into the agent's own sample. `reader` serves what we may not read ourselves.
    pub fn poll(
        &mut self,
        now_ns: u64,
        ring_bytes_waiting: u64,
        reader: &mut dyn ProcReader,
        to: &mut dyn FnMut(Input<'_>),
    ) {
        if now_ns >= self.clock_at {
            self.clock_at = now_ns + CLOCK_NS;
            self.clock(to);
        }
        if now_ns >= self.scan_at {
            self.scan_at = now_ns + SCAN_NS;
            self.processes.scan(now_ns, reader, to);
            self.networks.poll(now_ns, &self.processes, reader, to);
        } else {
            self.processes.fresh(now_ns, reader, to);
        }
        if now_ns >= self.overhead_at {
            self.overhead_at = now_ns + OVERHEAD_NS;
            if let Some(sample) = self.overhead.sample(now_ns, self.config.component, ring_bytes_waiting) {
                to(Input::AgentSample(sample));
            }
        }
    }

    fn clock(&mut self, to: &mut dyn FnMut(Input<'_>)) {
        let offset = clock::boot_to_epoch_ns();
        let told = self.boot_to_epoch_ns;
        if told.is_none_or(|told| offset.abs_diff(told) > 1_000_000) {
            self.boot_to_epoch_ns = Some(offset);
            to(Input::Clock(clock::describe(offset, self.config.asid)));
        }
    }
}
