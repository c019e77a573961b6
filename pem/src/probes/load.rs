//! Loading and attaching the kernel programs: the best tier this kernel allows, each program alone and by name.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, Map},
    programs::{Program, ProgramError},
};
use ebpf_abi::{Offsets, RING_BYTES, Settings, protocol};
use serde::{Deserialize, Serialize};

use super::{
    btf::{self, Btf},
    offsets, privileges,
};

/// Which way of seeing socket calls is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// The first of the following that this kernel allows.
    #[default]
    Auto,
    /// The tracepoints behind every socket call (kernel 6.3).
    Socket,
    /// One tracepoint at the end of every system call (kernel 5.11).
    SysExit,
    /// A tracepoint at the beginning and the end of each call that moves bytes (kernel 5.10).
    Syscalls,
}

impl Capture {
    /// As written in settings and shown to people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Socket => "socket",
            Self::SysExit => "sys_exit",
            Self::Syscalls => "syscalls",
        }
    }

    fn candidates(self) -> Vec<Self> {
        match self {
            Self::Auto => vec![Self::Socket, Self::SysExit, Self::Syscalls],
            one => vec![one],
        }
    }

    /// Programs without which this tier is nothing.
    fn programs(self) -> &'static [ProgramSpec] {
        match self {
            Self::Socket => &SOCKET,
            Self::SysExit => &SYS_EXIT,
            Self::Auto | Self::Syscalls => &SYSCALLS,
        }
    }
}

impl std::fmt::Display for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a capture.
#[derive(Debug, thiserror::Error)]
#[error("unknown capture `{0}`: use auto, socket, sys_exit or syscalls")]
pub struct UnknownCapture(String);

impl std::str::FromStr for Capture {
    type Err = UnknownCapture;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Auto, Self::Socket, Self::SysExit, Self::Syscalls]
            .into_iter()
            .find(|capture| capture.name() == name)
            .ok_or_else(|| UnknownCapture(name.to_owned()))
    }
}

#[derive(Clone, Copy)]
enum Hook {
    /// A tracepoint with types.
    Typed(&'static str),
    /// `syscalls:sys_enter_*` of each of [`CALL_NAMES`].
    Enter,
    /// `syscalls:sys_exit_*`
    Exit,
    /// A walk over all open files, run when asked for.
    Files,
}

#[derive(Clone, Copy)]
struct ProgramSpec {
    name: &'static str,
    hook: Hook,
}

const fn typed(name: &'static str, tracepoint: &'static str) -> ProgramSpec {
    ProgramSpec { name, hook: Hook::Typed(tracepoint) }
}

// State before calls: a connection made while these are attached is then seen from its beginning. Before it the end of
// sockets, which tells what state leaves to it.
const SOCKET: [ProgramSpec; 4] = [
    typed("socket_end", "tcp_destroy_sock"),
    typed("socket_state", "inet_sock_set_state"),
    typed("socket_recv", "sock_recv_length"),
    typed("socket_send", "sock_send_length"),
];
const SYS_EXIT: [ProgramSpec; 3] =
    [typed("call_end", "tcp_destroy_sock"), typed("call_state", "inet_sock_set_state"), typed("sys_exit", "sys_exit")];
const SYSCALLS: [ProgramSpec; 4] = [
    typed("call_end", "tcp_destroy_sock"),
    typed("call_state", "inet_sock_set_state"),
    ProgramSpec { name: "call_exit", hook: Hook::Exit },
    ProgramSpec { name: "call_enter", hook: Hook::Enter },
];
/// Loaded with every tier; the system runs without them, and says so. Fork first: no child may slip through.
const PROCESS: [ProgramSpec; 3] = [
    typed("process_fork", "sched_process_fork"),
    typed("process_exec", "sched_process_exec"),
    typed("process_exit", "sched_process_exit"),
];

const SOCKET_SURVEY: ProgramSpec = ProgramSpec { name: "socket_survey", hook: Hook::Files };
const CALL_SURVEY: ProgramSpec = ProgramSpec { name: "call_survey", hook: Hook::Files };

/// The calls tier 3 hooks; must be those that `syscalls.rs` of the kernel programs knows.
const CALL_NAMES: [&str; 9] =
    ["read", "write", "readv", "writev", "recvfrom", "sendto", "recvmsg", "sendmsg", "sendfile64"];

/// What became of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It runs.
    Attached,
    /// The kernel refused it; `error` says why.
    Failed,
}

/// A program and what became of it: a row of `probe_status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Its name in the object.
    pub program: String,
    /// What it is attached to, as `kind:name`.
    pub hook: String,
    pub status: Status,
    /// Why it failed, else empty.
    pub error: String,
    /// What is of use to know: tier, size, instructions verified.
    pub info: String,
}

/// Why nothing could be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no kernel programs at {}: build them with `cargo xtask ebpf`, or set PYXIS_LIB_DIR to where they are", path.display())]
    Object { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Btf(#[from] btf::Error),
    #[error(transparent)]
    Offsets(#[from] offsets::Missing),
    #[error("{0}")]
    Privilege(#[from] privileges::Lack),
    #[error("the kernel refused the programs' maps: {0}")]
    Maps(String),
    #[error("the kernel refused every way of seeing socket calls: {}", .0.join("; "))]
    NoTier(Vec<String>),
    #[error("{} is not an object of this version: it has no {what}", path.display())]
    Foreign { path: PathBuf, what: &'static str },
}

/// How often all open sockets are gone through unless told otherwise: how late the last bytes of a connection that has
/// fallen silent are told. A walk over 10,000 open files takes some 2 ms.
pub const SURVEY_PERIOD: Duration = Duration::from_secs(5);
/// What to load.
#[derive(Clone, Debug)]
pub struct Config {
    /// The object: `ebpf/pyxis.bpf.o` in the lib dir.
    pub object_path: PathBuf,
    pub capture: Capture,
    /// Size of the ring; a power of two, and pages. Tests make it tiny.
    pub ring_bytes: u32,
    /// Protocols whose payload is wanted, of [`ebpf_abi::protocol`].
    pub protocols: Vec<u8>,
    /// Most bytes of one call that are copied.
    pub call_bytes: u32,
    /// Thread-group ids that are not traced, nor what they start from now on.
    pub ignore_pids: Vec<u32>,
    /// How often the helper goes through all open sockets.
    pub survey_period: Duration,
}

impl Config {
    /// The defaults, with this object.
    pub fn new(object_path: impl Into<PathBuf>) -> Self {
        Self {
            object_path: object_path.into(),
            capture: Capture::Auto,
            ring_bytes: RING_BYTES,
            protocols: vec![protocol::HTTP],
            call_bytes: ebpf_abi::CALL_BYTES_DEFAULT,
            ignore_pids: Vec::new(),
            survey_period: SURVEY_PERIOD,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            protocols: self
                .protocols
                .iter()
                .fold(0, |bits, number| bits | 1u32.checked_shl(*number as u32).unwrap_or(0)),
            call_bytes: self.call_bytes.min((ebpf_abi::DATA_MAX * ebpf_abi::DATA_RECORDS_PER_CALL) as u32),
            // A ring smaller than usual must wake its reader earlier.
            wake_bytes: ebpf_abi::RING_WAKE_BYTES.min(self.ring_bytes / 4),
            ..Settings::default()
        }
    }
}

/// Loaded and attached programs; dropping it detaches them.
pub struct Probes {
    ebpf: Ebpf,
    tier: Capture,
    statuses: Vec<ProbeStatus>,
    settings: Settings,
    survey: Option<Survey>,
}

/// The walk over all open sockets: tells connections from before with their owners, and the last bytes of silent ones.
pub struct Survey {
    link: OwnedFd,
}

impl Survey {
    /// Walks once. Its records are in the ring when it returns.
    pub fn run(&self) -> io::Result<()> {
        privileges::walk(self.link.as_fd())
    }
}

/// Counts of one program, as the kernel keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramStats {
    pub program: String,
    /// Time spent in it; 0 unless `kernel.bpf_stats_enabled` is set.
    pub run_time_ns: u64,
    /// Times it ran; 0 unless the same.
    pub runs: u64,
    /// Times it could not run since it was running already on that CPU: events that were missed.
    pub misses: u64,
}

impl Probes {
    /// Loads and attaches the best tier the configuration and the kernel allow.
    pub fn load(config: &Config) -> Result<Self, Error> {
        let object = std::fs::read(&config.object_path)
            .map_err(|source| Error::Object { path: config.object_path.clone(), source })?;
        let btf = Btf::of_kernel()?;
        let offsets = offsets::find(&btf)?;
        privileges::check_bpf()?;
        let aya_btf = AyaBtf::from_sys_fs().map_err(|error| Error::Maps(chain(&error)))?;
        let mut failed = Vec::new();
        let mut reasons = Vec::new();
        for tier in config.capture.candidates() {
            let missing = tier.programs().iter().find_map(|spec| match spec.hook {
                Hook::Typed(name) if !btf.has_tracepoint(name) => Some(name),
                _ => None,
            });
            if let Some(name) = missing {
                reasons.push(format!("{tier}: this kernel has no tracepoint {name}"));
                continue;
            }
            let mut ebpf = open(&object, config, tier, &offsets, &aya_btf)?;
            let mut statuses = Vec::new();
            for spec in PROCESS.iter().chain(tier.programs()) {
                statuses.push(start(&mut ebpf, *spec, tier, &aya_btf));
            }
            let whole = tier.programs().iter().all(|spec| {
                statuses.iter().any(|status| status.program == spec.name && status.status == Status::Attached)
            });
            if whole {
                let survey = if tier == Capture::Socket { SOCKET_SURVEY } else { CALL_SURVEY };
                statuses.push(start(&mut ebpf, survey, tier, &aya_btf));
                let survey = survey_of(&ebpf, survey.name);
                statuses.extend(failed);
                return Ok(Self { ebpf, tier, statuses, settings: config.settings(), survey });
            }
            let worst = statuses.iter().find(|status| {
                status.status == Status::Failed && tier.programs().iter().any(|spec| spec.name == status.program)
            });
            if let Some(status) = worst {
                reasons.push(format!("{tier}: {}: {}", status.program, status.error));
            }
            failed.extend(statuses.into_iter().filter(|status| {
                status.status == Status::Failed && tier.programs().iter().any(|spec| spec.name == status.program)
            }));
        }
        Err(Error::NoTier(reasons))
    }

    /// The tier that was taken; never `Auto`.
    pub fn tier(&self) -> Capture {
        self.tier
    }

    /// What became of each program, those of refused tiers last.
    pub fn statuses(&self) -> &[ProbeStatus] {
        &self.statuses
    }

    /// The settings the programs run with.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The event ring.
    pub fn ring(&self) -> BorrowedFd<'_> {
        self.map("RING")
    }

    /// The per-CPU counters.
    pub fn counters(&self) -> BorrowedFd<'_> {
        self.map("COUNTERS")
    }

    /// Stops tracing these processes and what they start from now on.
    pub fn ignore(&mut self, pids: &[u32]) -> io::Result<()> {
        let map = self.ebpf.map_mut("IGNORED").expect("checked when opened");
        ignore(map, pids)
    }

    /// The reader of the ring has gone: whoever comes next is told again of each connection when it next moves bytes, ends,
    /// or is met by the survey.
    pub fn forget_reader(&mut self) -> io::Result<()> {
        let map = self.ebpf.map_mut("READER").expect("checked when opened");
        let mut reader: Array<_, u64> = Array::try_from(map).map_err(io::Error::other)?;
        reader.set(0, super::wire::clocks().0, 0).map_err(io::Error::other)
    }

    /// The survey, to be run by whoever has time for it; once.
    pub fn take_survey(&mut self) -> Option<Survey> {
        self.survey.take()
    }

    /// What the kernel counted of each program.
    pub fn stats(&self) -> Vec<ProgramStats> {
        let mut stats: Vec<_> = self
            .ebpf
            .programs()
            .filter_map(|(name, program)| {
                let fd = program.fd().ok()?;
                let (run_time_ns, runs, misses) = privileges::program_counts(fd.as_fd()).ok()?;
                Some(ProgramStats { program: name.to_owned(), run_time_ns, runs, misses })
            })
            .collect();
        stats.sort_by(|a, b| a.program.cmp(&b.program));
        stats
    }

    fn map(&self, name: &'static str) -> BorrowedFd<'_> {
        match self.ebpf.map(name) {
            Some(Map::RingBuf(data) | Map::Array(data)) => data.fd().as_fd(),
            _ => unreachable!("the map {name} was checked when the object was opened"),
        }
    }
}

/// Makes the maps of the object, sized for `tier`.
fn open(object: &[u8], config: &Config, tier: Capture, offsets: &Offsets, btf: &AyaBtf) -> Result<Ebpf, Error> {
    let (settings, calls) = (config.settings(), offsets::calls());
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(btf))
        .verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS)
        .override_global("OFFSETS", privileges::bytes_of(offsets), true)
        .override_global("CALLS", privileges::bytes_of(&calls), true)
        .override_global("SETTINGS", privileges::bytes_of(&settings), true)
        .map_max_entries("RING", config.ring_bytes)
        .map_max_entries("SCRATCH", 2 * possible_cpus());
    if tier == Capture::Socket {
        // The state is in the sockets; these tables stay empty.
        loader.map_max_entries("CONNS", 1).map_max_entries("ENTERED", 1);
    }
    let mut ebpf = loader.load(object).map_err(|error| Error::Maps(chain(&error)))?;
    let foreign = |what| Error::Foreign { path: config.object_path.clone(), what };
    if !matches!(ebpf.map("RING"), Some(Map::RingBuf(_))) {
        return Err(foreign("ring RING"));
    }
    if !matches!(ebpf.map("COUNTERS"), Some(Map::Array(_))) {
        return Err(foreign("array COUNTERS"));
    }
    if !matches!(ebpf.map("READER"), Some(Map::Array(_))) {
        return Err(foreign("array READER"));
    }
    let ignored = ebpf.map_mut("IGNORED").ok_or_else(|| foreign("map IGNORED"))?;
    ignore(ignored, &config.ignore_pids).map_err(|error| Error::Maps(chain(&error)))?;
    Ok(ebpf)
}

fn ignore(map: &mut Map, pids: &[u32]) -> io::Result<()> {
    let mut ignored: HashMap<_, u32, u8> = HashMap::try_from(map).map_err(io::Error::other)?;
    for pid in pids {
        ignored.insert(pid, 1, 0).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Loads and attaches one program.
fn start(ebpf: &mut Ebpf, spec: ProgramSpec, tier: Capture, btf: &AyaBtf) -> ProbeStatus {
    let hook = match spec.hook {
        Hook::Typed(name) => format!("tp_btf:{name}"),
        Hook::Enter => "tracepoint:syscalls:sys_enter_*".to_owned(),
        Hook::Exit => "tracepoint:syscalls:sys_exit_*".to_owned(),
        Hook::Files => "iter:task_file".to_owned(),
    };
    let result = match ebpf.program_mut(spec.name) {
        None => Err("the object has no such program".to_owned()),
        Some(program) => attach(program, spec.hook, btf),
    };
    let (status, error, info) = match result {
        Ok(info) => (Status::Attached, String::new(), format!("capture {tier}; {info}")),
        Err(error) => (Status::Failed, error, format!("capture {tier}")),
    };
    ProbeStatus { program: spec.name.to_owned(), hook, status, error, info }
}

fn attach(program: &mut Program, hook: Hook, btf: &AyaBtf) -> Result<String, String> {
    match (hook, &mut *program) {
        (Hook::Typed(name), Program::BtfTracePoint(program)) => {
            program.load(name, btf).map_err(|error| told(&error))?;
            program.attach().map_err(|error| told(&error))?;
        }
        (Hook::Enter | Hook::Exit, Program::TracePoint(program)) => {
            privileges::mount_tracefs().map_err(|error| chain(&error))?;
            program.load().map_err(|error| told(&error))?;
            let prefix = if matches!(hook, Hook::Enter) { "sys_enter_" } else { "sys_exit_" };
            for call in CALL_NAMES {
                program.attach("syscalls", &format!("{prefix}{call}")).map_err(|error| told(&error))?;
            }
        }
        (Hook::Files, Program::Iter(program)) => program.load("task_file", btf).map_err(|error| told(&error))?,
        _ => return Err("the object has a program of another kind by this name".to_owned()),
    }
    let info = program.info().map_err(|error| told(&error))?;
    let verified = info.verified_instruction_count().unwrap_or(0);
    Ok(format!("{} bytes, {verified} instructions verified", info.size_translated().unwrap_or(0)))
}

fn survey_of(ebpf: &Ebpf, name: &str) -> Option<Survey> {
    let fd = ebpf.program(name)?.fd().ok()?;
    Some(Survey { link: privileges::link_walk(fd.as_fd()).ok()? })
}

/// What the verifier said last, which is where it says why; the rest of its log can be megabytes.
fn told(error: &ProgramError) -> String {
    const LINES: usize = 6;
    let ProgramError::LoadError { io_error, verifier_log } = error else { return chain(error) };
    let log = verifier_log.to_string();
    if std::env::var_os("PYXIS_VERIFIER_LOG").is_some() {
        eprintln!("{log}");
    }
    let last: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).rev().take(LINES).collect();
    let last: Vec<_> = last.into_iter().rev().collect();
    format!("{io_error}: {}", last.join(" | "))
}

/// An error and what caused it, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut seen: HashSet<String> = HashSet::from([text.clone()]);
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if seen.insert(cause_text.clone()) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Whether the running kernel is of this version or a later one.
pub(super) fn kernel_at_least(major: u32, minor: u32) -> bool {
    kernel_version().is_some_and(|version| version >= (major, minor))
}

/// Major and minor version of the running kernel.
pub(super) fn kernel_version() -> Option<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// CPUs that this machine may ever have.
pub(super) fn possible_cpus() -> u32 {
    // "0-3", "0,2-5": the last number is the highest.
    let list = std::fs::read_to_string(Path::new("/sys/devices/system/cpu/possible")).unwrap_or_default();
    list.trim()
        .rsplit([',', '-'])
        .next()
        .and_then(|last| last.parse::<u32>().ok())
        .map_or(ebpf_abi::CPUS_MAX, |n| n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_named_and_an_unknown_name_lists_them() {
        for name in ["auto", "socket", "sys_exit", "syscalls"] {
            assert_eq!(name.parse::<Capture>().unwrap().name(), name);
        }
        assert!("sockets".parse::<Capture>().unwrap_err().to_string().contains("sys_exit"));
    }

    #[test]
    fn a_missing_object_says_how_to_build_it() {
        let error = Probes::load(&Config::new("/nowhere/pyxis.bpf.o")).err().unwrap().to_string();
        assert!(error.contains("/nowhere/pyxis.bpf.o") && error.contains("cargo xtask ebpf"), "{error}");
    }

    #[test]
    fn a_small_ring_wakes_early_and_a_call_is_never_copied_beyond_its_records() {
        let config = Config { ring_bytes: 64 << 10, call_bytes: u32::MAX, ..Config::new("x") };
        assert_eq!(config.settings().wake_bytes, 16 << 10);
        assert_eq!(config.settings().call_bytes, 65536);
        assert_eq!(config.settings().protocols, 2);
    }
}
