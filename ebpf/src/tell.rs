//! Telling of connections: that one is open, what it has moved so far, that it ended.
//!
//! All of this happens seldom, next to the calls; it is kept out of the way of the common path as functions of its own.

use ebpf_abi::{ConnClose, ConnOpen, ConnStats, Endpoint, Kind, Offsets, open_flags, role};

use crate::{
    conn::{Conn, flags},
    counters::Numbering,
    emit,
    globals::offset,
    kernel::{Access, Probed},
    reader,
};

pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const IPPROTO_TCP: u16 = 6;

/// The role as records have it.
#[inline(always)]
pub fn told_role(conn: &Conn) -> u8 {
    if conn.role == 0 { role::UNKNOWN } else { conn.role }
}

/// Tells what is known of a connection; if to somebody who may not have heard of it, its counts first, from which he counts on.
/// To be called before the bytes of a call are counted, so that they are not among those from before.
#[inline(always)]
pub fn known<N: Numbering>(conn: &mut Conn, sk: *const u8, now: u64) {
    if conn.told_ns != 0 && (conn.told_ns < reader::since() || conn.flags & flags::CHANGED == 0) {
        report::<N>(conn, now);
    }
    open::<N>(conn, sk, now);
}

#[cold]
#[inline(never)]
fn open<N: Numbering>(conn: &mut Conn, sk: *const u8, now: u64) {
    let (local, remote, netns) = ends(sk);
    let record = ConnOpen {
        header: emit::header::<N>(Kind::ConnOpen, size_of::<ConnOpen>() as u32, now),
        process: conn.owner,
        conn_id: conn.id,
        local,
        remote,
        transport: IPPROTO_TCP as u8,
        role: told_role(conn),
        protocol: conn.protocol,
        zero: 0,
        flags: if conn.flags & flags::EXISTING != 0 { open_flags::EXISTING } else { 0 }
            | if conn.told_ns != 0 { open_flags::AGAIN } else { 0 },
        zero2: 0,
        fd: conn.fd,
        netns,
    };
    // Lost, it is told again at the next call or survey.
    // SAFETY: a local, whole.
    if unsafe { emit::write((&raw const record).cast(), size_of::<ConnOpen>() as u32) } {
        conn.flags &= !flags::CHANGED;
        conn.told_ns = now;
    }
}

/// Both ends of a socket and its network namespace. Happens once per connection, so it uses the form of reading that
/// works for all tiers.
#[inline(always)]
fn ends(sk: *const u8) -> (Endpoint, Endpoint, u32) {
    let mut local = Endpoint::default();
    let mut remote = Endpoint::default();
    // SAFETY: `Probed` survives any address.
    unsafe {
        local.port = Probed::load::<u16>(sk, offset!(inet_sport)).swap_bytes();
        remote.port = Probed::load::<u16>(sk, offset!(skc_dport)).swap_bytes();
        let mut family: u16 = Probed::load(sk, offset!(skc_family));
        if family == AF_INET6 && offset!(skc_v6_daddr) != Offsets::ABSENT {
            let (near, far): ([u32; 4], [u32; 4]) =
                (Probed::load(sk, offset!(skc_v6_rcv_saddr)), Probed::load(sk, offset!(skc_v6_daddr)));
            if far[0] == 0 && far[1] == 0 && far[2] == 0xffff_0000 {
                // IPv4 over an IPv6 socket (::ffff:a.b.c.d): told as the IPv4 it is.
                family = AF_INET;
            } else {
                (&raw mut local.addr).cast::<[u32; 4]>().write_unaligned(near);
                (&raw mut remote.addr).cast::<[u32; 4]>().write_unaligned(far);
            }
        }
        if family == AF_INET {
            let (near, far): (u32, u32) =
                (Probed::load(sk, offset!(skc_rcv_saddr)), Probed::load(sk, offset!(skc_daddr)));
            (&raw mut local.addr).cast::<u32>().write_unaligned(near);
            (&raw mut remote.addr).cast::<u32>().write_unaligned(far);
        }
        local.family = family;
        remote.family = family;
        let net: *const u8 = Probed::load(sk, offset!(skc_net));
        let netns = if net.is_null() { 0 } else { Probed::load(net, offset!(net_inum)) };
        (local, remote, netns)
    }
}

#[inline(always)]
fn stats<N: Numbering>(conn: &Conn, kind: Kind, now: u64) -> ConnStats {
    ConnStats {
        header: emit::header::<N>(kind, size_of::<ConnStats>() as u32, now),
        process: conn.owner,
        conn_id: conn.id,
        sent_bytes: conn.sent_bytes,
        recv_bytes: conn.recv_bytes,
        protocol: conn.protocol,
        role: told_role(conn),
        zero: [0; 6],
    }
}

/// Tells the counts of a connection so far.
#[cold]
#[inline(never)]
pub fn report<N: Numbering>(conn: &mut Conn, now: u64) {
    let stats = stats::<N>(conn, Kind::ConnStats, now);
    // SAFETY: a local, whole.
    if unsafe { emit::write((&raw const stats).cast(), size_of::<ConnStats>() as u32) } {
        conn.reported_bytes = stats.sent_bytes + stats.recv_bytes;
        conn.reported_ns = now;
    }
}

/// Tells that a connection ended; its counts are final.
#[cold]
#[inline(never)]
pub fn close<N: Numbering>(conn: &Conn, now: u64) {
    let record = ConnClose { stats: stats::<N>(conn, Kind::ConnClose, now) };
    // SAFETY: a local, whole.
    unsafe { emit::write((&raw const record).cast(), size_of::<ConnClose>() as u32) };
}
