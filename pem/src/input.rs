//! Everything that enters the deterministic core, and so everything a recording holds.
//!
//! The agent's loop makes inputs (from the ring, from `sources`, from the helper) and does two things with each: give
//! it to [`crate::core::Core::apply`] and, when it records, to [`crate::recording::Writer::write`]. Nothing else may
//! reach a table, so a recording replayed gives the same tables.
//!
//! **Time.** Each `time_ns` and `now_ns` in here is `CLOCK_BOOTTIME` in ns, like the ring's records. Only [`Clock`]
//! knows the wall clock; the core converts with the last one it was given. To replay an old recording as if it happened
//! now, shift `boot_to_epoch_ns` of every `Clock`.

use serde::{Deserialize, Serialize};

/// One thing that enters the core.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<'a> {
    /// The bytes of one `ebpf_abi` record as they lay in the ring, header first.
    Record(&'a [u8]),
    /// Who and where we are and how boot time maps to the wall clock. First of all inputs; again when the clock was set.
    Clock(Clock),
    /// What is known of a process: at first sight and after each exec.
    Process(Box<Process>),
    /// A process that is not in `/proc` any more. Needed only where the record of its exit was lost.
    ProcessGone {
        time_ns: u64,
        pid: u32,
        /// Field 22 of `/proc/PID/stat`.
        start_ticks: u64,
    },
    /// Counters of a process.
    ProcessSample(ProcessSample),
    /// Counters of a network namespace.
    NetworkSample(NetworkSample),
    /// A probe was attached, failed or was given up.
    ProbeStatus(ProbeStatus),
    /// The kernel programs' counters of one CPU.
    Loss(Loss),
    /// A time in which nothing was captured.
    Gap(Gap),
    /// Something of the agent failed in a way that an operator should see.
    AgentError(AgentError),
    /// What the agent itself uses.
    AgentSample(AgentSample),
    /// Time passed. Given at least every 100 ms: rows become visible, stale state is dropped.
    Tick {
        /// `CLOCK_BOOTTIME`, ns.
        now_ns: u64,
    },
}

/// The anchor between the machine's clocks, and the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clock {
    /// Add to `CLOCK_BOOTTIME` to get ns since the Unix epoch.
    pub boot_to_epoch_ns: i64,
    /// Short id of this agent, the first part of each [`crate::upid::Upid`].
    pub asid: u32,
    /// Clock ticks per second (`sysconf(_SC_CLK_TCK)`), 100 in practice.
    pub hz: u32,
    /// Pid of the agent.
    pub agent_pid: u32,
    /// Start of the agent in clock ticks since boot.
    pub agent_start_ticks: u64,
    pub hostname: String,
    /// `uname -r`
    pub kernel: String,
    /// `uname -m`
    pub machine: String,
    pub cpus: u32,
}

/// What is known of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub time_ns: u64,
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    pub ppid: u32,
    pub uid: u32,
    /// Task name, at most 15 bytes.
    pub comm: String,
    /// Path of the executable; empty when it may not be read.
    pub exe: String,
    /// Arguments joined by a space, at most [`CMDLINE_MAX`] bytes.
    pub cmdline: String,
    /// Path in the cgroup hierarchy that names the container or unit.
    pub cgroup: String,
    /// 64 hex digits, or empty.
    pub container_id: String,
    /// Kubernetes pod uid, or empty.
    pub pod_id: String,
    /// systemd unit such as `nginx.service`, or empty.
    pub systemd_unit: String,
}

/// Bytes of a command line that are kept: Java class paths go to 100 KiB and say little beyond this.
pub const CMDLINE_MAX: usize = 4096;

/// Counters of a process since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSample {
    pub time_ns: u64,
    pub pid: u32,
    pub start_ticks: u64,
    pub major_faults: u64,
    pub minor_faults: u64,
    pub cpu_utime_ns: u64,
    pub cpu_ktime_ns: u64,
    pub num_threads: u64,
    pub vsize_bytes: u64,
    pub rss_bytes: u64,
    /// Bytes of read-like calls; the four of I/O are `None` when they may not be read.
    pub rchar_bytes: Option<u64>,
    pub wchar_bytes: Option<u64>,
    /// Bytes fetched from storage.
    pub read_bytes: Option<u64>,
    pub write_bytes: Option<u64>,
}

/// Counters of the interfaces of one network namespace, loopback left out, since they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSample {
    pub time_ns: u64,
    /// Kubernetes pod uid, else the container id, else (or behind it, where a container has several) `netns-` and a number;
    /// empty for the host's own network.
    pub pod_id: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_drops: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_drops: u64,
}

/// State of one probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeStatus {
    pub time_ns: u64,
    /// Which part of ours wanted it, such as `socket_tracer`.
    pub source_connector: String,
    /// Name of the probe.
    pub tracepoint: String,
    /// gRPC status code: 0 = attached.
    pub status: i64,
    /// Why it failed, with what to do; empty when attached.
    pub error: String,
    /// JSON object with details, such as the variant chosen.
    pub info: String,
}

/// Totals of one CPU's counters (`ebpf_abi::CpuCounters`) since the programs were loaded. Read them *after* the ring
/// was drained: then they include every gap the records show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loss {
    pub time_ns: u64,
    pub cpu: u32,
    /// By `ebpf_abi::counter`.
    pub slots: [u64; ebpf_abi::counter::SLOTS],
    /// These were another agent's to tell: only what comes on top is news.
    pub told: bool,
}

/// A time in which nothing was captured, or a part of one that goes on: its parts follow one another without overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gap {
    /// The last moment at which it was known that there was capture.
    pub from_ns: u64,
    /// When there was capture again, or how far the gap is told.
    pub to_ns: u64,
    /// Why, as `data_loss` names reasons, such as `helper_away`.
    pub reason: String,
    /// The kernel programs were loaded anew at its end: their counters, sequence numbers and stream positions begin
    /// again at 0, for connections that were open before too.
    pub reloaded: bool,
}

/// A failure of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentError {
    pub time_ns: u64,
    pub source_connector: String,
    /// gRPC status code.
    pub status: i64,
    pub error: String,
    /// JSON object with details.
    pub context: String,
}

/// What a process of ours uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentSample {
    pub time_ns: u64,
    /// `pem`, `helper`, `vizier`.
    pub component: String,
    /// User and system CPU time since it started.
    pub cpu_ns: u64,
    pub rss_bytes: u64,
    /// Bytes in the ring when it was looked at; 0 for a component without one.
    pub ring_bytes_waiting: u64,
}
