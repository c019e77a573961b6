//! Processes: which are not traced, exec and exit.

use aya_ebpf::{
    btf_maps::HashMap,
    helpers::generated::{bpf_get_current_comm, bpf_probe_read_kernel, bpf_probe_read_kernel_str},
    macros::{btf_map, btf_tracepoint},
    programs::BtfTracePointContext,
};
use ebpf_abi::{COMM_LEN, FILENAME_MAX, Kind, ProcExec, ProcExit, Process};

use crate::{
    counters::Plain,
    emit,
    globals::offset,
    kernel::{Access, Typed},
};

/// Processes that can be ignored at once: ours and their descendants.
const IGNORED_MAX: usize = 16 << 10;

/// Process ids (of thread groups) that are not traced: put in by the loader, and for the children of such by
/// [`process_fork`].
#[btf_map]
static IGNORED: HashMap<u32, u8, IGNORED_MAX> = HashMap::new();

/// Whether a process is not to be traced.
#[inline(always)]
pub fn ignored(pid: u32) -> bool {
    IGNORED.get_ptr(pid).is_some()
}

/// Pid and start of a task's process. All three programs below: kernel 5.8.
#[inline(always)]
pub fn process_of(task: *const u8) -> Process {
    of_current::<Typed>(task)
}

/// The same of the current task, in the form of reading that a tier has.
#[inline(always)]
pub fn of_current<A: Access>(task: *const u8) -> Process {
    // SAFETY: `task` is a task.
    unsafe {
        let leader: *const u8 = A::load(task, offset!(task_group_leader));
        Process {
            pid: A::load(task, offset!(task_tgid)),
            zero: 0,
            start_ns: A::load(leader, offset!(task_start_boottime)),
        }
    }
}

/// `sched_process_fork(parent, child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let (parent, child): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: both are tasks by the tracepoint's type.
    let (parent, child): (u32, u32) =
        unsafe { (Typed::load(parent, offset!(task_tgid)), Typed::load(child, offset!(task_tgid))) };
    // A thread has its parent's group.
    if parent != child && ignored(parent) {
        let _ = IGNORED.insert(child, 1, 0);
    }
    0
}

/// `sched_process_exec(task, old_pid, bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let (task, bprm): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(2));
    let process = process_of(task);
    if ignored(process.pid) {
        return 0;
    }
    let mut record = ProcExec {
        header: emit::header::<Plain>(Kind::ProcExec, size_of::<ProcExec>() as u32, emit::now_ns()),
        process,
        comm: [0; COMM_LEN],
        filename: [0; FILENAME_MAX],
    };
    // SAFETY: destinations are ours and of the sizes given; `bprm` has a file name.
    unsafe {
        let name: *const u8 = Typed::load(bprm, offset!(bprm_filename));
        bpf_get_current_comm((&raw mut record.comm).cast(), COMM_LEN as u32);
        bpf_probe_read_kernel_str((&raw mut record.filename).cast(), FILENAME_MAX as u32, name.cast());
        emit::write((&raw const record).cast(), size_of::<ProcExec>() as u32);
    }
    0
}

/// `sched_process_exit(task)`: each thread that ends. The process has ended with the last, which need not be its main thread:
/// that may end long before, and does when another one calls exec and takes its place. Two that end at the same moment may
/// both look like the last.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a task, and what its threads share.
    let (tgid, live): (u32, i32) = unsafe {
        let shared: *const u8 = Typed::load(task, offset!(task_signal));
        (Typed::load(task, offset!(task_tgid)), Typed::load(shared, offset!(signal_live)))
    };
    if live > 0 {
        return 0;
    }
    if ignored(tgid) {
        let _ = IGNORED.remove(tgid);
        return 0;
    }
    // SAFETY: a task.
    let code: i32 = unsafe { Typed::load(task, offset!(task_exit_code)) };
    let mut record = ProcExit {
        header: emit::header::<Plain>(Kind::ProcExit, size_of::<ProcExit>() as u32, emit::now_ns()),
        process: process_of(task),
        comm: [0; COMM_LEN],
        // As `wait` packs them.
        exit_code: (code >> 8 & 0xff) as u32,
        signal: (code & 0x7f) as u32,
    };
    // SAFETY: a task's name is of the size given, as is the destination, which is ours; the record is a local, whole.
    unsafe {
        let leader: *const u8 = Typed::load(task, offset!(task_group_leader));
        let name = leader.wrapping_add(offset!(task_comm) as usize);
        bpf_probe_read_kernel((&raw mut record.comm).cast(), COMM_LEN as u32, name.cast());
        emit::write((&raw const record).cast(), size_of::<ProcExit>() as u32);
    }
    0
}
