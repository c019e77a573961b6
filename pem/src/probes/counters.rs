//! The per-CPU counters of the kernel programs, mapped read-only.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use ebpf_abi::{CPUS_MAX, CpuCounters, counter};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{load::possible_cpus, ring::page_size};

/// A view of the counters that is always up to date.
pub struct Counters {
    at: NonNull<libc::c_void>,
    len: usize,
    /// CPUs that this machine may have.
    cpus: u32,
}

// SAFETY: read-only shared memory, read through atomics.
unsafe impl Send for Counters {}
// SAFETY: as above.
unsafe impl Sync for Counters {}

impl Counters {
    /// Maps the counters behind `fd`. The descriptor may be closed afterwards.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let len = (CPUS_MAX as usize * size_of::<CpuCounters>()).next_multiple_of(page_size());
        let size = NonZeroUsize::new(len).expect("not zero");
        // SAFETY: a fresh mapping at a place the kernel picks.
        let at = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, fd.as_fd(), 0) }?;
        Ok(Self { at, len, cpus: possible_cpus().min(CPUS_MAX) })
    }

    /// Counters of one CPU; zeros beyond `CPUS_MAX`.
    pub fn cpu(&self, cpu: u32) -> CpuCounters {
        let mut counters = CpuCounters::default();
        if cpu >= CPUS_MAX {
            return counters;
        }
        for (slot, value) in counters.slots.iter_mut().enumerate() {
            let index = cpu as usize * counter::SLOTS + slot;
            // SAFETY: within the mapping, aligned; the kernel writes whole words.
            *value = unsafe { self.at.cast::<AtomicU64>().add(index).as_ref() }.load(Ordering::Relaxed);
        }
        counters
    }

    /// Sum over all CPUs. `RECORDS` is the number of records that were wanted; those of them lost are `LOST_RING_FULL`.
    pub fn sum(&self) -> CpuCounters {
        let mut sum = CpuCounters::default();
        for cpu in 0..self.cpus {
            for (total, value) in sum.slots.iter_mut().zip(self.cpu(cpu).slots) {
                *total = total.wrapping_add(value);
            }
        }
        sum
    }

    /// CPUs that have counted anything.
    pub fn active(&self) -> impl Iterator<Item = (u32, CpuCounters)> + '_ {
        (0..self.cpus).map(|cpu| (cpu, self.cpu(cpu))).filter(|(_, counters)| *counters != CpuCounters::default())
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length.
        let _ = unsafe { munmap(self.at, self.len) };
    }
}
