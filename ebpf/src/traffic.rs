//! What every tier does with a socket call that moved bytes.

use aya_ebpf::{
    btf_maps::Array,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::btf_map,
};
use ebpf_abi::{
    CPUS_MAX, ConnClose, ConnOpen, ConnStats, DATA_MAX, DATA_RECORDS_PER_CALL, Data, Endpoint, Kind, Offsets,
    RUN_TAIL_BYTES, STATS_BYTES, STATS_NS, counter, data_flags, direction, open_flags, protocol, role,
};

use crate::{
    call::{Args, Source},
    conn::{Conn, Tier, flags},
    counters, emit,
    globals::{offset, setting},
    http::{self, LOOK_BYTES, Look},
    kernel::{Access, opaque},
    process,
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
pub const IPPROTO_TCP: u16 = 6;
const RCV_SHUTDOWN: u8 = 1;
/// Pieces of a caller's buffer list that are walked for one call, turns that end a record included. nginx sends a
/// proxied response in three to six pieces.
const PIECES_PER_CALL: usize = 24 + DATA_RECORDS_PER_CALL;
/// Pieces that are looked through for the first eight bytes: enough for one byte each, and some empty ones.
const LOOK_PIECES: usize = 12;
/// Calls of a connection that are looked at one after the other while its protocol is not known; two calls of each
/// direction tell a connection that we saw from its beginning, the rest is for those we met in the middle of a body.
const LOOKS_FIRST: u16 = 32;
/// After that every so-manieth is (a power of two).
const LOOKS_EVERY: u16 = 64;
/// Changes of owner that are told; a socket that two processes use in turn would tell one per call.
const MOVES_TOLD: u16 = 8;

/// Where a record is put together: too large for the stack, and written with exactly its length.
#[repr(C)]
struct Scratch {
    walk: Walk,
    head: Data,
    /// Twice the most that is used, so that `fill + piece` stays inside by the separate bounds of both, which is all the
    /// verifier can follow.
    payload: [u8; 2 * DATA_MAX],
}

/// How far the copying of a call has come. It lives in a map so that the verifier forgets the values with each step:
/// were they in registers, it would follow every combination of them through every turn of the loop, and give up.
#[repr(C)]
struct Walk {
    address: Forgotten,
    piece: Forgotten,
    iovs: Forgotten,
    iov_count: Forgotten,
    /// Bytes in the record so far.
    fill: Forgotten,
    /// Bytes still to be copied.
    want: Forgotten,
    /// Position of the record's first byte.
    pos: Forgotten,
    /// Bytes of the call that no record stands for yet.
    left: Forgotten,
}

/// A value that is always read back from memory.
#[repr(transparent)]
struct Forgotten(u64);

impl Forgotten {
    #[inline(always)]
    fn get(&self) -> u64 {
        // SAFETY: a reference is valid.
        unsafe { (&raw const self.0).read_volatile() }
    }

    #[inline(always)]
    fn set(&mut self, value: u64) {
        // SAFETY: a reference is valid.
        unsafe { (&raw mut self.0).write_volatile(value) }
    }
}

impl Walk {
    #[inline(always)]
    fn begin(&mut self, source: &Source, want: u64) {
        self.address.set(source.address);
        self.piece.set(source.left);
        self.iovs.set(source.iovs);
        self.iov_count.set(source.iov_count);
        self.want.set(want);
    }

    /// Where the next bytes are; there may be none in this piece, only in the one after.
    #[inline(always)]
    fn next_piece(&mut self) -> Option<u64> {
        if self.piece.get() == 0 {
            let mut source = Source { address: 0, left: 0, iovs: self.iovs.get(), iov_count: self.iov_count.get() };
            if !source.next() {
                return None;
            }
            self.address.set(source.address);
            self.piece.set(source.left);
            self.iovs.set(source.iovs);
            self.iov_count.set(source.iov_count);
        }
        Some(self.address.get())
    }

    /// `taken` bytes at `address` are done.
    #[inline(always)]
    fn take(&mut self, address: u64, taken: u64, want: u64) {
        self.want.set(want - taken);
        self.address.set(address + taken);
        let piece = self.piece.get();
        self.piece.set(piece - taken);
    }
}

/// This CPU's element for a direction.
#[inline(always)]
fn scratch<const DIRECTION: u8>() -> Option<&'static mut Scratch> {
    let index = 2 * counters::cpu() + (DIRECTION - 1) as u32;
    // SAFETY: checked by the verifier; nobody else uses this element while we run.
    SCRATCH.get_ptr_mut(index).map(|scratch| unsafe { &mut *scratch })
}

/// One per CPU and direction (programs of different directions may preempt one another on newer kernels); the loader
/// cuts it to the CPUs there are. Not a per-CPU array, as elements of those end at 32 KiB.
#[btf_map]
static SCRATCH: Array<Scratch, { 2 * CPUS_MAX as usize }> = Array::new();

/// A socket call has returned.
#[derive(Clone, Copy)]
pub struct Moved {
    pub sk: *const u8,
    /// What it returned: bytes, or a negative error.
    pub result: i64,
}

/// Entry of every tier.
#[inline(always)]
pub fn moved<T: Tier, const DIRECTION: u8>(call: Moved, args: &impl Args, task: *const u8) {
    counters::add(counter::CALLS, 1);
    let found = if call.result > 0 { T::find_or_make(call.sk) } else { T::find(call.sk) };
    let Some(conn) = found else {
        if call.result > 0 {
            counters::add(counter::LOST_NO_STATE, 1);
        }
        return;
    };
    // SAFETY: checked by the verifier. Two threads on one socket may both be here; each field is written whole and a
    // lost update costs a count or a repeated look, never more.
    let conn = unsafe { &mut *conn };
    if conn.flags & flags::IGNORED != 0 {
        return;
    }
    if conn.id == 0 {
        conn.id = T::fresh_id(call.sk, conn.generation);
        conn.flags |= flags::EXISTING;
        conn.reported_ns = emit::now_ns();
    }
    if !adopt::<T>(conn, call.sk, task, args.get(0) as i32) {
        return;
    }
    if call.result <= 0 {
        if conn.flags & (flags::OPENED | flags::CLOSED) == 0 {
            open(conn, call.sk, emit::now_ns());
        }
        return;
    }
    bytes::<T, DIRECTION>(conn, call, args);
}

/// Notes who uses the connection; false if it is not to be traced.
#[inline(always)]
pub fn adopt<T: Tier>(conn: &mut Conn, sk: *const u8, task: *const u8, fd: i32) -> bool {
    // SAFETY: takes nothing.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    if conn.owner.pid == pid {
        return true;
    }
    if process::ignored(pid) || is_kernels::<T>(sk) {
        conn.flags |= flags::IGNORED;
        return false;
    }
    // SAFETY: `task` is the current task.
    let start_ns = unsafe {
        let leader: *const u8 = T::Access::load(task, offset!(task_group_leader));
        T::Access::load(leader, offset!(task_start_boottime))
    };
    if conn.owner.pid != 0 && conn.moves < MOVES_TOLD {
        conn.moves += 1;
        conn.flags |= flags::CHANGED;
    }
    conn.owner.pid = pid;
    conn.owner.start_ns = start_ns;
    conn.fd = fd;
    true
}

/// A socket without a file is the kernel's own (NFS, a block device): the running call's buffers are not its bytes.
#[inline(always)]
fn is_kernels<T: Tier>(sk: *const u8) -> bool {
    // SAFETY: `sk` is a socket; both members are pointers.
    unsafe {
        let socket: *const u8 = T::Access::load(sk, offset!(sk_socket));
        if socket.is_null() {
            return true;
        }
        let file: *const u8 = T::Access::load(socket, offset!(socket_file));
        file.is_null()
    }
}

#[inline(always)]
fn bytes<T: Tier, const DIRECTION: u8>(conn: &mut Conn, call: Moved, args: &impl Args) {
    let now = emit::now_ns();
    let total = if call.result > i32::MAX as i64 { i32::MAX as u32 } else { call.result as u32 };
    let place = place::<T, DIRECTION>(conn, call.sk, total);

    let (count, other) = if DIRECTION == direction::SEND {
        (&mut conn.sent_bytes, &mut conn.recv)
    } else {
        (&mut conn.recv_bytes, &mut conn.send)
    };
    *count += total as u64 + place.unseen;
    other.run = 0;
    if place.unseen != 0 {
        counters::add(counter::BYTES_OPAQUE, place.unseen);
    }

    let source = Source::of::<DIRECTION>(args);
    let mut held = 0;
    if conn.protocol == protocol::UNKNOWN {
        held = infer::<DIRECTION>(conn, &source, total);
    }
    let wanted = setting!(protocols) >> conn.protocol & 1 != 0 && conn.protocol != protocol::UNKNOWN;
    if conn.flags & flags::CLOSED == 0 && conn.flags & (flags::OPENED | flags::CHANGED) != flags::OPENED {
        open(conn, call.sk, now);
    }
    if wanted && conn.flags & flags::SWITCHED == 0 {
        copy::<DIRECTION>(conn, source, total, &place, held, now);
    }
    let sum = conn.sent_bytes + conn.recv_bytes;
    if conn.flags & flags::CLOSED == 0
        && (sum - conn.reported_bytes >= STATS_BYTES || now - conn.reported_ns >= STATS_NS)
    {
        conn.reported_bytes = sum;
        conn.reported_ns = now;
        let stats = stats(conn, Kind::ConnStats, now);
        // SAFETY: a local, whole.
        unsafe { emit::write((&raw const stats).cast(), size_of::<ConnStats>() as u32) };
    }
}

/// Where in its stream the bytes of a call lie.
struct Place {
    pos: u64,
    exact: bool,
    /// Bytes before them that moved without our seeing the call.
    unseen: u64,
}

#[inline(always)]
fn place<T: Tier, const DIRECTION: u8>(conn: &mut Conn, sk: *const u8, total: u32) -> Place {
    let (known, layered) = (conn.flags, conn.flags & flags::LAYERED != 0);
    let (stream, known_bit) = if DIRECTION == direction::SEND {
        (&mut conn.send, flags::SEND_KNOWN)
    } else {
        (&mut conn.recv, flags::RECV_KNOWN)
    };
    let counted = Place { pos: stream.pos, exact: false, unseen: 0 };
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
        // Another thread came between the call and this program: the bytes are before those it reported.
        stream.seq = expected;
        stream.pos = counted.pos;
        return Place { pos: counted.pos.wrapping_add(unseen as i64 as u64), exact: true, unseen: 0 };
    }
    stream.pos += unseen as u64;
    Place { pos: counted.pos + unseen as u64, exact: true, unseen: unseen as u64 }
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

/// Tries to tell the protocol from the beginning of this call. Returns how many bytes of earlier calls, kept in
/// `conn.held`, belong before it and were not written yet.
#[inline(always)]
fn infer<const DIRECTION: u8>(conn: &mut Conn, source: &Option<Source>, total: u32) -> u32 {
    let earlier = if conn.held_direction == DIRECTION { conn.held_count as u32 } else { 0 };
    conn.held_count = 0;
    let looks = conn.looks;
    if looks >= LOOKS_FIRST && looks & (LOOKS_EVERY - 1) != 0 && earlier == 0 {
        conn.looks = if looks == u16::MAX { LOOKS_FIRST } else { looks + 1 };
        return 0;
    }
    conn.looks = if looks == u16::MAX { LOOKS_FIRST } else { looks + 1 };
    let Some(source) = *source else { return 0 };
    let Some(scratch) = scratch::<DIRECTION>() else { return 0 };
    let walk = &mut scratch.walk;
    walk.begin(&source, total as u64);
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
    match look {
        Look::Other => return 0,
        Look::Undecided => {
            if total + earlier == count {
                conn.held = word;
                conn.held_count = count as u8;
                conn.held_direction = DIRECTION;
            }
            return 0;
        }
        Look::Request | Look::Response | Look::Http2 => {}
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

/// Copies the payload of a call into as many records as it takes.
#[inline(always)]
fn copy<const DIRECTION: u8>(conn: &mut Conn, source: Option<Source>, total: u32, place: &Place, held: u32, now: u64) {
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
        send_record(scratch, held, held, exact | data_flags::MORE, now);
    }

    let Some(source) = source else {
        counters::add(counter::BYTES_OPAQUE, total as u64);
        scratch.head.pos = place.pos;
        send_record(scratch, total, 0, exact | data_flags::OPAQUE, now);
        return;
    };

    let stream = if DIRECTION == direction::SEND { &mut conn.send } else { &mut conn.recv };
    let limit = if stream.run >= setting!(run_bytes) { RUN_TAIL_BYTES } else { setting!(call_bytes) };
    let want = if total < limit { total } else { limit };
    stream.run += want;
    if total > want {
        counters::add(counter::BYTES_OVER_CAP, (total - want) as u64);
    }
    let walk = &mut scratch.walk;
    walk.begin(&source, want as u64);
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
                send_record(scratch, fill as u32, fill as u32, exact | data_flags::MORE, now);
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
    send_record(scratch, left as u32, fill as u32, exact | bits, now);
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
fn send_record(scratch: &mut Scratch, total: u32, captured: u32, bits: u16, now: u64) {
    let captured = opaque(captured as u64) as u32;
    if captured > DATA_MAX as u32 {
        return;
    }
    let len = size_of::<Data>() as u32 + captured;
    scratch.head.header = emit::header(Kind::Data, len, now);
    scratch.head.total = total;
    scratch.head.captured = captured;
    scratch.head.flags = bits;
    // SAFETY: the head and the payload that was just filled, by the bound above inside the element.
    if !unsafe { emit::write((&raw const scratch.head).cast(), len) } {
        counters::add(counter::LOST_RING_BYTES, captured as u64);
    }
}

#[inline(always)]
fn told_role(conn: &Conn) -> u8 {
    if conn.role == 0 { role::UNKNOWN } else { conn.role }
}

/// Tells what is known of a connection.
#[inline(always)]
pub fn open(conn: &mut Conn, sk: *const u8, now: u64) {
    conn.flags = conn.flags & !flags::CHANGED | flags::OPENED;
    let (local, remote, netns) = ends(sk);
    let record = ConnOpen {
        header: emit::header(Kind::ConnOpen, size_of::<ConnOpen>() as u32, now),
        process: conn.owner,
        conn_id: conn.id,
        local,
        remote,
        transport: IPPROTO_TCP as u8,
        role: told_role(conn),
        protocol: conn.protocol,
        zero: 0,
        flags: if conn.flags & flags::EXISTING != 0 { open_flags::EXISTING } else { 0 },
        zero2: 0,
        fd: conn.fd,
        netns,
    };
    // SAFETY: a local, whole.
    unsafe { emit::write((&raw const record).cast(), size_of::<ConnOpen>() as u32) };
}

/// Both ends of a socket and its network namespace. Happens once per connection, so it uses the form of reading that
/// works for all tiers.
#[inline(always)]
fn ends(sk: *const u8) -> (Endpoint, Endpoint, u32) {
    use crate::kernel::Probed;
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
fn stats(conn: &Conn, kind: Kind, now: u64) -> ConnStats {
    ConnStats {
        header: emit::header(kind, size_of::<ConnStats>() as u32, now),
        process: conn.owner,
        conn_id: conn.id,
        sent_bytes: conn.sent_bytes,
        recv_bytes: conn.recv_bytes,
        protocol: conn.protocol,
        role: told_role(conn),
        zero: [0; 6],
    }
}

/// Tells that a connection ended, with its final counts.
#[inline(always)]
pub fn close<T: Tier>(conn: &mut Conn, sk: *const u8, now: u64) {
    last_bytes::<T>(conn, sk);
    let record = ConnClose { stats: stats(conn, Kind::ConnClose, now) };
    // SAFETY: a local, whole.
    unsafe { emit::write((&raw const record).cast(), size_of::<ConnClose>() as u32) };
}

/// Counts what moved after the last call we saw (spliced, say), as far as the sequence numbers tell.
#[inline(always)]
fn last_bytes<T: Tier>(conn: &mut Conn, sk: *const u8) {
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
