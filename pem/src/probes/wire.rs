//! What the helper and the PEM say to one another: frames of a length and JSON over a Unix socket.
//!
//! The PEM speaks first: [`Greeting`], which shows that the supervisor of both made it. The helper answers with [`Hello`], and
//! the descriptors of ring and counters (in this order) beside it. Then each [`Request`] gets one [`Response`]. There is no
//! request that changes anything.

use std::io::{self, Read, Write};

use ebpf_abi::Settings;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::load::{Capture, ProbeStatus, ProgramStats};

/// Raised with any change of the messages below.
pub const VERSION: u32 = 3;
/// Most bytes of a frame. An answer about [`PROCESSES_MAX`] processes with their limits stays below.
pub const FRAME_MAX: u32 = 8 << 20;
/// Processes one request may ask about.
pub const PROCESSES_MAX: usize = 256;
/// Links of open files told of one process; more are counted only.
pub const FDS_MAX: usize = 1024;
/// Names of mapped files told of one process: what is needed to find libraries.
pub const MAPS_MAX: usize = 256;
/// Bytes of names in one answer; beyond, only counts are told.
pub const NAMES_MAX: usize = 4 << 20;

/// First message of the PEM. Never shown: what is in it opens the ring.
#[derive(Clone, Serialize, Deserialize)]
pub struct Greeting {
    pub token: Token,
}

/// A secret that the supervisor gives to its children, so that other processes of the PEM's user (which may be `nobody`, whom
/// others use too) are not handed what the whole machine says. It comes by their standard input, and the PEM can be looked into
/// by root alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(String);

impl Token {
    /// 128 random bits.
    pub fn fresh() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// Compares in a time that does not tell how much is alike.
    pub(super) fn matches(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), other.0.as_bytes());
        ours.len() == theirs.len() && ours.iter().zip(theirs).fold(0, |unlike, (a, b)| unlike | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(not shown)")
    }
}

/// First message of the helper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`]
    pub version: u32,
    /// [`ebpf_abi::ABI_VERSION`] of the records.
    pub abi_version: u32,
    /// Which way of seeing socket calls is in use.
    pub capture: Capture,
    /// Size of the ring's data.
    pub ring_bytes: u32,
    /// The reader is woken once this much waits.
    pub wake_bytes: u32,
    /// Bit `1 << protocol` for each protocol whose payload is copied.
    pub protocols: u32,
    /// Most bytes of one call that are copied.
    pub call_bytes: u32,
    /// `CLOCK_BOOTTIME` at about the same moment as `realtime_ns`.
    pub boottime_ns: u64,
    /// `CLOCK_REALTIME`: record times are converted with the difference.
    pub realtime_ns: u64,
    /// Release of the running kernel.
    pub kernel: String,
    /// `CLOCK_BOOTTIME` at which the programs were attached: since then all is in the ring or counted as lost. Another
    /// value is another helper.
    pub attached_ns: u64,
    /// What became of each program.
    pub probes: Vec<ProbeStatus>,
    /// The counters as they stood when the reader before this one went: what they had counted was its to tell. Empty for the
    /// first.
    pub told: Vec<Told>,
}

/// Counters of one CPU at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub cpu: u32,
    /// By [`ebpf_abi::counter`].
    pub slots: [u64; ebpf_abi::counter::SLOTS],
}

impl Hello {
    pub(super) fn new(
        capture: Capture,
        settings: Settings,
        ring_bytes: u32,
        attached_ns: u64,
        probes: Vec<ProbeStatus>,
        told: Vec<Told>,
    ) -> Self {
        let (boottime_ns, realtime_ns) = clocks();
        Self {
            version: VERSION,
            abi_version: ebpf_abi::ABI_VERSION,
            capture,
            ring_bytes,
            wake_bytes: settings.wake_bytes,
            protocols: settings.protocols,
            call_bytes: settings.call_bytes,
            boottime_ns,
            realtime_ns,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            attached_ns,
            probes,
            told,
        }
    }
}

/// `CLOCK_BOOTTIME` and `CLOCK_REALTIME` in ns, read within a few hundred ns of one another.
pub fn clocks() -> (u64, u64) {
    use nix::time::{ClockId, clock_gettime};
    let read = |clock| clock_gettime(clock).map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64);
    (read(ClockId::CLOCK_BOOTTIME), read(ClockId::CLOCK_REALTIME))
}

/// A process that is meant, and no later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessRef {
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// Which of the facts that only a privileged process may read are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Target of `/proc/PID/exe`.
    pub exe: bool,
    /// `/proc/PID/io`
    pub io: bool,
    /// Number of open files.
    pub fd_count: bool,
    /// Targets of `/proc/PID/fd/*`, at most [`FDS_MAX`].
    pub fds: bool,
    /// Files mapped to run code from, at most [`MAPS_MAX`].
    pub maps: bool,
}

/// What the PEM may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Facts about at most [`PROCESSES_MAX`] processes.
    Inspect { processes: Vec<ProcessRef>, want: Want },
    /// Counts of the kernel programs.
    Programs,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// In the order asked; `None` for a process that is gone.
    Inspected(Vec<Option<ProcessFacts>>),
    Programs(Vec<ProgramStats>),
    /// The request was not understood or asked for too much.
    Refused(String),
}

/// Bytes a process moved, as `/proc/PID/io` counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// By `read` calls of any kind.
    pub rchar: u64,
    pub wchar: u64,
    /// From and to storage.
    pub read_bytes: u64,
    pub write_bytes: u64,
}

/// What was asked of a process. A fact that could not be had is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    pub exe: Option<String>,
    pub io: Option<Io>,
    pub fd_count: Option<u64>,
    /// Number and target, lowest numbers first.
    pub fds: Option<Vec<(u32, String)>>,
    pub maps: Option<Vec<String>>,
}

/// Writes a frame.
pub(super) fn write<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    to.write_all(&frame(message)?)
}

/// The bytes of a frame.
pub(super) fn frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let len = (bytes.len() - 4) as u32;
    if len > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message longer than a frame may be"));
    }
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    Ok(bytes)
}

/// Reads a frame.
pub(super) fn read<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {len} bytes")));
    }
    // Grown as bytes come, so that a length alone reserves nothing.
    let mut bytes = Vec::new();
    from.take(len as u64).read_to_end(&mut bytes)?;
    if bytes.len() as u32 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_are_not_shown() {
        let (one, other) = (Token::fresh(), Token::fresh());
        assert!(one.matches(&one.clone()) && !one.matches(&other));
        assert!(!one.matches(&Token(one.0[1..].to_owned())));
        assert!(!format!("{one:?}").contains(&one.0));
    }

    #[test]
    fn a_frame_comes_back_as_it_was_and_a_cut_or_huge_one_is_refused() {
        let request = Request::Inspect {
            processes: vec![ProcessRef { pid: 7, start_ticks: 9 }],
            want: Want { exe: true, ..Want::default() },
        };
        let bytes = frame(&request).unwrap();
        let Request::Inspect { processes, want } = read(&bytes[..]).unwrap() else { panic!("another request") };
        assert_eq!((processes[0].pid, want.exe, want.io), (7, true, false));
        for len in 0..bytes.len() {
            assert!(read::<Request>(&bytes[..len]).is_err());
        }
        assert!(read::<Request>(&u32::MAX.to_le_bytes()[..]).is_err());
    }
}
