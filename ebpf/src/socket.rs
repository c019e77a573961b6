//! Tier 1: the kernel's own tracepoints behind every socket call. Kernel 6.3.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use ebpf_abi::direction;

use crate::{
    call::Saved,
    conn::InSocket,
    globals::offset,
    kernel::{Access, Typed},
    tell::{AF_INET, AF_INET6, IPPROTO_TCP},
    traffic::{self, Moved},
};

/// The bytes stay in the socket's queue, and will come again.
const MSG_PEEK: i32 = 2;
/// TCP drops the bytes instead of copying them.
const MSG_TRUNC: i32 = 0x20;
/// Time stamps and errors, not the stream.
const MSG_ERRQUEUE: i32 = 0x2000;

/// Whether this is a TCP socket; all others leave here, after two loads.
#[inline(always)]
fn traced(sk: *const u8) -> bool {
    // SAFETY: `sk` is a socket by the tracepoint's type.
    let (family, protocol): (u16, u16) =
        unsafe { (Typed::load(sk, offset!(skc_family)), Typed::load(sk, offset!(sk_protocol))) };
    protocol == IPPROTO_TCP && (family == AF_INET || family == AF_INET6)
}

/// `sock_recv_length(sk, ret, flags)`
#[btf_tracepoint(function = "sock_recv_length")]
pub fn socket_recv(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    let flags: i32 = ctx.arg(2);
    if !traced(sk) || flags & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
        return 0;
    }
    let result: i32 = ctx.arg(1);
    let task = Typed::task();
    let mut args = Saved::<Typed>::of_current(task);
    if flags & MSG_TRUNC != 0 {
        args.distrust();
    }
    traffic::moved::<InSocket, { direction::RECV }>(Moved { sk, result: result as i64 }, &args, task);
    0
}

/// `sock_send_length(sk, ret, flags)`
#[btf_tracepoint(function = "sock_send_length")]
pub fn socket_send(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    if !traced(sk) {
        return 0;
    }
    let result: i32 = ctx.arg(1);
    let task = Typed::task();
    let args = Saved::<Typed>::of_current(task);
    traffic::moved::<InSocket, { direction::SEND }>(Moved { sk, result: result as i64 }, &args, task);
    0
}
