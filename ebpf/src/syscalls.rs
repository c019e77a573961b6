//! Tiers 2 and 3: socket calls seen as system calls, where the socket's own tracepoints are missing.
//!
//! The socket is found by way of the caller's table of open files. `splice`, `recvmmsg`, `sendmmsg` and io_uring are not
//! hooked: what they move shows as a jump of the TCP sequence at the next call, and is counted.

use aya_ebpf::{
    btf_maps::LruHashMap,
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{btf_map, btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use ebpf_abi::direction;

use crate::{
    call::{Args, Saved},
    conn::InTable,
    globals::{number, offset},
    kernel::{Access, Probed, Typed},
    tell::{AF_INET, AF_INET6, IPPROTO_TCP},
    traffic::{self, Moved},
};

/// Threads that can be inside a hooked call at once; the oldest gives way.
const THREADS_MAX: usize = 16 << 10;
const MSG_PEEK: u64 = 2;
const MSG_TRUNC: u64 = 0x20;
const MSG_ERRQUEUE: u64 = 0x2000;
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// Arguments of the call a thread is in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Entered {
    number: u64,
    args: [u64; 4],
}

#[btf_map]
static ENTERED: LruHashMap<u64, Entered, THREADS_MAX> = LruHashMap::new();

impl Args for Entered {
    #[inline(always)]
    fn number(&self) -> u32 {
        self.number as u32
    }

    #[inline(always)]
    fn get(&self, index: usize) -> u64 {
        self.args[index]
    }
}

/// Tier 2: `sys_exit(regs, ret)`. Kernel 5.11 (`bpf_get_current_task_btf`).
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: *const u8 = ctx.arg(0);
    let result: i64 = ctx.arg(1);
    let task = Typed::task();
    let args = Saved::<Typed>::at(task, regs);
    returned(&args, result);
    0
}

/// Tier 3: attached to `sys_enter_*` of each call. Kernel 5.8.
#[tracepoint]
pub fn call_enter(ctx: TracePointContext) -> i32 {
    // The format of `syscalls:sys_enter_*`: eight bytes common, the number in eight, the arguments.
    // SAFETY: within the tracepoint's record.
    unsafe {
        let Ok(number) = ctx.read_at::<i32>(8) else { return 0 };
        let Ok(args) = ctx.read_at::<[u64; 4]>(16) else { return 0 };
        let thread = bpf_get_current_pid_tgid();
        let _ = ENTERED.insert(thread, &Entered { number: number as u64, args }, 0);
    }
    0
}

/// Tier 3: attached to `sys_exit_*` of each call.
#[tracepoint]
pub fn call_exit(ctx: TracePointContext) -> i32 {
    // SAFETY: takes nothing; within the tracepoint's record.
    let (thread, result) = unsafe { (bpf_get_current_pid_tgid(), ctx.read_at::<i64>(16)) };
    let Ok(result) = result else { return 0 };
    let Some(entered) = ENTERED.get_ptr(thread) else { return 0 };
    // SAFETY: checked by the verifier; only this thread writes its entry.
    let entered = unsafe { *entered };
    let _ = ENTERED.remove(thread);
    returned(&entered, result);
    0
}

#[inline(always)]
fn returned(args: &impl Args, result: i64) {
    let number = args.number();
    let receives = if number == number!(read) || number == number!(readv) {
        true
    } else if number == number!(recvfrom) {
        if args.get(3) & (MSG_PEEK | MSG_ERRQUEUE | MSG_TRUNC) != 0 {
            return;
        }
        true
    } else if number == number!(recvmsg) {
        if args.get(2) & (MSG_PEEK | MSG_ERRQUEUE | MSG_TRUNC) != 0 {
            return;
        }
        true
    } else if number == number!(write)
        || number == number!(writev)
        || number == number!(sendto)
        || number == number!(sendmsg)
        || number == number!(sendfile)
    {
        false
    } else {
        return;
    };
    let task = Probed::task();
    let sk = socket(task, args.get(0));
    if sk.is_null() {
        return;
    }
    let call = Moved { sk, result };
    if receives {
        traffic::moved::<InTable, { direction::RECV }>(call, args, task);
    } else {
        traffic::moved::<InTable, { direction::SEND }>(call, args, task);
    }
}

/// The TCP socket that is open at this number in the current process, or null.
#[inline(always)]
fn socket(task: *const u8, fd: u64) -> *const u8 {
    // SAFETY: `Probed` survives any address.
    unsafe {
        let files: *const u8 = Probed::load(task, offset!(task_files));
        let table: *const u8 = Probed::load(files, offset!(files_fdt));
        if fd >= Probed::load::<u32>(table, offset!(fdtable_max_fds)) as u64 {
            return core::ptr::null();
        }
        let list: *const u8 = Probed::load(table, offset!(fdtable_fd));
        let file: *const u8 = Probed::load(list.wrapping_add(8 * fd as usize), 0);
        socket_of(file)
    }
}

/// Whether this TCP socket is open at this number in the current process.
#[cold]
#[inline(never)]
pub fn is_open_at(task: *const u8, fd: u64, sk: *const u8) -> bool {
    socket(task, fd) == sk
}

/// The TCP socket behind an open file, or null.
#[inline(always)]
pub fn socket_of(file: *const u8) -> *const u8 {
    // SAFETY: `Probed` survives any address.
    unsafe {
        let socket: *const u8 = Probed::load(file, offset!(file_private_data));
        // What a file's private data is depends on its kind; that of a socket points back at the file.
        if socket.is_null() || Probed::load::<*const u8>(socket, offset!(socket_file)) != file {
            return core::ptr::null();
        }
        let inode: *const u8 = Probed::load(file, offset!(file_inode));
        if Probed::load::<u16>(inode, offset!(inode_mode)) & S_IFMT != S_IFSOCK {
            return core::ptr::null();
        }
        let sk: *const u8 = Probed::load(socket, offset!(socket_sk));
        let family: u16 = Probed::load(sk, offset!(skc_family));
        if Probed::load::<u16>(sk, offset!(sk_protocol)) != IPPROTO_TCP || (family != AF_INET && family != AF_INET6) {
            return core::ptr::null();
        }
        sk
    }
}
