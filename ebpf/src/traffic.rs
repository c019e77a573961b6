//! What every tier does with a socket call that moved bytes.

use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;
use ebpf_abi::{STATS_BYTES, STATS_NS, counter, direction, protocol, role};

use crate::{
    call::{Args, Source},
    conn::{Conn, Tier, flags},
    counters, emit,
    globals::{offset, setting},
    kernel::Access,
    look, payload,
    place::{place, unread},
    process, reader, state, tell,
};

/// Changes of owner that are told; a socket that two processes use in turn would tell one per call.
const MOVES_TOLD: u16 = 8;

/// A socket call has returned.
#[derive(Clone, Copy)]
pub struct Moved {
    pub sk: *const u8,
    /// What it returned: bytes, or a negative error.
    pub result: i64,
}

/// Entry of every tier.
#[inline(always)]
pub fn moved<T: Tier, const DIRECTION: u8>(call: Moved, args: &impl Args, task: *const u8) {
    counters::add(counter::CALLS, 1);
    let found = if call.result > 0 { T::find_or_make(call.sk) } else { T::find(call.sk) };
    let Some(conn) = found else {
        if call.result > 0 {
            counters::add(counter::LOST_NO_STATE, 1);
        }
        return;
    };
    // SAFETY: checked by the verifier. Two threads on one socket may both be here; each field is written whole and a
    // lost update costs a count or a repeated look, never more.
    let conn = unsafe { &mut *conn };
    if conn.flags & (flags::IGNORED | flags::ENDED) != 0 {
        return;
    }
    if conn.id == 0 {
        if call.result <= 0 {
            // It is still being connected, and may never be.
            return;
        }
        conn.id = T::fresh_id(call.sk, conn.generation);
        if conn.role != role::CLIENT {
            conn.flags |= flags::EXISTING;
        }
        conn.reported_ns = emit::now_ns();
    }
    if !adopt::<T>(conn, call.sk, task) {
        return;
    }
    if call.result <= 0 {
        if conn.told_ns < reader::since() {
            tell::known::<T::Numbering>(conn, call.sk, emit::now_ns());
        }
        return;
    }
    bytes::<T, DIRECTION>(conn, call, args, task);
}

/// Notes who uses the connection; false if it is not to be traced.
#[inline(always)]
pub fn adopt<T: Tier>(conn: &mut Conn, sk: *const u8, task: *const u8) -> bool {
    // SAFETY: takes nothing.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    if conn.owner.pid == pid {
        return true;
    }
    if process::ignored(pid) || is_kernels::<T>(sk) {
        conn.flags |= flags::IGNORED;
        return false;
    }
    if conn.owner.pid != 0 && conn.moves < MOVES_TOLD {
        conn.moves += 1;
        conn.flags |= flags::CHANGED;
    }
    conn.owner = process::of_current::<T::Access>(task);
    conn.fd = -1;
    true
}

/// A socket without a file is the kernel's own (NFS, a block device): the running call's buffers are not its bytes.
#[inline(always)]
fn is_kernels<T: Tier>(sk: *const u8) -> bool {
    // SAFETY: `sk` is a socket; both members are pointers.
    unsafe {
        let socket: *const u8 = T::Access::load(sk, offset!(sk_socket));
        if socket.is_null() {
            return true;
        }
        let file: *const u8 = T::Access::load(socket, offset!(socket_file));
        file.is_null()
    }
}

#[inline(always)]
fn bytes<T: Tier, const DIRECTION: u8>(conn: &mut Conn, call: Moved, args: &impl Args, task: *const u8) {
    let now = emit::now_ns();
    let total = if call.result > i32::MAX as i64 { i32::MAX as u32 } else { call.result as u32 };
    let place = place::<T, DIRECTION>(conn, call.sk, total);

    if place.grown > total as u64 {
        counters::add(counter::BYTES_OPAQUE, place.grown - total as u64);
    }

    let mut source = Source::of::<DIRECTION>(args);
    let fd = args.get(0) as i32;
    if source.reachable && fd != conn.fd {
        source.reachable = T::is_called(call.sk, task, fd);
        if source.reachable {
            conn.fd = fd;
        }
    }
    let mut held = 0;
    if conn.protocol == protocol::UNKNOWN {
        held = look::infer::<DIRECTION>(conn, &source, total);
    }
    let wanted = setting!(protocols) >> conn.protocol & 1 != 0 && conn.protocol != protocol::UNKNOWN;
    if conn.untold(now) {
        tell::known::<T::Numbering>(conn, call.sk, now);
    }
    let (count, other) = if DIRECTION == direction::SEND {
        (&mut conn.sent_bytes, &mut conn.recv)
    } else {
        (&mut conn.recv_bytes, &mut conn.send)
    };
    *count += place.grown;
    other.run = 0;
    if wanted && conn.flags & flags::SWITCHED == 0 {
        payload::copy::<T::Numbering, DIRECTION>(conn, &source, total, &place, held, now);
    }
    if conn.flags & flags::CLOSED != 0 {
        if DIRECTION == direction::RECV && !unread::<T>(call.sk) {
            state::end::<T>(conn, call.sk, now);
            T::forget(call.sk);
        }
        return;
    }
    let sum = conn.sent_bytes + conn.recv_bytes;
    if sum - conn.reported_bytes >= STATS_BYTES || now - conn.reported_ns >= STATS_NS {
        tell::report::<T::Numbering>(conn, now);
    }
}
