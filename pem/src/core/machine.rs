//! What turns the kernel's numbers into the tables': the clock's anchor and the machine's identity.

use ebpf_abi::Process;

use crate::input::Clock;
use crate::upid::Upid;

/// The machine as the last clock input described it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Add to `CLOCK_BOOTTIME` to get ns since the epoch.
    pub boot_to_epoch_ns: i64,
    pub asid: u32,
    ns_per_tick: u64,
    /// The agent itself.
    pub agent: Upid,
    pub hostname: String,
}

impl Machine {
    /// From a clock input.
    pub fn new(clock: &Clock) -> Self {
        // Every Linux that Pyxis runs on says 100; 0 would be a recording's mistake.
        let hz = if clock.hz == 0 { 100 } else { clock.hz as u64 };
        Self {
            boot_to_epoch_ns: clock.boot_to_epoch_ns,
            asid: clock.asid,
            ns_per_tick: (1_000_000_000 / hz).max(1),
            agent: Upid::new(clock.asid, clock.agent_pid, clock.agent_start_ticks),
            hostname: clock.hostname.clone(),
        }
    }

    /// Boot time to the epoch's.
    pub fn epoch_ns(&self, boot_ns: u64) -> i64 {
        (boot_ns as i64).wrapping_add(self.boot_to_epoch_ns)
    }

    /// Clock ticks since boot to ns since the epoch.
    pub fn started_ns(&self, ticks: u64) -> i64 {
        self.epoch_ns(ticks.saturating_mul(self.ns_per_tick.max(1)))
    }

    /// A process as the kernel programs saw it.
    pub fn upid(&self, process: Process) -> Upid {
        Upid::new(self.asid, process.pid, process.start_ns / self.ns_per_tick.max(1))
    }
}
