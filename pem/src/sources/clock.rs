//! The machine's clocks and names.

use nix::time::{ClockId, clock_gettime};

use super::proc::Stat;
use crate::input::Clock;

/// `CLOCK_BOOTTIME` now, in ns: what every time in an input is.
pub fn boot_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME) as u64
}

/// What to add to `CLOCK_BOOTTIME` to get ns since the epoch. Of a few tries the one with the least time between the
/// two clocks' readings counts, so that a preemption does not shift every row.
pub fn boot_to_epoch_ns() -> i64 {
    let attempt = || {
        let before = read(ClockId::CLOCK_BOOTTIME);
        let wall = read(ClockId::CLOCK_REALTIME);
        let after = read(ClockId::CLOCK_BOOTTIME);
        (after - before, wall - (before + after) / 2)
    };
    (0..3).map(|_| attempt()).min_by_key(|(spread, _)| *spread).map_or(0, |(_, offset)| offset)
}

/// The whole anchor. Every Linux that Pyxis runs on has 100 ticks per second towards user space.
pub fn describe(boot_to_epoch_ns: i64, asid: u32) -> Clock {
    let text = |path: &str| std::fs::read_to_string(path).map(|s| s.trim().to_string()).unwrap_or_default();
    let own = std::fs::read("/proc/self/stat").ok().and_then(|stat| Stat::parse(&stat));
    let hz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Clock {
        boot_to_epoch_ns,
        asid,
        hz: hz as u32,
        agent_pid: std::process::id(),
        agent_start_ticks: own.map_or(0, |stat| stat.start_ticks),
        hostname: text("/proc/sys/kernel/hostname"),
        kernel: text("/proc/sys/kernel/osrelease"),
        machine: std::env::consts::ARCH.to_string(),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
    }
}

fn read(clock: ClockId) -> i64 {
    // Both clocks exist on every Linux since 2.6.39.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}
