//! Where bytes lie in their stream, by TCP's own sequence numbers.

use ebpf_abi::{counter, direction};

use crate::{
    conn::{Conn, Tier, flags},
    counters,
    globals::offset,
    kernel::Access,
};

const RCV_SHUTDOWN: u8 = 1;

/// Where in its stream the bytes of a call lie.
pub struct Place {
    pub pos: u64,
    pub exact: bool,
    /// By how much the stream has grown: more than the call's bytes where some before them moved without our seeing the
    /// call, less where they were counted as such already.
    pub grown: u64,
}

/// Takes the next `total` bytes of a direction.
#[inline(always)]
pub fn place<T: Tier, const DIRECTION: u8>(conn: &mut Conn, sk: *const u8, total: u32) -> Place {
    let (known, layered) = (conn.flags, conn.flags & flags::LAYERED != 0);
    let (stream, known_bit) = if DIRECTION == direction::SEND {
        (&mut conn.send, flags::SEND_KNOWN)
    } else {
        (&mut conn.recv, flags::RECV_KNOWN)
    };
    let counted = Place { pos: stream.pos, exact: false, grown: total as u64 };
    stream.pos += total as u64;
    if layered {
        return counted;
    }
    let tcp = T::tcp(sk);
    if tcp.is_null() {
        return counted;
    }
    // SAFETY: `tcp` is a tcp_sock.
    let end: u32 = unsafe {
        T::Access::load(
            tcp,
            if DIRECTION == direction::SEND { offset!(tcp_write_seq) } else { offset!(tcp_copied_seq) },
        )
    };
    let start = end.wrapping_sub(total);
    let expected = stream.seq;
    stream.seq = end;
    if known & known_bit != 0 && start == expected {
        return Place { exact: true, ..counted };
    }
    // SAFETY: as above.
    if unsafe { T::Access::load::<u64>(tcp, offset!(icsk_ulp_ops)) } != 0 {
        conn.flags |= flags::LAYERED;
        return counted;
    }
    conn.flags |= known_bit;
    if known & known_bit == 0 {
        return Place { exact: true, ..counted };
    }
    let mut unseen = start.wrapping_sub(expected) as i32;
    if DIRECTION == direction::RECV && unseen == 1 && fin_read::<T>(sk, tcp, end) {
        unseen = 0;
        stream.seq = end.wrapping_sub(1);
    }
    if unseen < 0 {
        // Another thread came between the call and this program: the bytes are before those it reported. Or the socket was
        // in the middle of this call when we first looked at it: then there is nothing before them.
        let back = (unseen as i64).unsigned_abs();
        let pos = if back < counted.pos { counted.pos - back } else { 0 };
        let reached = pos + total as u64;
        stream.pos = if reached > counted.pos { reached } else { counted.pos };
        return Place { pos, exact: true, grown: stream.pos - counted.pos };
    }
    stream.pos += unseen as u64;
    Place { pos: counted.pos + unseen as u64, exact: true, grown: total as u64 + unseen as u64 }
}

/// Whether the peer's FIN, which has a sequence number too, was read together with the last bytes.
#[inline(always)]
fn fin_read<T: Tier>(sk: *const u8, tcp: *const u8, copied: u32) -> bool {
    // SAFETY: a socket and its tcp_sock.
    unsafe {
        T::Access::load::<u8>(sk, offset!(sk_shutdown)) & RCV_SHUTDOWN != 0
            && T::Access::load::<u32>(tcp, offset!(tcp_rcv_nxt)) == copied
    }
}

/// Whether bytes wait to be read. After a reset, when a number that no FIN has is taken for one, the last of them may be missed.
#[inline(always)]
pub fn unread<T: Tier>(sk: *const u8) -> bool {
    let tcp = T::tcp(sk);
    if tcp.is_null() {
        return false;
    }
    // SAFETY: a socket and its tcp_sock.
    let (copied, received, shut): (u32, u32, u8) = unsafe {
        (
            T::Access::load(tcp, offset!(tcp_copied_seq)),
            T::Access::load(tcp, offset!(tcp_rcv_nxt)),
            T::Access::load(sk, offset!(sk_shutdown)),
        )
    };
    received.wrapping_sub(copied) as i32 > (shut & RCV_SHUTDOWN) as i32
}

/// Counts what moved after the last call we saw (spliced, say), as far as the sequence numbers tell.
#[inline(always)]
pub fn last_bytes<T: Tier>(conn: &mut Conn, sk: *const u8) {
    if conn.flags & flags::LAYERED != 0 {
        return;
    }
    let tcp = T::tcp(sk);
    if tcp.is_null() {
        return;
    }
    // SAFETY: `tcp` is a tcp_sock.
    let (copied, written): (u32, u32) =
        unsafe { (T::Access::load(tcp, offset!(tcp_copied_seq)), T::Access::load(tcp, offset!(tcp_write_seq))) };
    let mut unseen = 0;
    if conn.flags & flags::RECV_KNOWN != 0 {
        let fin = fin_read::<T>(sk, tcp, copied) as i32;
        let received = copied.wrapping_sub(conn.recv.seq) as i32 - fin;
        if received > 0 {
            conn.recv_bytes += received as u64;
            unseen += received as u64;
        }
    }
    if conn.flags & flags::SEND_KNOWN != 0 {
        // Our own FIN has taken one number, unless the connection was reset.
        let sent = written.wrapping_sub(conn.send.seq) as i32 - 1;
        if sent > 0 {
            conn.sent_bytes += sent as u64;
            unseen += sent as u64;
        }
    }
    if unseen != 0 {
        counters::add(counter::BYTES_OPAQUE, unseen);
    }
}

/// Takes the position of both streams when the connection is made.
#[inline(always)]
pub fn begin<T: Tier>(conn: &mut Conn, sk: *const u8) {
    let tcp = T::tcp(sk);
    if tcp.is_null() {
        return;
    }
    // SAFETY: `tcp` is a tcp_sock.
    unsafe {
        if conn.flags & flags::RECV_KNOWN == 0 {
            conn.recv.seq = T::Access::load(tcp, offset!(tcp_copied_seq));
        }
        if conn.flags & flags::SEND_KNOWN == 0 {
            conn.send.seq = T::Access::load(tcp, offset!(tcp_write_seq));
        }
    }
    conn.flags |= flags::RECV_KNOWN | flags::SEND_KNOWN;
}
