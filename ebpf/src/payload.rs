//! Copying payload out of the caller's buffers.

use aya_ebpf::{btf_maps::Array, helpers::generated::bpf_probe_read_user, macros::btf_map};
use ebpf_abi::{
    CPUS_MAX, DATA_MAX, DATA_RECORDS_PER_CALL, Data, Kind, RUN_TAIL_BYTES, counter, data_flags, direction, protocol,
};

use crate::{
    call::{IoVec, Source},
    conn::{Conn, flags},
    counters::{self, Numbering},
    emit,
    globals::setting,
    http,
    kernel::opaque,
    place::Place,
    tell::told_role,
};

/// Pieces of a caller's buffer list that are walked for one call, turns that end a record included. nginx sends a
/// proxied response in three to six pieces.
const PIECES_PER_CALL: usize = 24 + DATA_RECORDS_PER_CALL;
/// Entries of a buffer list that are fetched at once: each fetch costs as much as copying a short head.
const BATCH: usize = 4;

/// Where a record is put together: too large for the stack, and written with exactly its length.
#[repr(C)]
pub struct Scratch {
    pub walk: Walk,
    head: Data,
    /// Twice the most that is used, so that `fill + piece` stays inside by the separate bounds of both, which is all the
    /// verifier can follow.
    payload: [u8; 2 * DATA_MAX],
}

/// How far the copying of a call has come. It lives in a map so that the verifier forgets the values with each step:
/// were they in registers, it would follow every combination of them through every turn of the loop, and give up.
#[repr(C)]
pub struct Walk {
    address: Forgotten,
    /// What is left of the current piece.
    pub piece: Forgotten,
    /// Entries that were fetched, how many, and the next to be walked.
    batch: [IoVec; BATCH],
    batch_count: Forgotten,
    batch_next: Forgotten,
    /// Entries after those.
    iovs: Forgotten,
    iov_count: Forgotten,
    /// Bytes in the record so far.
    pub fill: Forgotten,
    /// Bytes still to be copied.
    pub want: Forgotten,
    /// Position of the record's first byte.
    pos: Forgotten,
    /// Bytes of the call that no record stands for yet.
    pub left: Forgotten,
}

/// A value that is always read back from memory.
#[repr(transparent)]
pub struct Forgotten(u64);

impl Forgotten {
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: a reference is valid.
        unsafe { (&raw const self.0).read_volatile() }
    }

    #[inline(always)]
    pub fn set(&mut self, value: u64) {
        // SAFETY: a reference is valid.
        unsafe { (&raw mut self.0).write_volatile(value) }
    }
}

impl Walk {
    #[inline(always)]
    pub fn begin(&mut self, source: &Source, want: u64) {
        self.address.set(source.address);
        self.piece.set(source.left);
        self.batch_count.set(0);
        self.batch_next.set(0);
        self.iovs.set(source.iovs);
        self.iov_count.set(source.iov_count);
        self.want.set(want);
    }

    /// Where the next bytes are; there may be none in this piece, only in the one after.
    #[inline(always)]
    pub fn next_piece(&mut self) -> Option<u64> {
        if self.piece.get() == 0 {
            if self.batch_next.get() >= self.batch_count.get() && !self.fetch() {
                return None;
            }
            let next = opaque(self.batch_next.get()) as usize;
            if next >= BATCH {
                return None;
            }
            // SAFETY: below BATCH.
            let iov = unsafe { (&raw const self.batch).cast::<IoVec>().add(next).read_volatile() };
            self.batch_next.set(next as u64 + 1);
            self.address.set(iov.base);
            self.piece.set(iov.len);
        }
        Some(self.address.get())
    }

    /// Fetches the next entries of the caller's list; false when there are none.
    #[inline(always)]
    fn fetch(&mut self) -> bool {
        let mut count = self.iov_count.get();
        if count > BATCH as u64 {
            count = BATCH as u64;
        }
        let bytes = opaque(count * size_of::<IoVec>() as u64);
        if bytes == 0 || bytes > (BATCH * size_of::<IoVec>()) as u64 {
            return false;
        }
        let from = self.iovs.get();
        // SAFETY: at most as long as the place for it.
        if unsafe { bpf_probe_read_user((&raw mut self.batch).cast(), bytes as u32, from as *const _) } != 0 {
            return false;
        }
        self.iovs.set(from + bytes);
        self.iov_count.set(self.iov_count.get() - count);
        self.batch_count.set(count);
        self.batch_next.set(0);
        true
    }

    /// `taken` bytes at `address` are done.
    #[inline(always)]
    pub fn take(&mut self, address: u64, taken: u64, want: u64) {
        self.want.set(want - taken);
        self.address.set(address + taken);
        let piece = self.piece.get();
        self.piece.set(piece - taken);
    }
}

/// One per CPU and direction (programs of different directions may preempt one another on newer kernels); the loader
/// makes it as long as there are CPUs, more than are counted included: two that shared one would mix their payload. Not a
/// per-CPU array, as elements of those end at 32 KiB.
#[btf_map]
static SCRATCH: Array<Scratch, { 2 * CPUS_MAX as usize }> = Array::new();

/// This CPU's element for a direction.
#[inline(always)]
pub fn scratch<const DIRECTION: u8>() -> Option<&'static mut Scratch> {
    let index = 2 * counters::this_cpu() + (DIRECTION - 1) as u32;
    // SAFETY: checked by the verifier; nobody else uses this element while we run.
    SCRATCH.get_ptr_mut(index).map(|scratch| unsafe { &mut *scratch })
}

/// Copies the payload of a call into as many records as it takes.
#[inline(always)]
pub fn copy<N: Numbering, const DIRECTION: u8>(
    conn: &mut Conn,
    source: &Source,
    total: u32,
    place: &Place,
    held: u32,
    now: u64,
) {
    let Some(scratch) = scratch::<DIRECTION>() else {
        counters::add(counter::LOST_NO_STATE, 1);
        return;
    };
    let exact = if place.exact { data_flags::POS_EXACT } else { 0 };
    scratch.head.process = conn.owner;
    scratch.head.conn_id = conn.id;
    scratch.head.direction = DIRECTION;
    scratch.head.protocol = conn.protocol;
    scratch.head.role = told_role(conn);
    scratch.head.zero = 0;
    scratch.head.zero2 = 0;

    if held != 0 {
        // SAFETY: eight bytes of the payload, which is aligned to eight.
        unsafe { (&raw mut scratch.payload).cast::<u64>().write(conn.held) };
        scratch.head.pos = place.pos.wrapping_sub(held as u64);
        send_record::<N>(scratch, held, held, exact | data_flags::MORE, now);
    }

    if !source.reachable {
        counters::add(counter::BYTES_OPAQUE, total as u64);
        scratch.head.pos = place.pos;
        send_record::<N>(scratch, total, 0, exact | data_flags::OPAQUE, now);
        return;
    }

    let stream = if DIRECTION == direction::SEND { &mut conn.send } else { &mut conn.recv };
    let limit = if stream.run >= setting!(run_bytes) { RUN_TAIL_BYTES } else { setting!(call_bytes) };
    let want = if total < limit { total } else { limit };
    stream.run += want;
    if total > want {
        counters::add(counter::BYTES_OVER_CAP, (total - want) as u64);
    }
    let walk = &mut scratch.walk;
    walk.begin(source, want as u64);
    walk.fill.set(0);
    walk.pos.set(place.pos);
    walk.left.set(total as u64);
    for _ in 0..PIECES_PER_CALL {
        match step(scratch) {
            Step::Again => {}
            Step::Full => {
                let fill = scratch.walk.fill.get();
                let pos = scratch.walk.pos.get();
                look_for_switch(conn, scratch, fill);
                scratch.head.pos = pos;
                send_record::<N>(scratch, fill as u32, fill as u32, exact | data_flags::MORE, now);
                scratch.walk.pos.set(pos + fill);
                let left = scratch.walk.left.get();
                scratch.walk.left.set(left - fill);
                scratch.walk.fill.set(0);
            }
            Step::Done => break,
        }
    }
    let fill = scratch.walk.fill.get();
    look_for_switch(conn, scratch, fill);
    scratch.head.pos = scratch.walk.pos.get();
    // Bytes that were wanted and are not here: the caller's memory could not be read, or lies in too many pieces.
    let bits = if scratch.walk.want.get() != 0 { data_flags::OPAQUE } else { 0 };
    let left = scratch.walk.left.get();
    send_record::<N>(scratch, left as u32, fill as u32, exact | bits, now);
}

enum Step {
    Again,
    /// The record can hold no more, and more is wanted.
    Full,
    Done,
}

/// Copies one piece of the caller's memory behind what is in `scratch` already.
#[inline(always)]
fn step(scratch: &mut Scratch) -> Step {
    let walk = &mut scratch.walk;
    let (fill, want) = (walk.fill.get(), walk.want.get());
    if want == 0 {
        return Step::Done;
    }
    if fill >= DATA_MAX as u64 {
        return Step::Full;
    }
    let Some(address) = walk.next_piece() else { return Step::Done };
    let mut piece = walk.piece.get();
    if piece > want {
        piece = want;
    }
    if piece > DATA_MAX as u64 - fill {
        piece = DATA_MAX as u64 - fill;
    }
    // Bounds that the compiler knows to hold, said again where the verifier sees them.
    let (at, piece) = (opaque(fill), opaque(piece));
    if at >= DATA_MAX as u64 || piece > DATA_MAX as u64 {
        return Step::Done;
    }
    // SAFETY: `at + piece` is within twice DATA_MAX.
    let read = unsafe {
        let to = (&raw mut scratch.payload).cast::<u8>().add(at as usize);
        bpf_probe_read_user(to.cast(), piece as u32, address as *const _)
    };
    if read != 0 {
        counters::add(counter::LOST_FAULT, 1);
        return Step::Done;
    }
    let walk = &mut scratch.walk;
    walk.fill.set(at + piece);
    walk.take(address, piece, want);
    Step::Again
}

/// Notes a response that hands the connection over to another protocol.
#[inline(always)]
fn look_for_switch(conn: &mut Conn, scratch: &Scratch, fill: u64) {
    if fill < 12 || conn.protocol != protocol::HTTP {
        return;
    }
    // SAFETY: the first sixteen bytes of the payload, which is aligned to eight.
    let (word, second) = unsafe {
        let words = (&raw const scratch.payload).cast::<u64>();
        (words.read(), words.add(1).read())
    };
    if http::answers(word) && http::switches_protocol(second) {
        conn.flags |= flags::SWITCHED;
    }
}

/// Writes the record in `scratch`.
#[inline(always)]
fn send_record<N: Numbering>(scratch: &mut Scratch, total: u32, captured: u32, bits: u16, now: u64) {
    let captured = opaque(captured as u64) as u32;
    if captured > DATA_MAX as u32 {
        return;
    }
    let len = size_of::<Data>() as u32 + captured;
    scratch.head.header = emit::header::<N>(Kind::Data, len, now);
    scratch.head.total = total;
    scratch.head.captured = captured;
    scratch.head.flags = bits;
    // SAFETY: the head and the payload that was just filled, by the bound above inside the element.
    if !unsafe { emit::write((&raw const scratch.head).cast(), len) } {
        counters::add(counter::LOST_RING_BYTES, captured as u64);
    }
}
