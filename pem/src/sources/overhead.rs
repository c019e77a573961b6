//! What we use ourselves.

use std::path::PathBuf;

use nix::sys::resource::{UsageWho, getrusage};

use super::proc::{Stat, read_into};
use crate::input::AgentSample;

/// Reads own CPU time and memory.
pub struct Overhead {
    proc: PathBuf,
    buffer: Vec<u8>,
    page_bytes: u64,
}

impl Overhead {
    pub fn new(proc: PathBuf) -> Self {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        Self { proc, buffer: Vec::new(), page_bytes: page as u64 }
    }

    /// Own use until now.
    pub fn sample(&mut self, now_ns: u64, component: &str, ring_bytes_waiting: u64) -> Option<AgentSample> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let ns = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000_000 + time.tv_usec() as u64 * 1_000;
        read_into(&self.proc.join("self/stat"), &mut self.buffer, 1024).ok()?;
        let stat = Stat::parse(&self.buffer)?;
        Some(AgentSample {
            time_ns: now_ns,
            component: component.to_string(),
            cpu_ns: ns(usage.user_time()) + ns(usage.system_time()),
            rss_bytes: stat.rss_pages * self.page_bytes,
            ring_bytes_waiting,
        })
    }
}
