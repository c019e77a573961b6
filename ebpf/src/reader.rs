//! Who reads the ring: another one has to be told of connections what the one before it was told.

use aya_ebpf::{btf_maps::Array, macros::btf_map};

/// When the present reader's time began (`CLOCK_BOOTTIME`, ns): set by the helper, at its start and whenever a reader has
/// gone. What was told earlier was told to somebody else.
#[btf_map]
static READER: Array<u64, 1> = Array::new();

/// See [`READER`]; never 0, so that what was never told is always older. The kernel makes a plain load of this.
#[inline(always)]
pub fn since() -> u64 {
    match READER.get_ptr(0) {
        // SAFETY: checked by the verifier; written whole.
        Some(since) => unsafe { since.read_volatile() | 1 },
        None => 1,
    }
}
