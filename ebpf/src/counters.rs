//! Per-CPU counters and sequence numbers, in an array that the unprivileged reader maps.

use core::arch::asm;

use aya_ebpf::{btf_maps::Array, helpers::generated::bpf_get_smp_processor_id, macros::btf_map};
use ebpf_abi::{CPUS_MAX, CpuCounters, counter};

const BPF_F_MMAPABLE: usize = 1 << 10;

#[btf_map]
static COUNTERS: Array<CpuCounters, { CPUS_MAX as usize }, BPF_F_MMAPABLE> = Array::new();

/// The CPU we run on.
#[inline(always)]
pub fn this_cpu() -> u32 {
    // SAFETY: takes nothing.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

/// The CPU we run on, as records name it.
#[inline(always)]
pub fn cpu() -> u32 {
    let cpu = this_cpu();
    if cpu < CPUS_MAX { cpu } else { CPUS_MAX - 1 }
}

/// Adds to a counter of this CPU.
#[inline(always)]
pub fn add(slot: usize, n: u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(cpu()) {
        // SAFETY: the verifier checked the pointer; `slot` is a constant below SLOTS. Only this CPU writes here; a
        // program in an interrupt may lose us an increment of a statistic, which an atomic would cost more than it is worth.
        unsafe {
            let place = (&raw mut (*counters).slots).cast::<u64>().add(slot);
            place.write(place.read() + n);
        }
    }
}

/// How sequence numbers are taken. A program in an interrupt takes numbers too, perhaps just now.
pub trait Numbering {
    /// Adds one, and gives what was there.
    ///
    /// # Safety
    /// `place` points to a counter that may be written.
    unsafe fn take(place: *mut u64) -> u64;
}

/// By one instruction. Kernel 5.12: an older one refuses each program in which the instruction merely stands.
pub struct Atomic;

/// By a read and a write; an interrupt between them makes two records with one number, in one of some million records.
pub struct Plain;

impl Numbering for Atomic {
    #[inline(always)]
    unsafe fn take(place: *mut u64) -> u64 {
        let mut value = 1u64;
        // `core::sync::atomic` does not exist for this target, though its instruction does.
        // SAFETY: the caller's promise.
        unsafe {
            asm!("{value} = atomic_fetch_add((u64 *)({place} + 0), {value})",
                place = in(reg) place, value = inout(reg) value, options(nostack));
        }
        value
    }
}

impl Numbering for Plain {
    #[inline(always)]
    unsafe fn take(place: *mut u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe {
            let old = place.read_volatile();
            place.write_volatile(old + 1);
            old
        }
    }
}

/// The next sequence number of this CPU.
#[inline(always)]
pub fn next_sequence<N: Numbering>(cpu: u32) -> u64 {
    let Some(counters) = COUNTERS.get_ptr_mut(cpu) else { return 0 };
    // SAFETY: the verifier checked the pointer; the slot is below SLOTS.
    unsafe { N::take((&raw mut (*counters).slots).cast::<u64>().add(counter::RECORDS)) }
}
