//! Going through all open files from time to time, run by the helper.
//!
//! It finds the connections that were there before us, with their owners, and tells the last bytes of those that have
//! fallen silent, which reports on activity alone would keep until they speak again. Kernel 5.11.

use aya_ebpf::helpers::generated::bpf_sock_from_file;
use ebpf_abi::Process;

use crate::{
    conn::{InSocket, InTable, Tier, flags},
    emit,
    globals::offset,
    kernel::{Access, Probed, Typed},
    place, process, syscalls,
    tell::{self, AF_INET, AF_INET6, IPPROTO_TCP},
};

/// `struct bpf_iter__task_file`
#[repr(C)]
pub struct TaskFile {
    meta: u64,
    task: *const u8,
    fd: u32,
    file: *const u8,
}

/// States in which bytes may have moved or may yet: all but those of opening, listening and the end.
const TCP_ESTABLISHED: u8 = 1;
const TCP_FIN_WAIT1: u8 = 4;
const TCP_FIN_WAIT2: u8 = 5;
const TCP_CLOSE_WAIT: u8 = 8;

/// Tier 1.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn socket_survey(ctx: *mut TaskFile) -> i32 {
    // SAFETY: the context of this kind of program; its pointers are null at the end of the walk.
    let (task, fd, file) = unsafe { ((*ctx).task, (*ctx).fd, (*ctx).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: `file` is a file; the result is checked.
    let sk: *const u8 = unsafe {
        let socket = bpf_sock_from_file(file.cast_mut().cast()) as *const u8;
        if socket.is_null() {
            return 0;
        }
        Typed::load(socket, offset!(socket_sk))
    };
    if !sk.is_null() {
        look_at::<InSocket>(sk, task, fd);
    }
    0
}

/// Tiers 2 and 3.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn call_survey(ctx: *mut TaskFile) -> i32 {
    // SAFETY: as above.
    let (task, fd, file) = unsafe { ((*ctx).task, (*ctx).fd, (*ctx).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    let sk = syscalls::socket_of(file);
    if !sk.is_null() {
        look_at::<InTable>(sk, task, fd);
    }
    0
}

#[inline(always)]
fn look_at<T: Tier>(sk: *const u8, task: *const u8, fd: u32) {
    // SAFETY: `Probed` survives any address.
    let (family, protocol, state): (u16, u16, u8) = unsafe {
        (
            Probed::load(sk, offset!(skc_family)),
            Probed::load(sk, offset!(sk_protocol)),
            Probed::load(sk, offset!(skc_state)),
        )
    };
    if protocol != IPPROTO_TCP
        || (family != AF_INET && family != AF_INET6)
        || !matches!(state, TCP_ESTABLISHED | TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_CLOSE_WAIT)
    {
        return;
    }
    let Some(conn) = T::find_or_make(sk) else { return };
    // SAFETY: checked by the verifier.
    let conn = unsafe { &mut *conn };
    if conn.flags & (flags::IGNORED | flags::CLOSED) != 0 {
        return;
    }
    let now = emit::now_ns();
    if conn.id == 0 {
        conn.id = T::fresh_id(sk, conn.generation);
        conn.flags |= flags::EXISTING;
        conn.reported_ns = now;
        place::begin::<T>(conn, sk);
    }
    if conn.owner.pid == 0 {
        let owner: Process = process::process_of(task);
        if process::ignored(owner.pid) {
            conn.flags |= flags::IGNORED;
            return;
        }
        conn.owner = owner;
        conn.fd = fd as i32;
    }
    // Telling all of a large machine again would fill the ring of a reader who is away: the rest is told by the walks after
    // this one, or when it speaks.
    if conn.told_ns == 0 || conn.untold(now) && !emit::filling_up() {
        tell::known::<T::Numbering>(conn, sk, now);
    }
    if conn.sent_bytes + conn.recv_bytes != conn.reported_bytes {
        tell::report::<T::Numbering>(conn, now);
    }
}
