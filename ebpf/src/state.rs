//! Opening and closing, from `inet_sock_set_state`.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use ebpf_abi::role;

use crate::{
    conn::{BLANK, InSocket, InTable, Tier, flags},
    emit,
    globals::offset,
    kernel::Access,
    place, tell, traffic,
};

const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_SYN_RECV: i32 = 3;
const TCP_CLOSE: i32 = 7;

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

#[inline(always)]
fn changed<T: Tier>(sk: *const u8, from: i32, to: i32) {
    // SAFETY: `sk` is a socket.
    if unsafe { T::Access::load::<u16>(sk, offset!(sk_protocol)) } != tell::IPPROTO_TCP {
        return;
    }
    match to {
        TCP_SYN_SENT => connecting::<T>(sk),
        TCP_ESTABLISHED if from == TCP_SYN_SENT || from == TCP_SYN_RECV => established::<T>(sk),
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
        let generation = conn.generation.wrapping_add(1);
        // SAFETY: a plain copy.
        *conn = unsafe { (&raw const BLANK).read() };
        conn.generation = generation;
    }
    conn.role = role::CLIENT;
    traffic::adopt::<T>(conn, sk, T::Access::task(), -1);
}

/// Both ends agreed; for a server this is in an interrupt, and nobody has the socket yet.
#[inline(always)]
fn established<T: Tier>(sk: *const u8) {
    let Some(conn) = T::find_or_make(sk) else { return };
    // SAFETY: checked by the verifier.
    let conn = unsafe { &mut *conn };
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
        if conn.flags & flags::OPENED == 0 {
            tell::open::<T::Numbering>(conn, sk, now);
        }
    } else {
        // Told at the first call on it, which shows whose it is.
        conn.role = role::SERVER;
        conn.fd = -1;
    }
}

#[inline(always)]
fn closed<T: Tier>(sk: *const u8) {
    let Some(conn) = T::find(sk) else { return };
    // SAFETY: checked by the verifier.
    let conn = unsafe { &mut *conn };
    if conn.flags & (flags::IGNORED | flags::CLOSED) == 0 && conn.flags & (flags::ESTABLISHED | flags::EXISTING) != 0 {
        let now = emit::now_ns();
        if conn.flags & flags::OPENED == 0 {
            tell::open::<T::Numbering>(conn, sk, now);
        }
        place::last_bytes::<T>(conn, sk);
        tell::close::<T::Numbering>(conn, now);
        conn.flags |= flags::CLOSED;
    }
    T::forget(sk);
}
