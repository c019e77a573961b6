//! Reading the kernel's own structures.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user,
};

/// How a program may read kernel memory: a type parameter, so that both forms share all other code.
pub trait Access {
    /// The current task.
    fn task() -> *const u8;

    /// Reads a member.
    ///
    /// # Safety
    /// `base` points to a kernel structure with a `T` at `offset`: for [`Typed`] it must come from the kernel with its
    /// type known to the verifier (which checks it); for [`Probed`] any address is survived and reads as zero.
    unsafe fn load<T: Copy>(base: *const u8, offset: u32) -> T;
}

/// Plain loads through pointers whose type the verifier knows: one instruction each.
pub struct Typed;

/// Reads through a helper, for pointers of unknown type and kernels without typed ones.
pub struct Probed;

impl Access for Typed {
    #[inline(always)]
    fn task() -> *const u8 {
        // SAFETY: the helper takes nothing and returns the running task.
        unsafe { bpf_get_current_task_btf() as *const u8 }
    }

    #[inline(always)]
    unsafe fn load<T: Copy>(base: *const u8, offset: u32) -> T {
        // SAFETY: by the caller's promise, which the verifier checks again at load.
        unsafe { base.add(offset as usize).cast::<T>().read_volatile() }
    }
}

impl Access for Probed {
    #[inline(always)]
    fn task() -> *const u8 {
        // SAFETY: as above.
        unsafe { bpf_get_current_task() as *const u8 }
    }

    #[inline(always)]
    unsafe fn load<T: Copy>(base: *const u8, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the destination is ours and of the size given; a bad source address makes the helper fail, not fault.
        // The helper zeroes the destination when it fails, and zero is a value of every type used (integers, pointers).
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.wrapping_add(offset as usize).cast(),
            );
            value.assume_init()
        }
    }
}

/// Reads a value from the current process's memory.
#[inline(always)]
pub fn user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the destination is ours and of the size given; the source is checked by the helper.
    unsafe {
        match bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _) {
            0 => Some(value.assume_init()),
            _ => None,
        }
    }
}

/// Hides a value's origin from the compiler, so that a bound checked after this stays in the code: the verifier must see
/// it, though the compiler could prove it away.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // One instruction that changes nothing: with none at all, two lines of the source would claim one place in the
    // program, which the kernel's check of line information refuses.
    // SAFETY: moves a register onto itself.
    unsafe { core::arch::asm!("{value} = {value}", value = inout(reg) value, options(nostack, nomem, pure)) };
    value
}
