//! What is kept of a connection, in the socket (tier 1) or in a table by socket (the others).

use aya_ebpf::{
    btf_maps::{LruHashMap, SkStorage},
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_storage_get, bpf_skc_to_tcp_sock},
    macros::btf_map,
};
use ebpf_abi::{Process, RETELL_NS};

use crate::{
    counters::{self, Atomic, Numbering, Plain},
    emit::now_ns,
    kernel::{Access, Probed, Typed},
    reader, syscalls,
};

/// Connections kept by the tiers that need a table. 64 Ki of 150 bytes are 10 MiB; beyond, the least recently used is
/// forgotten and, when it speaks again, seen as one that existed before.
const CONNS_MAX: usize = 64 << 10;

/// One direction of a connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stream {
    /// Position of the next byte.
    pub pos: u64,
    /// TCP sequence number of the next byte, if `flags::SEND_KNOWN` or `RECV_KNOWN`.
    pub seq: u32,
    /// Payload bytes copied since the other direction last spoke.
    pub run: u32,
}

/// State of a connection. All zero is "just made, nothing known".
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Conn {
    /// 0 until given.
    pub id: u64,
    pub owner: Process,
    pub send: Stream,
    pub recv: Stream,
    pub sent_bytes: u64,
    pub recv_bytes: u64,
    /// Sum of both when last reported.
    pub reported_bytes: u64,
    pub reported_ns: u64,
    /// When `ConnOpen` was last written; 0 = never.
    pub told_ns: u64,
    /// First bytes of a receive or send that were too few to tell the protocol, first byte lowest.
    pub held: u64,
    /// Bytes of `held`, and the direction they went.
    pub held_count: u8,
    pub held_direction: u8,
    pub protocol: u8,
    pub role: u8,
    /// [`flags`]
    pub flags: u16,
    /// Calls looked at without telling the protocol, saturating.
    pub looks: u16,
    /// Which use of the socket this is: a socket can connect again.
    pub generation: u16,
    /// Times the owner changed, saturating.
    pub moves: u16,
    /// The owner's number for it that was looked up and found to be this socket, or -1.
    pub fd: i32,
}

impl Conn {
    /// Whether the reader has not been told of it, or not lately, or not what is known by now.
    #[inline(always)]
    pub fn untold(&self, now: u64) -> bool {
        self.flags & flags::CHANGED != 0 || self.told_ns < reader::since() || self.told_ns + RETELL_NS <= now
    }
}

/// Bits of [`Conn::flags`].
pub mod flags {
    /// Not traced: of an ignored process, or of the kernel itself.
    pub const IGNORED: u16 = 1;
    /// It was open before we saw it.
    pub const EXISTING: u16 = 2;
    /// `ConnClose` was written: there is no more to come.
    pub const ENDED: u16 = 4;
    /// What `ConnOpen` told is no longer all that is known.
    pub const CHANGED: u16 = 8;
    /// The connection was made (SYN and its answer passed).
    pub const ESTABLISHED: u16 = 16;
    /// TCP has ended it; only bytes that were still waiting come now.
    pub const CLOSED: u16 = 32;
    /// The position of the send direction follows the TCP sequence.
    pub const SEND_KNOWN: u16 = 64;
    /// The same for the receive direction.
    pub const RECV_KNOWN: u16 = 128;
    /// Bytes on the wire are not the program's bytes (kernel TLS): sequence numbers tell nothing.
    pub const LAYERED: u16 = 256;
    /// It went over to another protocol (WebSocket): payload is no longer wanted.
    pub const SWITCHED: u16 = 512;
}

#[btf_map]
static SOCKETS: SkStorage<Conn> = SkStorage::new();

#[btf_map]
static CONNS: LruHashMap<u64, Conn, CONNS_MAX> = LruHashMap::new();

const BPF_SK_STORAGE_GET_F_CREATE: u64 = 1;

/// How a tier finds sockets and their state.
pub trait Tier {
    type Access: Access;
    type Numbering: Numbering;

    /// The state of this socket's connection, if there is one.
    fn find(sk: *const u8) -> Option<*mut Conn>;
    /// The same; made (zeroed) if there is none.
    fn find_or_make(sk: *const u8) -> Option<*mut Conn>;
    /// Lets the state go, where it does not go with the socket.
    fn forget(sk: *const u8);
    /// A number for a new connection.
    fn fresh_id(sk: *const u8, generation: u16) -> u64;
    /// The `tcp_sock` of this socket, or null.
    fn tcp(sk: *const u8) -> *const u8;
    /// Whether the running call, whose first argument is `fd`, is one on this socket. Not so for work that the kernel does
    /// in the name of io_uring on the way out of some other call.
    fn is_called(sk: *const u8, task: *const u8, fd: i32) -> bool;
}

/// State in the socket itself, which the kernel frees with it.
pub struct InSocket;

/// State in a table by the socket's address.
pub struct InTable;

impl Tier for InSocket {
    type Access = Typed;
    type Numbering = Atomic;

    #[inline(always)]
    fn find(sk: *const u8) -> Option<*mut Conn> {
        // SAFETY: the verifier checks that `sk` is a socket of the kernel's.
        let conn = unsafe {
            bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sk.cast_mut().cast(), core::ptr::null_mut(), 0)
        };
        if conn.is_null() { None } else { Some(conn.cast()) }
    }

    #[inline(always)]
    fn find_or_make(sk: *const u8) -> Option<*mut Conn> {
        // SAFETY: as above.
        let conn = unsafe {
            bpf_sk_storage_get(
                (&raw const SOCKETS).cast_mut().cast(),
                sk.cast_mut().cast(),
                core::ptr::null_mut(),
                BPF_SK_STORAGE_GET_F_CREATE,
            )
        };
        if conn.is_null() { None } else { Some(conn.cast()) }
    }

    #[inline(always)]
    fn forget(_: *const u8) {}

    #[inline(always)]
    fn fresh_id(sk: *const u8, generation: u16) -> u64 {
        // Cookies count sockets since boot; the top bits are free to tell the uses of one socket apart.
        // SAFETY: the verifier checks that `sk` is a socket.
        unsafe { bpf_get_socket_cookie(sk.cast_mut().cast()) | (generation as u64) << 48 }
    }

    #[inline(always)]
    fn tcp(sk: *const u8) -> *const u8 {
        // SAFETY: as above; null when it is no full TCP socket.
        unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast()) as *const u8 }
    }

    #[inline(always)]
    fn is_called(sk: *const u8, task: *const u8, fd: i32) -> bool {
        syscalls::is_open_at(task, fd as u32 as u64, sk)
    }
}

/// What a new table entry starts as; in a map section so that it is not built on the stack each time.
pub static BLANK: Conn = Conn {
    id: 0,
    owner: Process { pid: 0, zero: 0, start_ns: 0 },
    send: Stream { pos: 0, seq: 0, run: 0 },
    recv: Stream { pos: 0, seq: 0, run: 0 },
    sent_bytes: 0,
    recv_bytes: 0,
    reported_bytes: 0,
    reported_ns: 0,
    told_ns: 0,
    held: 0,
    held_count: 0,
    held_direction: 0,
    protocol: 0,
    role: 0,
    flags: 0,
    looks: 0,
    generation: 0,
    moves: 0,
    fd: 0,
};

impl Tier for InTable {
    type Access = Probed;
    type Numbering = Plain;

    #[inline(always)]
    fn find(sk: *const u8) -> Option<*mut Conn> {
        CONNS.get_ptr_mut(sk as u64)
    }

    #[inline(always)]
    fn find_or_make(sk: *const u8) -> Option<*mut Conn> {
        let key = sk as u64;
        if let Some(conn) = CONNS.get_ptr_mut(key) {
            return Some(conn);
        }
        let _ = CONNS.insert(key, &BLANK, 1 /* BPF_NOEXIST */);
        CONNS.get_ptr_mut(key)
    }

    #[inline(always)]
    fn forget(sk: *const u8) {
        let _ = CONNS.remove(sk as u64);
    }

    #[inline(always)]
    fn fresh_id(_: *const u8, _: u16) -> u64 {
        // Unique since one CPU makes one per nanosecond at most; the top bit keeps it apart from cookies.
        1 << 63 | now_ns() << 8 & !(1 << 63) | counters::cpu() as u64 & 0xff
    }

    #[inline(always)]
    fn tcp(sk: *const u8) -> *const u8 {
        sk
    }

    #[inline(always)]
    fn is_called(_: *const u8, _: *const u8, _: i32) -> bool {
        // The socket was found by this number.
        true
    }
}
