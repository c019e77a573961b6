//! Writing records into the ring.

use aya_ebpf::{
    btf_maps::RingBuf,
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_ringbuf_output, bpf_ringbuf_query},
    macros::btf_map,
};
use ebpf_abi::{Header, Kind, RING_BYTES, counter};

use crate::{
    counters::{self, Numbering},
    globals::setting,
};

#[btf_map]
static RING: RingBuf<u8, { RING_BYTES as usize }> = RingBuf::new();

const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;
const BPF_RB_AVAIL_DATA: u64 = 0;

/// `CLOCK_BOOTTIME`.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Whether more waits in the ring than its reader would let come together.
#[inline(always)]
pub fn filling_up() -> bool {
    // SAFETY: the ring is ours.
    let waiting = unsafe { bpf_ringbuf_query((&raw const RING).cast_mut().cast(), BPF_RB_AVAIL_DATA) };
    waiting > 2 * setting!(wake_bytes) as u64
}

/// Takes the next number of this CPU for a record that is about to be written.
#[inline(always)]
pub fn header<N: Numbering>(kind: Kind, len: u32, time_ns: u64) -> Header {
    let cpu = counters::cpu();
    Header { kind: kind as u16, cpu: cpu as u16, len, seq: counters::next_sequence::<N>(cpu), time_ns }
}

/// Writes the first `len` bytes at `record`; false (and counted) when the ring is full.
///
/// # Safety
/// `record` points to `len` readable bytes, in a way the verifier can follow.
#[inline(always)]
pub unsafe fn write(record: *const u8, len: u32) -> bool {
    let ring = (&raw const RING).cast_mut().cast();
    // The reader comes by itself every few milliseconds; waking it for each record costs more than all else together.
    // SAFETY: the ring is ours; the rest is the caller's promise.
    let written = unsafe {
        let waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
        let wake = if waiting > setting!(wake_bytes) as u64 { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
        bpf_ringbuf_output(ring, record.cast_mut().cast(), len as u64, wake)
    };
    if written != 0 {
        counters::add(counter::LOST_RING_FULL, 1);
        return false;
    }
    true
}
