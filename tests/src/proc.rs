//! What `/proc` says of processes: who is whose child, CPU used, memory held.

use std::fs;
use std::time::Duration;

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pid(pub i32);

impl Pid {
    /// Its arguments, joined by spaces; empty once it is gone.
    pub fn command_line(self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
    }

    /// Whether it is there and not only waiting to be reaped.
    pub fn alive(self) -> bool {
        self.stat().is_some_and(|stat| stat.first().is_some_and(|state| state != "Z" && state != "X"))
    }

    /// CPU time of all its threads so far.
    pub fn cpu(self) -> Duration {
        /// `USER_HZ`, which Linux has fixed for every architecture we run on.
        const TICKS_PER_SECOND: u64 = 100;
        let Some(stat) = self.stat() else { return Duration::ZERO };
        // Fields 14 and 15 of proc(5); the first of ours is field 3.
        let ticks: u64 = stat.get(11..13).into_iter().flatten().filter_map(|text| text.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
    }

    /// Resident memory.
    pub fn rss_bytes(self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Its direct children.
    pub fn children(self) -> Vec<Pid> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid));
        pids.filter(|pid| pid.parent() == Some(self)).collect()
    }

    /// Its children, theirs, and so on.
    pub fn descendants(self) -> Vec<Pid> {
        let mut found = self.children();
        let mut at = 0;
        while at < found.len() {
            found.extend(found[at].children());
            at += 1;
        }
        found
    }

    /// Ends it by force.
    pub fn kill(self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0), nix::sys::signal::Signal::SIGKILL);
    }

    /// What Ctrl-C sends.
    pub fn interrupt(self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0), nix::sys::signal::Signal::SIGINT);
    }

    fn parent(self) -> Option<Pid> {
        self.stat()?.get(1)?.parse().ok().map(Pid)
    }

    /// Fields of `/proc/PID/stat` from the third on: the second is a name, which may hold anything.
    fn stat(self) -> Option<Vec<String>> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
    }
}

impl From<&std::process::Child> for Pid {
    fn from(child: &std::process::Child) -> Self {
        Pid(i32::try_from(child.id()).expect("pids are below 2^22"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_with_what_it_is() {
        let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        let pid = Pid::from(&child);
        let us = Pid(i32::try_from(std::process::id()).unwrap());
        assert!(us.children().contains(&pid) && pid.alive() && pid.rss_bytes() > 0);
        // The name changes when the child has become another program.
        for _ in 0..100 {
            if pid.command_line() == "sleep 5" {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(pid.command_line(), "sleep 5");
        pid.kill();
        child.wait().unwrap();
        assert!(!pid.alive());
    }
}
