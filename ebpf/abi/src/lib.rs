//! What the kernel programs write and the PEM reads: the records of the event ring, the layout of the counter and
//! settings maps.
//!
//! Every record starts with a [`Header`], is 8-byte aligned, and is written in the machine's byte order (a ring never
//! leaves its machine; a recording names its byte order). All structs are `repr(C)` without padding, so that no kernel
//! memory leaks through a gap and both sides agree on every offset; the tests below assert sizes and offsets.
#![no_std]

/// Version of this layout, kept in the settings map and in recordings. Raised with any change of a record below, or of what
/// one means; a bit that older writers leave at 0 is none.
pub const ABI_VERSION: u32 = 1;

/// Bytes of payload one [`Data`] record may carry. Four size classes keep a short head from costing a large record.
pub const DATA_CLASSES: [usize; 4] = [256, 1024, 4096, 16384];
/// Largest of [`DATA_CLASSES`].
pub const DATA_MAX: usize = DATA_CLASSES[3];
/// Records one system call may be cut into; what lies beyond is counted in `Data::total` but not copied.
pub const DATA_RECORDS_PER_CALL: usize = 4;
/// Bytes of one system call that are copied unless the settings say otherwise: heads always fit (servers refuse heads
/// beyond 8-16 KiB), and a table keeps no more of a body.
pub const CALL_BYTES_DEFAULT: u32 = 16 << 10;
/// Bytes copied in a run of calls of one direction; beyond, only [`RUN_TAIL_BYTES`] of each call are. A download then
/// does not flood the ring, while the next head, which starts a call after a turn of direction, is copied in full.
pub const RUN_BYTES_DEFAULT: u32 = 64 << 10;
/// See [`RUN_BYTES_DEFAULT`]: enough to see a head that begins a call.
pub const RUN_TAIL_BYTES: u32 = 256;
/// New bytes after which a connection's counts are reported at once.
pub const STATS_BYTES: u64 = 64 << 10;
/// Time after which, on activity, they are reported even if fewer.
pub const STATS_NS: u64 = 250_000_000;
/// Time after which a connection is told again when it speaks, for a reader that has let go of it meanwhile. A minute's
/// worth of rows without addresses would be many; 65,536 connections told in ten make a hundred records per second.
pub const RETELL_NS: u64 = 600_000_000_000;
/// Size of the event ring in bytes. 4 MiB lost nothing at saturation when woken at a quarter full; 8 MiB doubles the margin.
pub const RING_BYTES: u32 = 8 << 20;
/// The reader is woken once this much waits; otherwise it comes by itself (`READER_PERIOD_MS`).
pub const RING_WAKE_BYTES: u32 = 1 << 20;
/// How often the reader looks without being woken.
pub const READER_PERIOD_MS: u64 = 50;
/// CPUs for which counters are kept; events on a higher-numbered CPU are counted on the last. The largest machines that are
/// rented out have some 900; 128 bytes for each.
pub const CPUS_MAX: u32 = 1024;
/// Bytes of a file name or command kept in [`ProcExec`].
pub const FILENAME_MAX: usize = 256;
/// Length of a kernel task name.
pub const COMM_LEN: usize = 16;

/// Kind of a record: which struct follows the header's place.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Data`], then its payload.
    Data = 1,
    /// [`ConnOpen`]
    ConnOpen = 2,
    /// [`ConnClose`]
    ConnClose = 3,
    /// [`ConnStats`]
    ConnStats = 4,
    /// [`ProcExec`]
    ProcExec = 5,
    /// [`ProcExit`]
    ProcExit = 6,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub const fn from_u16(n: u16) -> Option<Self> {
        Some(match n {
            1 => Self::Data,
            2 => Self::ConnOpen,
            3 => Self::ConnClose,
            4 => Self::ConnStats,
            5 => Self::ProcExec,
            6 => Self::ProcExit,
            _ => return None,
        })
    }
}

/// First bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u16,
    /// CPU that wrote it (clamped to `CPUS_MAX - 1`).
    pub cpu: u16,
    /// Bytes of the record that are meaningful, header included; the ring's slot may be longer.
    pub len: u32,
    /// Counts every record this CPU wanted to write, written or dropped: a gap is a loss. An interrupt may come between
    /// taking a number and taking room in the ring, so a record may follow one with the next higher number.
    pub seq: u64,
    /// `CLOCK_BOOTTIME`, ns.
    pub time_ns: u64,
}

/// The process that acted, as the kernel saw it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// Thread-group id in the initial pid namespace.
    pub pid: u32,
    /// Padding that is always zero.
    pub zero: u32,
    /// `group_leader->start_boottime`, ns. Clock ticks of `/proc/PID/stat` are this divided by 10,000,000 (USER_HZ 100).
    pub start_ns: u64,
}

/// Direction of bytes, seen from the process.
pub mod direction {
    /// The process sent them.
    pub const SEND: u8 = 1;
    /// The process received them.
    pub const RECV: u8 = 2;
}

/// Protocol numbers as Pixie's scripts know them.
pub mod protocol {
    /// Not known (yet).
    pub const UNKNOWN: u8 = 0;
    /// HTTP/1.x
    pub const HTTP: u8 = 1;
    /// HTTP/2
    pub const HTTP2: u8 = 2;
}

/// Role of the traced process on a connection, numbered as Pixie's scripts know it.
pub mod role {
    /// It connected.
    pub const CLIENT: u8 = 1;
    /// It accepted.
    pub const SERVER: u8 = 2;
    /// Not known.
    pub const UNKNOWN: u8 = 4;
}

/// Bits of [`Data::flags`].
pub mod data_flags {
    /// Bytes were moved but could not be read here (sendfile, splice, a fault): `captured` is 0 for that part.
    pub const OPAQUE: u16 = 1;
    /// `pos` is exact (taken from the TCP sequence); otherwise it is our own running count.
    pub const POS_EXACT: u16 = 2;
    /// A further record of the same system call follows this one.
    pub const MORE: u16 = 4;
}

/// Bytes that crossed a traced connection in one system call (or a part of it), followed by `captured` payload bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Data {
    pub header: Header,
    pub process: Process,
    /// Which connection: unique on this machine since boot.
    pub conn_id: u64,
    /// Position of the first byte of this record in its direction's stream. With `POS_EXACT` a jump is bytes unseen.
    pub pos: u64,
    /// Bytes this record stands for (captured or not). The next record of the stream begins at `pos + total`.
    pub total: u32,
    /// Payload bytes that follow; they are the first of the `total`.
    pub captured: u32,
    /// [`direction`]
    pub direction: u8,
    /// [`protocol`], as inferred so far.
    pub protocol: u8,
    /// [`role`], as inferred so far.
    pub role: u8,
    pub zero: u8,
    /// [`data_flags`]
    pub flags: u16,
    pub zero2: u16,
}

/// One end of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// IPv6, or IPv4 in the first four bytes, in network order.
    pub addr: [u8; 16],
    /// Host order.
    pub port: u16,
    /// `AF_INET` 2, `AF_INET6` 10, `AF_UNIX` 1, 0 = not known.
    pub family: u16,
    pub zero: u32,
}

/// Bits of [`ConnOpen::flags`].
pub mod open_flags {
    /// It was open before we saw it; its first bytes and its counts until now are not known.
    pub const EXISTING: u16 = 1;
    /// It was told before, perhaps to a reader that is gone: to one that does not know it, its first bytes are not known, and
    /// its first [`ConnStats`](super::ConnStats) is where counting begins.
    pub const AGAIN: u16 = 2;
}

/// A connection was first seen, or changed what is known of it (role, owner), or is told again since there is another reader
/// (or may be, see [`RETELL_NS`]): the last one with a `conn_id` holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnOpen {
    pub header: Header,
    pub process: Process,
    pub conn_id: u64,
    pub local: Endpoint,
    pub remote: Endpoint,
    /// `IPPROTO_TCP` 6, `IPPROTO_UDP` 17, 0 for Unix sockets.
    pub transport: u8,
    /// [`role`]
    pub role: u8,
    /// [`protocol`]
    pub protocol: u8,
    pub zero: u8,
    /// [`open_flags`]
    pub flags: u16,
    pub zero2: u16,
    /// File descriptor where the hook knows it, else -1.
    pub fd: i32,
    /// Network namespace inode number, 0 = not known.
    pub netns: u32,
}

/// Byte counts of a connection so far. Written on activity once enough bytes or time have passed since the last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnStats {
    pub header: Header,
    pub process: Process,
    pub conn_id: u64,
    /// Since first seen.
    pub sent_bytes: u64,
    /// Since first seen.
    pub recv_bytes: u64,
    /// [`protocol`], as inferred so far.
    pub protocol: u8,
    /// [`role`]
    pub role: u8,
    pub zero: [u8; 6],
}

/// A connection ended. Its counts are final.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnClose {
    pub stats: ConnStats,
}

/// A process replaced its program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcExec {
    pub header: Header,
    pub process: Process,
    pub comm: [u8; COMM_LEN],
    /// Path as given to exec, cut at `FILENAME_MAX`, zero-terminated when shorter.
    pub filename: [u8; FILENAME_MAX],
}

/// A process ended: the last of its threads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcExit {
    pub header: Header,
    pub process: Process,
    /// Of its main thread.
    pub comm: [u8; COMM_LEN],
    /// As given to `exit`, 0-255.
    pub exit_code: u32,
    /// That killed it, or 0.
    pub signal: u32,
}

/// Slots of the counters each CPU keeps: index into [`CpuCounters::slots`].
pub mod counter {
    /// Records wanted (= the next `Header::seq` of that CPU).
    pub const RECORDS: usize = 0;
    /// Records lost for want of room in the ring.
    pub const LOST_RING_FULL: usize = 1;
    /// Payload that could not be read from the process (page not present, bad pointer).
    pub const LOST_FAULT: usize = 2;
    /// Connections not tracked since no state could be made for them.
    pub const LOST_NO_STATE: usize = 3;
    /// Bytes moved by calls whose payload is out of reach (sendfile, splice).
    pub const BYTES_OPAQUE: usize = 4;
    /// Bytes of traced messages beyond what one call may copy.
    pub const BYTES_OVER_CAP: usize = 5;
    /// Payload bytes lost with the records of `LOST_RING_FULL`.
    pub const LOST_RING_BYTES: usize = 6;
    /// Socket calls seen (the work of the hooks).
    pub const CALLS: usize = 7;
    /// Runs of our programs that the kernel left out since another ran already on that CPU. The kernel counts them, per
    /// program; who reads the counters puts their sum here, for the first CPU.
    pub const RUNS_SKIPPED: usize = 8;
    /// Number of slots; a multiple of 8 so that each CPU has whole cache lines.
    pub const SLOTS: usize = 16;
}

/// One element of the memory-mappable counter array, one element per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounters {
    /// By [`counter`].
    pub slots: [u64; counter::SLOTS],
}

/// Byte offsets of kernel struct members, found by the loader in this kernel's BTF and set as read-only globals before
/// loading (symbol `OFFSETS`), so that one object runs on every kernel. [`Offsets::ABSENT`] marks a member that this
/// kernel does not have.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `sock_common.skc_family`
    pub skc_family: u32,
    /// `sock_common.skc_dport`
    pub skc_dport: u32,
    /// `sock_common.skc_num`
    pub skc_num: u32,
    /// `inet_sock.inet_sport`
    pub inet_sport: u32,
    /// `sock_common.skc_daddr`
    pub skc_daddr: u32,
    /// `sock_common.skc_rcv_saddr`
    pub skc_rcv_saddr: u32,
    /// `sock_common.skc_v6_daddr`
    pub skc_v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`
    pub skc_v6_rcv_saddr: u32,
    /// `sock_common.skc_net.net`
    pub skc_net: u32,
    /// `sock_common.skc_state`
    pub skc_state: u32,
    /// `sock.sk_protocol`
    pub sk_protocol: u32,
    /// `sock.sk_socket`
    pub sk_socket: u32,
    /// `sock.sk_shutdown`
    pub sk_shutdown: u32,
    /// `inet_connection_sock.icsk_ulp_ops`
    pub icsk_ulp_ops: u32,
    /// `tcp_sock.copied_seq`
    pub tcp_copied_seq: u32,
    /// `tcp_sock.write_seq`
    pub tcp_write_seq: u32,
    /// `tcp_sock.rcv_nxt`
    pub tcp_rcv_nxt: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `socket.file`
    pub socket_file: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `file.private_data`
    pub file_private_data: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.start_boottime` (before 5.5 `real_start_time`)
    pub task_start_boottime: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.flags`
    pub task_flags: u32,
    /// `task_struct.exit_code`
    pub task_exit_code: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.max_fds`
    pub fdtable_max_fds: u32,
    /// `fdtable.fd`
    pub fdtable_fd: u32,
    /// `linux_binprm.filename`
    pub bprm_filename: u32,
    /// `pt_regs` member with the system call's number.
    pub regs_nr: u32,
    /// `pt_regs.cs` on x86-64 (tells 32-bit callers), else absent.
    pub regs_cs: u32,
    /// `pt_regs` members with the first six arguments of a system call.
    pub regs_args: [u32; 6],
}

impl Offsets {
    /// This kernel has no such member; code that needs it takes its other way.
    pub const ABSENT: u32 = u32::MAX;
}

/// Numbers of the system calls that move bytes, on this architecture (symbol `CALLS`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub read: u32,
    pub write: u32,
    pub readv: u32,
    pub writev: u32,
    pub recvfrom: u32,
    pub sendto: u32,
    pub recvmsg: u32,
    pub sendmsg: u32,
    pub sendfile: u32,
    pub connect: u32,
}

/// What the loader decides (symbol `SETTINGS`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// [`ABI_VERSION`] of the loader.
    pub abi_version: u32,
    /// Bit `1 << protocol` for each protocol whose payload is wanted.
    pub protocols: u32,
    /// Most bytes of one call that are copied, at most `DATA_MAX * DATA_RECORDS_PER_CALL`.
    pub call_bytes: u32,
    /// See [`RUN_BYTES_DEFAULT`].
    pub run_bytes: u32,
    /// The reader is woken once more than this many bytes wait in the ring.
    pub wake_bytes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            abi_version: ABI_VERSION,
            protocols: 1 << protocol::HTTP,
            call_bytes: CALL_BYTES_DEFAULT,
            run_bytes: RUN_BYTES_DEFAULT,
            wake_bytes: RING_WAKE_BYTES,
        }
    }
}

const _: () = {
    assert!(size_of::<Offsets>() == 44 * 4);
    assert!(size_of::<Calls>() == 40);
    assert!(size_of::<Settings>() == 20);
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<Process>() == 16);
    assert!(size_of::<Data>() == 24 + 16 + 8 + 8 + 4 + 4 + 8);
    assert!(size_of::<Endpoint>() == 24);
    assert!(size_of::<ConnOpen>() == 24 + 16 + 8 + 48 + 8 + 8);
    assert!(size_of::<ConnStats>() == 24 + 16 + 8 + 16 + 8);
    assert!(size_of::<ConnClose>() == size_of::<ConnStats>());
    assert!(size_of::<ProcExec>() == 24 + 16 + 16 + 256);
    assert!(size_of::<ProcExit>() == 24 + 16 + 16 + 8);
    assert!(size_of::<CpuCounters>() == 128);
};

/// Structs of integers without padding: they may be read as bytes, and bytes of the right number as them.
///
/// # Safety
/// `repr(C)`, no padding, every bit pattern valid.
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($name:ty),* $(,)?) => {
        // SAFETY: each is `repr(C)`, of integers alone, and its size is asserted above to be the sum of its members.
        $(unsafe impl Plain for $name {})*
    };
}

plain!(
    Header,
    Process,
    Data,
    Endpoint,
    ConnOpen,
    ConnStats,
    ConnClose,
    ProcExec,
    ProcExit,
    CpuCounters,
    Offsets,
    Calls,
    Settings
);
