//! The system call that is running: which it is, and where its buffers lie.

use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use ebpf_abi::{Offsets, direction};

use crate::{
    globals::{self, number, offset},
    kernel::{self, Access},
};

/// Number and arguments of a system call.
pub trait Args {
    fn number(&self) -> u32;
    fn get(&self, index: usize) -> u64;
}

/// Taken from the registers saved when the call entered the kernel.
pub struct Saved<A> {
    regs: *const u8,
    trusted: bool,
    access: core::marker::PhantomData<A>,
}

/// `task_struct.flags` of tasks whose saved registers are not those of a call of their own: PF_IO_WORKER,
/// PF_USER_WORKER, PF_KTHREAD.
pub const FOREIGN_TASK: u32 = 0x10 | 0x4000 | 0x20_0000;
/// Code segment of 64-bit user code on x86-64; 32-bit callers number and pass their calls in another way.
const USER_CS: u16 = 0x33;
/// No call has this number.
const NO_CALL: u32 = u32::MAX;

impl<A: Access> Saved<A> {
    /// Those of the current task.
    #[inline(always)]
    pub fn of_current(task: *const u8) -> Self {
        // SAFETY: the verifier checks that `task` is a task.
        let regs = unsafe { bpf_task_pt_regs(task.cast_mut().cast()) } as *const u8;
        Self::at(task, regs)
    }

    /// Those at `regs`.
    #[inline(always)]
    pub fn at(task: *const u8, regs: *const u8) -> Self {
        // SAFETY: a task has flags, its registers a code segment where the offset says so.
        let trusted = unsafe {
            A::load::<u32>(task, offset!(task_flags)) & FOREIGN_TASK == 0
                && (offset!(regs_cs) == Offsets::ABSENT || A::load::<u16>(regs, offset!(regs_cs)) == USER_CS)
        };
        Self { regs, trusted, access: core::marker::PhantomData }
    }

    /// Makes this look like a call whose buffers are out of reach.
    #[inline(always)]
    pub fn distrust(&mut self) {
        self.trusted = false;
    }
}

impl<A: Access> Args for Saved<A> {
    #[inline(always)]
    fn number(&self) -> u32 {
        if !self.trusted {
            return NO_CALL;
        }
        // SAFETY: `regs` are registers.
        unsafe { A::load::<u64>(self.regs, offset!(regs_nr)) as u32 }
    }

    #[inline(always)]
    fn get(&self, index: usize) -> u64 {
        // SAFETY: as above; `index` is a constant below six.
        unsafe { A::load(self.regs, globals::read(&globals::OFFSETS.regs_args[index])) }
    }
}

/// The caller's buffers, walked from the front.
#[derive(Clone, Copy)]
pub struct Source {
    /// What is left of the current piece.
    pub address: u64,
    pub left: u64,
    /// The pieces after it: `struct iovec`.
    pub iovs: u64,
    pub iov_count: u64,
    /// Whether there are any: the others are zero if not. No `Option`, as its unset part would be a register never
    /// written, which the verifier refuses to see passed on.
    pub reachable: bool,
}

/// `struct iovec`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IoVec {
    pub base: u64,
    pub len: u64,
}

/// Offset of `msg_iov` and `msg_iovlen` in `struct user_msghdr`.
const MSGHDR_IOV: u64 = 16;

impl Source {
    /// The buffers of this call, if it is one that takes its bytes from (or puts them into) the caller's memory.
    #[inline(always)]
    pub fn of<const DIRECTION: u8>(args: &impl Args) -> Self {
        let none = Self { address: 0, left: 0, iovs: 0, iov_count: 0, reachable: false };
        let number = args.number();
        let (flat, flat_flags, vector, message) = if DIRECTION == direction::RECV {
            (number!(read), number!(recvfrom), number!(readv), number!(recvmsg))
        } else {
            (number!(write), number!(sendto), number!(writev), number!(sendmsg))
        };
        if number == flat || number == flat_flags {
            return Self { address: args.get(1), left: args.get(2), reachable: true, ..none };
        }
        if number == vector {
            return Self { iovs: args.get(1), iov_count: args.get(2), reachable: true, ..none };
        }
        if number == message {
            let Some(iov) = kernel::user::<IoVec>(args.get(1) + MSGHDR_IOV) else { return none };
            return Self { iovs: iov.base, iov_count: iov.len, reachable: true, ..none };
        }
        none
    }
}
