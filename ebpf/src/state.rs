//! Opening and closing, from `inet_sock_set_state` and `tcp_destroy_sock`.
//!
//! A connection that TCP has ended is told as ended when nothing waits to be read any more: of one that was shut down on one
//! side, or reset, the program may go on reading what came before. If it never does, the end of the socket is the end.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use ebpf_abi::role;

use crate::{
    call,
    conn::{BLANK, Conn, InSocket, InTable, Tier, flags},
    emit,
    globals::offset,
    kernel::Access,
    place, process, tell, traffic,
};

const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_SYN_RECV: i32 = 3;
const TCP_FIN_WAIT1: i32 = 4;
const TCP_CLOSE: i32 = 7;
const TCP_LAST_ACK: i32 = 9;

/// Tier 1: opening, closing, role. Kernel 5.11 (socket storage in tracing programs).
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn socket_state(ctx: BtfTracePointContext) -> i32 {
    changed::<InSocket>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// Tiers 2 and 3: the same, with the state in a table. Kernel 5.8.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn call_state(ctx: BtfTracePointContext) -> i32 {
    changed::<InTable>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// Tier 1: `tcp_destroy_sock(sk)`
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn socket_end(ctx: BtfTracePointContext) -> i32 {
    destroyed::<InSocket>(ctx.arg(0));
    0
}

/// Tiers 2 and 3.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn call_end(ctx: BtfTracePointContext) -> i32 {
    destroyed::<InTable>(ctx.arg(0));
    0
}

#[inline(always)]
fn changed<T: Tier>(sk: *const u8, from: i32, to: i32) {
    // SAFETY: `sk` is a socket.
    if unsafe { T::Access::load::<u16>(sk, offset!(sk_protocol)) } != tell::IPPROTO_TCP {
        return;
    }
    match to {
        TCP_SYN_SENT => connecting::<T>(sk),
        TCP_ESTABLISHED if from == TCP_SYN_SENT || from == TCP_SYN_RECV => established::<T>(sk, from == TCP_SYN_RECV),
        TCP_FIN_WAIT1 | TCP_LAST_ACK => leaving::<T>(sk),
        TCP_CLOSE => closed::<T>(sk),
        _ => {}
    }
}

/// `connect`, in the process that calls it.
#[inline(always)]
fn connecting<T: Tier>(sk: *const u8) {
    let Some(conn) = T::find_or_make(sk) else { return };
    // SAFETY: checked by the verifier.
    let conn = unsafe { &mut *conn };
    if conn.id != 0 || conn.flags != 0 {
        renew(conn);
    }
    conn.role = role::CLIENT;
    traffic::adopt::<T>(conn, sk, T::Access::task());
}

/// Another use of the same place.
#[inline(always)]
fn renew(conn: &mut Conn) {
    let generation = conn.generation.wrapping_add(1);
    // SAFETY: a plain copy.
    *conn = unsafe { (&raw const BLANK).read() };
    conn.generation = generation;
}

/// Both ends agreed; for a server this is in an interrupt, and nobody has the socket yet.
#[inline(always)]
fn established<T: Tier>(sk: *const u8, accepted: bool) {
    let Some(conn) = T::find_or_make(sk) else { return };
    // SAFETY: checked by the verifier.
    let conn = unsafe { &mut *conn };
    if accepted && conn.flags & (flags::ESTABLISHED | flags::CLOSED) != 0 {
        // Of a socket that lay here before and whose end was not seen.
        renew(conn);
    }
    if conn.flags & flags::IGNORED != 0 {
        return;
    }
    let now = emit::now_ns();
    if conn.id == 0 {
        conn.id = T::fresh_id(sk, conn.generation);
        conn.reported_ns = now;
    }
    conn.flags |= flags::ESTABLISHED;
    place::begin::<T>(conn, sk);
    if conn.role == role::CLIENT {
        if conn.told_ns == 0 {
            tell::known::<T::Numbering>(conn, sk, now);
        }
    } else {
        // Told at the first call on it, which shows whose it is.
        conn.role = role::SERVER;
        conn.fd = -1;
    }
}

/// `close` or `shutdown`, in the process that calls it: of a connection on which nothing was called before this shows whose
/// it is.
#[inline(always)]
fn leaving<T: Tier>(sk: *const u8) {
    let Some(conn) = T::find(sk) else { return };
    // SAFETY: checked by the verifier.
    let conn = unsafe { &mut *conn };
    if conn.owner.pid == 0 && conn.flags & flags::IGNORED == 0 {
        traffic::adopt::<T>(conn, sk, T::Access::task());
    }
}

#[inline(always)]
fn closed<T: Tier>(sk: *const u8) {
    let Some(conn) = T::find(sk) else { return };
    // SAFETY: checked by the verifier.
    let conn = unsafe { &mut *conn };
    // One that has no number never was a connection.
    if conn.flags & (flags::IGNORED | flags::ENDED) == 0 && conn.id != 0 {
        conn.flags |= flags::CLOSED;
        if conn.owner.pid == 0 || place::unread::<T>(sk) {
            return;
        }
        end::<T>(conn, sk, emit::now_ns());
    }
    T::forget(sk);
}

/// Tells that nothing more will come.
#[inline(always)]
pub fn end<T: Tier>(conn: &mut Conn, sk: *const u8, now: u64) {
    if conn.untold(now) {
        tell::known::<T::Numbering>(conn, sk, now);
    }
    place::last_bytes::<T>(conn, sk);
    tell::close::<T::Numbering>(conn, now);
    conn.flags |= flags::CLOSED | flags::ENDED;
}

/// The socket goes: if its connection is not told as ended by now, it is here, in the process that closes it if it was left
/// unread, or if nothing was ever called on it.
#[inline(always)]
fn destroyed<T: Tier>(sk: *const u8) {
    let Some(conn) = T::find(sk) else { return };
    // SAFETY: checked by the verifier.
    let conn = unsafe { &mut *conn };
    if conn.flags & (flags::IGNORED | flags::ENDED) == 0 && conn.id != 0 {
        let task = T::Access::task();
        // SAFETY: `task` is the current task.
        if conn.owner.pid == 0 && unsafe { T::Access::load::<u32>(task, offset!(task_flags)) } & call::FOREIGN_TASK == 0
        {
            let owner = process::of_current::<T::Access>(task);
            if process::ignored(owner.pid) {
                conn.flags |= flags::IGNORED;
            }
            conn.owner = owner;
        }
        if conn.flags & flags::IGNORED == 0 {
            end::<T>(conn, sk, emit::now_ns());
        }
    }
    T::forget(sk);
}
