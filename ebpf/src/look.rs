//! Finding out what a connection speaks, from the beginnings of its calls.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use ebpf_abi::{direction, role};

use crate::{
    call::Source,
    conn::{Conn, flags},
    http::{self, LOOK_BYTES, Look},
    kernel::opaque,
    listen::{self, Heard},
    payload::{Walk, scratch},
};

/// Pieces that are looked through for the first eight bytes: enough for one byte each, and some empty ones.
const LOOK_PIECES: usize = 12;
/// Calls of a connection that are looked at one after the other while its protocol is not known; two calls of each
/// direction tell a connection that we saw from its beginning, the rest is for those we met in the middle of a body.
const LOOKS_FIRST: u16 = 32;
/// After that every so-manieth is (a power of two).
const LOOKS_EVERY: u16 = 64;

/// Tries to tell the protocol from the beginning of this call. Returns how many bytes of earlier calls, kept in
/// `conn.held`, belong before it and were not written yet.
#[cold]
#[inline(never)]
pub fn infer<const DIRECTION: u8>(conn: &mut Conn, sk: *const u8, source: &Source, total: u32) -> u32 {
    let earlier = if conn.held_direction == DIRECTION { conn.held_count as u32 } else { 0 };
    conn.held_count = 0;
    let looks = conn.looks;
    if looks >= LOOKS_FIRST && looks & (LOOKS_EVERY - 1) != 0 && earlier == 0 {
        conn.looks = if looks == u16::MAX { LOOKS_FIRST } else { looks + 1 };
        return 0;
    }
    conn.looks = if looks == u16::MAX { LOOKS_FIRST } else { looks + 1 };
    if !source.reachable {
        return 0;
    }
    let Some(scratch) = scratch::<DIRECTION>() else { return 0 };
    let walk = &mut scratch.walk;
    walk.begin(source, total as u64);
    // Here `fill` counts the bytes looked at, and `left` holds them.
    if earlier != 0 && earlier < LOOK_BYTES {
        walk.fill.set(earlier as u64);
        walk.left.set(conn.held);
    } else {
        walk.fill.set(0);
        walk.left.set(0);
    }
    for _ in 0..LOOK_PIECES {
        if !look_step(walk) {
            break;
        }
    }
    let (word, count) = (walk.left.get(), walk.fill.get() as u32);
    if count == 0 || count > LOOK_BYTES {
        return 0;
    }
    let look = http::look(word, count);
    if matches!(look, Look::Other | Look::Undecided) {
        let heard = listen::hear(word, count, sk, conn.role);
        if let Heard::Protocol(number) = heard {
            conn.protocol = number;
            conn.flags |= flags::CHANGED;
            return earlier;
        }
        let undecided = look == Look::Undecided || matches!(heard, Heard::Undecided);
        if undecided && total + earlier == count {
            conn.held = word;
            conn.held_count = count as u8;
            conn.held_direction = DIRECTION;
        }
        return 0;
    }
    conn.protocol = look.protocol();
    conn.flags |= flags::CHANGED;
    if conn.role == 0 && look != Look::Http2 {
        let sends_request = (look == Look::Request) == (DIRECTION == direction::SEND);
        conn.role = if sends_request { role::CLIENT } else { role::SERVER };
    }
    earlier
}

/// Takes some more of the first bytes of a call; false when there are no more or they suffice.
#[inline(always)]
fn look_step(walk: &mut Walk) -> bool {
    let (count, want) = (walk.fill.get(), walk.want.get());
    if want == 0 || count >= LOOK_BYTES as u64 {
        return false;
    }
    let Some(at) = walk.next_piece() else { return false };
    let mut piece = walk.piece.get();
    if piece > want {
        piece = want;
    }
    if piece > LOOK_BYTES as u64 - count {
        piece = LOOK_BYTES as u64 - count;
    }
    let piece = opaque(piece);
    if piece > LOOK_BYTES as u64 {
        return false;
    }
    let mut bytes = 0u64;
    // SAFETY: at most eight bytes into a local of eight.
    if unsafe { bpf_probe_read_user((&raw mut bytes).cast(), piece as u32, at as *const _) } != 0 {
        return false;
    }
    walk.left.set(walk.left.get() | bytes << (8 * (count & 7)));
    walk.fill.set(count + piece);
    walk.take(at, piece, want);
    true
}
