//! Which processes there are, what they are, and what they use.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use super::proc::{IoCounters, ProcReader, Stat, number, read_into};
use crate::input::{CMDLINE_MAX, Input, Process, ProcessSample};
use crate::metadata::cgroup;

/// Processes that are watched. As many as the core remembers.
const PROCESSES_MAX: usize = 32_768;

/// Descriptors that stay open, so that a sample costs one read and not open, read and close: the limit of a plain
/// service is 1,024, and the agent has others to hold.
const OPEN_MAX: usize = 512;

/// Samples of one round: at 10 µs each 2 ms, and so at most 0.2 % of a core. The busiest hosts' rounds take turns.
const SAMPLES_PER_ROUND: usize = 200;

/// Rounds between samples of a process that uses no CPU, at most.
const BACKOFF_MAX: u32 = 16;

/// An exec is looked up after so long: time for it to become what it is, short enough to meet it alive.
const FRESH_NS: u64 = 20_000_000;

/// Execs that wait to be looked up. More in 20 ms is a fork bomb; the scan finds those that last.
const EXPECTED_MAX: usize = 1024;

struct Watched {
    start_ticks: u64,
    /// Without one only its ending matters.
    kernel_thread: bool,
    stat: Option<File>,
    last_ticks: u64,
    backoff: u32,
    due_round: u64,
    /// Network namespace, pod and container, for `network_stats`. The namespace is known by the inode of its `net/dev`:
    /// each has its own, and unlike `ns/net` it may be looked at without rights over the process.
    pub netns: u64,
    pub pod_id: String,
    pub container_id: String,
    sampled_once: bool,
}

/// The processes of this machine.
pub struct Processes {
    proc: PathBuf,
    watched: BTreeMap<u32, Watched>,
    expected: BTreeMap<u32, u64>,
    expected_now: Vec<u32>,
    open: usize,
    round: u64,
    /// Where the next round of samples begins when one did not reach all.
    turn: u32,
    buffer: Vec<u8>,
    due: Vec<(u32, Stat)>,
    pids: Vec<u32>,
    io: Vec<Option<IoCounters>>,
    page_bytes: u64,
}

impl Processes {
    pub fn new(proc: PathBuf) -> Self {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        Self {
            proc,
            watched: BTreeMap::new(),
            expected: BTreeMap::new(),
            expected_now: Vec::new(),
            open: 0,
            round: 0,
            turn: 0,
            buffer: Vec::new(),
            due: Vec::new(),
            pids: Vec::new(),
            io: Vec::new(),
            page_bytes: page as u64,
        }
    }

    /// A process replaced its program: look at it soon.
    pub fn expect(&mut self, pid: u32) {
        if self.expected.len() + self.expected_now.len() < EXPECTED_MAX {
            self.expected_now.push(pid);
        }
    }

    /// A process ended, as the kernel says: nothing more is to be read.
    pub fn forget(&mut self, pid: u32) {
        self.expected.remove(&pid);
        if let Some(gone) = self.watched.remove(&pid) {
            self.open -= usize::from(gone.stat.is_some());
        }
    }

    /// Representative process, pod and container of each network namespace: the first pid of each, as the oldest lives
    /// longest.
    pub fn namespaces(&self) -> BTreeMap<u64, (u32, &str)> {
        let mut found = BTreeMap::new();
        for (&pid, process) in &self.watched {
            if process.netns != 0 {
                let id = if process.pod_id.is_empty() { &process.container_id } else { &process.pod_id };
                found.entry(process.netns).or_insert((pid, id.as_str()));
            }
        }
        found
    }

    /// Looks up the execs that are due.
    pub fn fresh(&mut self, now_ns: u64, reader: &mut dyn ProcReader, to: &mut dyn FnMut(Input<'_>)) {
        for pid in std::mem::take(&mut self.expected_now) {
            self.expected.entry(pid).or_insert(now_ns + FRESH_NS);
        }
        let due: Vec<u32> = self.expected.iter().filter(|(_, at)| **at <= now_ns).map(|(pid, _)| *pid).collect();
        for pid in due {
            self.expected.remove(&pid);
            self.look(pid, now_ns, reader, to);
        }
    }

    /// Finds who came and who went, then samples who is due.
    pub fn scan(&mut self, now_ns: u64, reader: &mut dyn ProcReader, to: &mut dyn FnMut(Input<'_>)) {
        self.fresh(now_ns, reader, to);
        self.round += 1;
        let Ok(entries) = std::fs::read_dir(&self.proc) else { return };
        let mut present = BTreeSet::new();
        for entry in entries.flatten() {
            if let Some(pid) = pid_of(&entry.file_name()) {
                present.insert(pid);
            }
        }
        let gone: Vec<u32> = self.watched.keys().filter(|pid| !present.contains(pid)).copied().collect();
        for pid in gone {
            let start_ticks = self.watched.get(&pid).map_or(0, |p| p.start_ticks);
            self.forget(pid);
            to(Input::ProcessGone { time_ns: now_ns, pid, start_ticks });
        }
        for pid in present {
            if !self.watched.contains_key(&pid) && self.watched.len() < PROCESSES_MAX {
                self.look(pid, now_ns, reader, to);
            }
        }
        self.sample(now_ns, reader, to);
    }

    /// Reads all about a process.
    fn look(&mut self, pid: u32, now_ns: u64, reader: &mut dyn ProcReader, to: &mut dyn FnMut(Input<'_>)) {
        let folder = self.proc.join(pid.to_string());
        let Ok(file) = File::open(folder.join("stat")) else { return };
        let Some(stat) = read_stat(&file, &mut self.buffer) else { return };
        let uid = file.metadata().map_or(0, |meta| meta.uid());
        self.forget(pid);
        let mut watched = Watched {
            start_ticks: stat.start_ticks,
            kernel_thread: stat.kernel_thread,
            stat: None,
            last_ticks: 0,
            backoff: 1,
            due_round: self.round,
            netns: 0,
            pod_id: String::new(),
            container_id: String::new(),
            sampled_once: false,
        };
        // The kernel's own threads are no program that anyone deployed.
        if !stat.kernel_thread {
            if self.open < OPEN_MAX {
                watched.stat = Some(file);
                self.open += 1;
            }
            let process = self.describe(pid, now_ns, uid, stat, reader);
            watched.netns = std::fs::metadata(folder.join("net/dev")).map_or(0, |meta| meta.ino());
            watched.pod_id.clone_from(&process.pod_id);
            watched.container_id.clone_from(&process.container_id);
            to(Input::Process(Box::new(process)));
        }
        self.watched.insert(pid, watched);
    }

    fn describe(&mut self, pid: u32, now_ns: u64, uid: u32, stat: Stat, reader: &mut dyn ProcReader) -> Process {
        let folder = self.proc.join(pid.to_string());
        let exe = reader.exe(pid).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let cmdline = match read_into(&folder.join("cmdline"), &mut self.buffer, CMDLINE_MAX) {
            Ok(()) => arguments(&self.buffer),
            Err(_) => String::new(),
        };
        let place = match read_into(&folder.join("cgroup"), &mut self.buffer, super::proc::TEXT_BYTES_MAX) {
            Ok(()) => cgroup::parse(&String::from_utf8_lossy(&self.buffer)),
            Err(_) => cgroup::Membership::default(),
        };
        Process {
            time_ns: now_ns,
            pid,
            start_ticks: stat.start_ticks,
            ppid: stat.ppid,
            uid,
            comm: stat.comm,
            exe,
            cmdline,
            cgroup: place.path,
            container_id: place.container_id,
            pod_id: place.pod_id,
            systemd_unit: place.systemd_unit,
        }
    }

    fn sample(&mut self, now_ns: u64, reader: &mut dyn ProcReader, to: &mut dyn FnMut(Input<'_>)) {
        let round = self.round;
        let due = |(_, p): &(&u32, &mut Watched)| p.due_round <= round && !p.kernel_thread;
        self.due.clear();
        let turn = self.turn;
        let mut last = None;
        let mut reused: Vec<u32> = Vec::new();
        // From where the last round stopped, and around.
        let (mut first, mut second): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for (pid, process) in self.watched.iter_mut().filter(due) {
            if *pid > turn { first.push((*pid, process)) } else { second.push((*pid, process)) }
        }
        first.append(&mut second);
        let all = first.len() <= SAMPLES_PER_ROUND;
        for (pid, process) in first.into_iter().take(SAMPLES_PER_ROUND) {
            last = Some(pid);
            let stat = match &process.stat {
                Some(file) => read_stat(file, &mut self.buffer),
                None => File::open(self.proc.join(pid.to_string()).join("stat"))
                    .ok()
                    .and_then(|file| read_stat(&file, &mut self.buffer)),
            };
            // Gone since: the next scan tells, unless the pid has a new owner, of whom the handle that is kept knows nothing.
            let Some(stat) = stat.filter(|stat| stat.start_ticks == process.start_ticks) else {
                reused.push(pid);
                continue;
            };
            let ticks = stat.utime_ticks + stat.stime_ticks;
            process.backoff = if ticks != process.last_ticks { 1 } else { (process.backoff * 2).min(BACKOFF_MAX) };
            process.last_ticks = ticks;
            process.due_round = round + u64::from(process.backoff);
            process.sampled_once = true;
            self.due.push((pid, stat));
        }
        self.turn = if all { 0 } else { last.unwrap_or(0) };
        self.pids.clear();
        self.pids.extend(self.due.iter().map(|(pid, _)| *pid));
        reader.io(&self.pids, &mut self.io);
        self.io.resize(self.pids.len(), None);
        for ((pid, stat), io) in self.due.drain(..).zip(&self.io) {
            let io = *io;
            to(Input::ProcessSample(ProcessSample {
                time_ns: now_ns,
                pid,
                start_ticks: stat.start_ticks,
                major_faults: stat.major_faults,
                minor_faults: stat.minor_faults,
                cpu_utime_ns: stat.utime_ticks * NS_PER_TICK,
                cpu_ktime_ns: stat.stime_ticks * NS_PER_TICK,
                num_threads: stat.num_threads,
                vsize_bytes: stat.vsize_bytes,
                rss_bytes: stat.rss_pages * self.page_bytes,
                rchar_bytes: io.map(|io| io.rchar_bytes),
                wchar_bytes: io.map(|io| io.wchar_bytes),
                read_bytes: io.map(|io| io.read_bytes),
                write_bytes: io.map(|io| io.write_bytes),
            }));
        }
        for pid in reused {
            self.look(pid, now_ns, reader, to);
        }
    }
}

/// `USER_HZ` is 100 wherever Pyxis runs.
const NS_PER_TICK: u64 = 10_000_000;

fn read_stat(file: &File, buffer: &mut Vec<u8>) -> Option<Stat> {
    // A line of 52 numbers and a name of 15 bytes.
    buffer.resize(1024, 0);
    let len = file.read_at(buffer, 0).ok()?;
    Stat::parse(buffer.get(..len)?)
}

fn pid_of(name: &OsStr) -> Option<u32> {
    let bytes = name.as_bytes();
    let numeric = !bytes.is_empty() && bytes.len() <= 10 && bytes.iter().all(u8::is_ascii_digit);
    numeric.then(|| number(bytes) as u32)
}

/// Arguments end with a zero byte each.
fn arguments(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let mut text = String::from_utf8_lossy(bytes).replace('\0', " ");
    text.truncate(text.trim_end().len());
    text
}
