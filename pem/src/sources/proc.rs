//! Texts of `/proc`, and who may read them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes of I/O of a process since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounters {
    pub rchar_bytes: u64,
    pub wchar_bytes: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
}

/// Reads what the kernel shows only to the owner of a process or to root. The agent has it served by the privileged
/// helper; where it runs as root, or for its own processes, [`LocalProc`] does.
pub trait ProcReader {
    /// Target of `/proc/PID/exe`.
    fn exe(&mut self, pid: u32) -> io::Result<PathBuf>;

    /// Counters of `/proc/PID/io` of many processes in one go, since each round trip to a helper costs as much as a
    /// read. Fills `out` with as many answers as there are pids; `None` where a process is gone or may not be read.
    fn io(&mut self, pids: &[u32], out: &mut Vec<Option<IoCounters>>);

    /// Text of `/proc/PID/net/dev`, for namespaces that we may not look into.
    fn net_dev(&mut self, pid: u32) -> io::Result<Vec<u8>>;
}

/// Reads with the rights of this process.
#[derive(Clone, Debug)]
pub struct LocalProc {
    proc: PathBuf,
    buffer: Vec<u8>,
}

impl LocalProc {
    /// Reads under this folder, `/proc` but in tests.
    pub fn new(proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into(), buffer: Vec::new() }
    }
}

impl Default for LocalProc {
    fn default() -> Self {
        Self::new("/proc")
    }
}

impl ProcReader for LocalProc {
    fn exe(&mut self, pid: u32) -> io::Result<PathBuf> {
        std::fs::read_link(self.proc.join(pid.to_string()).join("exe"))
    }

    fn io(&mut self, pids: &[u32], out: &mut Vec<Option<IoCounters>>) {
        out.clear();
        for pid in pids {
            let path = self.proc.join(pid.to_string()).join("io");
            let read = read_into(&path, &mut self.buffer, TEXT_BYTES_MAX);
            out.push(read.ok().and_then(|()| IoCounters::parse(&self.buffer)));
        }
    }

    fn net_dev(&mut self, pid: u32) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        read_into(&self.proc.join(pid.to_string()).join("net/dev"), &mut text, TEXT_BYTES_MAX)?;
        Ok(text)
    }
}

/// Bytes of any text of `/proc` that are read: a `net/dev` of 400 interfaces.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Replaces `buffer` by the beginning of a file.
pub fn read_into(path: &Path, buffer: &mut Vec<u8>, max: usize) -> io::Result<()> {
    buffer.clear();
    File::open(path)?.take(max as u64).read_to_end(buffer)?;
    Ok(())
}

/// What is used of `/proc/PID/stat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub comm: String,
    pub ppid: u32,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub utime_ticks: u64,
    pub stime_ticks: u64,
    pub num_threads: u64,
    pub start_ticks: u64,
    pub vsize_bytes: u64,
    pub rss_pages: u64,
    /// Of the kernel's own.
    pub kernel_thread: bool,
}

/// `PF_KTHREAD` of `task_struct.flags`.
const KERNEL_THREAD: u64 = 0x0020_0000;

impl Stat {
    /// Reads the line. The name may contain blanks and parentheses; the last `)` ends it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let open = memchr::memchr(b'(', text)?;
        let close = memchr::memrchr(b')', text)?;
        let comm = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        let mut fields = [0u64; 22];
        let rest = text.get(close + 2..)?;
        let mut count = 0;
        // The state letter comes first, then numbers from field 4 on; field 24 (rss) is the last that is used.
        for (place, part) in fields.iter_mut().zip(rest.split(|&b| b == b' ').skip(1)) {
            *place = number(part);
            count += 1;
        }
        let [ppid, _, _, _, _, flags, minflt, _, majflt, _, utime, stime, _, _, _, _, threads, _, start, vsize, rss, _] =
            fields;
        (count >= 21).then_some(Self {
            comm,
            ppid: ppid as u32,
            minor_faults: minflt,
            major_faults: majflt,
            utime_ticks: utime,
            stime_ticks: stime,
            num_threads: threads,
            start_ticks: start,
            vsize_bytes: vsize,
            rss_pages: rss,
            kernel_thread: flags & KERNEL_THREAD != 0,
        })
    }
}

impl IoCounters {
    /// Reads the lines `name: number`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut io = Self::default();
        let mut seen = 0;
        for line in text.split(|&b| b == b'\n') {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = line.split_at(colon);
            let place = match name {
                b"rchar" => &mut io.rchar_bytes,
                b"wchar" => &mut io.wchar_bytes,
                b"read_bytes" => &mut io.read_bytes,
                b"write_bytes" => &mut io.write_bytes,
                _ => continue,
            };
            *place = number(value.get(1..)?.trim_ascii());
            seen += 1;
        }
        (seen == 4).then_some(io)
    }
}

/// Leading digits; negative numbers (a few fields can be) are 0.
pub fn number(text: &[u8]) -> u64 {
    text.iter().take_while(|b| b.is_ascii_digit()).fold(0u64, |n, b| n.wrapping_mul(10).wrapping_add((b - b'0') as u64))
}
