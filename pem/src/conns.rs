//! The connections of this machine: who speaks with whom, how much, and what.
//!
//! A connection is known by the kernel's `conn_id`, so that a file descriptor used again is another connection. It is
//! learned from whichever record comes first: its opening, or some bytes when the opening was lost or was before us.
//! Bytes go through [`flow`] (order, gaps) to the parser of the connection's protocol, counts go to [`stats`].

mod facts;
mod flow;
mod stats;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use ebpf_abi::{ConnClose, ConnOpen, ConnStats, Data, direction, open_flags, protocol, role};
use rustc_hash::FxHasher;

pub use self::facts::{Facts, Side, Text, UNKNOWN_ADDR};
use self::flow::{Deliver, Flow, HOLD_NS, Piece};
use self::stats::{Counted, Groups, Key};
use crate::core::loss::{Ledger, Source};
use crate::core::machine::Machine;
use crate::core::sink::Sink;
use crate::protocols::{self, Context, Direction, End, PROTOCOLS, Parser, Rows, Settings};

/// Connections that are tracked. Half of Pixie's 131,072: at some 600 bytes each 40 MB when full. The least active of
/// a few goes when one more comes.
pub const CONNECTIONS_MAX: usize = 65_536;

/// Of so many connections the one that was silent for longest goes when there are too many.
const EVICT_AMONG: usize = 64;

/// Memory that pieces of all connections may take while they wait for the piece before them.
const HELD_BYTES_MAX: usize = 32 << 20;

/// Memory that parsers may hold in all; beyond it, those that hold most of a share begin anew. Far above what 10,000
/// busy connections need.
const PARSERS_BYTES_MAX: usize = 64 << 20;

/// A connection without any record for so long whose process is gone, so that its end must have been lost; long enough
/// for a child that inherited it to be heard of.
const ORPHAN_IDLE_NS: u64 = 60_000_000_000;

/// A connection without any record for so long is taken to have ended unseen. Idle connections of pools live for hours.
const IDLE_NS: u64 = 4 * 3_600_000_000_000;

/// Ticks in which each connection is looked at once.
const SWEEP_TICKS: usize = 10;

struct Conn {
    id: u64,
    facts: Facts,
    protocol: u8,
    /// An opening told who it is.
    named: bool,
    /// As the kernel counts: since it first saw the connection, which may be long before we did.
    sent: u64,
    received: u64,
    /// What it had counted when we met the connection; `None` until that shows.
    base: Option<Base>,
    /// What the data records alone add up to, for when counts come late.
    sent_seen: u64,
    received_seen: u64,
    flow: Flow,
    parser: Option<Box<dyn Parser>>,
    /// Index of the parser's protocol in [`PROTOCOLS`].
    parsed_as: usize,
    /// Memory of the parser as last counted.
    parser_bytes: usize,
    /// Nothing more is to be parsed here.
    deaf: bool,
    counted: Counted,
    dirty: bool,
    last_ns: u64,
    closed_ns: Option<u64>,
}

/// Counts of the kernel from which ours begin.
#[derive(Clone, Copy, Default)]
struct Base {
    sent: u64,
    received: u64,
}

/// What the connections need from the core with each call.
pub struct Outside<'a> {
    pub machine: &'a Machine,
    pub settings: &'a Settings,
    /// By protocol, as in [`PROTOCOLS`].
    pub rows: &'a mut [Sink],
    pub ledger: &'a mut Ledger,
    /// Records went missing lately, so that a gap in a stream is likely one of them.
    pub lossy: bool,
}

/// All connections.
#[derive(Default)]
pub struct Conns {
    index: HashMap<u64, u32, BuildHasherDefault<FxHasher>>,
    /// Places are used again; iteration is by place and so the same on each replay.
    slots: Vec<Option<Box<Conn>>>,
    free: Vec<u32>,
    groups: Groups,
    dirty: Vec<u32>,
    holding: Vec<u32>,
    closing: Vec<u32>,
    held_bytes: usize,
    parser_bytes: usize,
    sweep: usize,
    /// Most connections kept, [`CONNECTIONS_MAX`] but in tests.
    max: Option<usize>,
}

impl Conns {
    /// With a smaller bound, for tests.
    pub fn bounded(max: usize) -> Self {
        Self { max: Some(max), ..Self::default() }
    }

    /// Connections known.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// A connection was opened, or more is known of it.
    pub fn open(&mut self, out: &mut Outside<'_>, open: &ConnOpen) {
        let (slot, fresh) = self.slot(out, open.conn_id, open.header.time_ns);
        let Some(conn) = self.slots.get_mut(slot as usize).and_then(|s| s.as_deref_mut()) else { return };
        conn.last_ns = conn.last_ns.max(open.header.time_ns);
        conn.named = true;
        let facts = &mut conn.facts;
        facts.upid = out.machine.upid(open.process);
        if open.local.family != 0 {
            facts.local = Side::new(&open.local);
        }
        if open.remote.family != 0 {
            facts.remote = Side::new(&open.remote);
            facts.family = open.remote.family;
        }
        if open.role == role::CLIENT || open.role == role::SERVER {
            facts.role = open.role;
        }
        // The opening may come after the first bytes when another CPU wrote them: then they wait for it.
        if (fresh || conn.flow.untouched()) && open.flags & (open_flags::EXISTING | open_flags::AGAIN) == 0 {
            facts.existing = false;
            conn.flow.start();
        }
        if open.flags & open_flags::AGAIN == 0 {
            conn.base = Some(Base::default());
        }
        if open.protocol != protocol::UNKNOWN {
            conn.protocol = open.protocol;
        }
        let held = conn.flow.held_bytes();
        conn.with_flow(out, |flow, to| flow.name(to));
        self.held_bytes = self.held_bytes + conn.flow.held_bytes() - held;
        conn.after_parser(&mut self.parser_bytes);
        self.mark(slot);
    }

    /// Bytes crossed it.
    pub fn data(&mut self, out: &mut Outside<'_>, data: &Data, payload: &[u8]) {
        let direction = match data.direction {
            direction::SEND => Direction::Send,
            direction::RECV => Direction::Recv,
            _ => return out.ledger.add(Source::Ring, "", "malformed_record", 1, payload.len() as u64),
        };
        let (slot, _) = self.slot(out, data.conn_id, data.header.time_ns);
        let Some(conn) = self.slots.get_mut(slot as usize).and_then(|s| s.as_deref_mut()) else { return };
        conn.last_ns = conn.last_ns.max(data.header.time_ns);
        if !conn.named && conn.facts.upid.pid == 0 {
            conn.facts.upid = out.machine.upid(data.process);
        }
        conn.learn(data.protocol, data.role);
        let first = conn.sent_seen == 0 && conn.received_seen == 0;
        match direction {
            Direction::Send => conn.sent_seen = conn.sent_seen.saturating_add(data.total as u64),
            Direction::Recv => conn.received_seen = conn.received_seen.saturating_add(data.total as u64),
        }
        if !conn.deaf {
            conn.listen(payload, first);
            let held = conn.flow.held_bytes();
            let held_before = conn.flow.holds();
            // Where nothing was copied and nobody listens the order does not matter, only the position reached.
            let nothing = conn.parser.is_none() && payload.is_empty();
            let crowded = self.held_bytes > HELD_BYTES_MAX || nothing;
            let piece =
                Piece { direction, pos: data.pos, total: data.total as u64, payload, time_ns: data.header.time_ns };
            conn.with_flow(out, |flow, to| flow.push(piece, crowded, to));
            self.held_bytes = self.held_bytes + conn.flow.held_bytes() - held;
            if conn.flow.holds() && !held_before {
                self.holding.push(slot);
            }
            conn.after_parser(&mut self.parser_bytes);
        }
        self.mark(slot);
    }

    /// Its counts so far.
    pub fn stats(&mut self, out: &mut Outside<'_>, stats: &ConnStats) {
        let (slot, _) = self.slot(out, stats.conn_id, stats.header.time_ns);
        let Some(conn) = self.slots.get_mut(slot as usize).and_then(|s| s.as_deref_mut()) else { return };
        conn.last_ns = conn.last_ns.max(stats.header.time_ns);
        if !conn.named && conn.facts.upid.pid == 0 {
            conn.facts.upid = out.machine.upid(stats.process);
        }
        conn.learn(stats.protocol, stats.role);
        conn.sent = conn.sent.max(stats.sent_bytes);
        conn.received = conn.received.max(stats.recv_bytes);
        // Met midway: what came before our first record of it was not counted by us. (It was told to our predecessor.)
        conn.base.get_or_insert(Base {
            sent: stats.sent_bytes.saturating_sub(conn.sent_seen),
            received: stats.recv_bytes.saturating_sub(conn.received_seen),
        });
        self.mark(slot);
    }

    /// It ended. Records of other CPUs may still come: it goes with the next tick.
    pub fn close(&mut self, out: &mut Outside<'_>, close: &ConnClose) {
        self.stats(out, &close.stats);
        let Some(&slot) = self.index.get(&close.stats.conn_id) else { return };
        let Some(conn) = self.slots.get_mut(slot as usize).and_then(|s| s.as_deref_mut()) else { return };
        if conn.closed_ns.is_none() {
            conn.closed_ns = Some(close.stats.header.time_ns);
            self.closing.push(slot);
        }
    }

    /// Time passed and the ring was drained. `ended` tells whether a process is known to be gone.
    pub fn tick(&mut self, out: &mut Outside<'_>, now_ns: u64, ended: impl Fn(crate::upid::Upid) -> bool) {
        for slot in std::mem::take(&mut self.holding) {
            let Some(conn) = self.slots.get_mut(slot as usize).and_then(|s| s.as_deref_mut()) else { continue };
            let held = conn.flow.held_bytes();
            conn.with_flow(out, |flow, to| flow.give_up(now_ns.saturating_sub(HOLD_NS), to));
            self.held_bytes = self.held_bytes + conn.flow.held_bytes() - held;
            if conn.flow.holds() {
                self.holding.push(slot);
            }
            conn.after_parser(&mut self.parser_bytes);
        }
        for slot in std::mem::take(&mut self.closing) {
            // It may have made room since, and the place be another's.
            let closed = self.slots.get(slot as usize).and_then(Option::as_ref).is_some_and(|c| c.closed_ns.is_some());
            if closed {
                self.end(out, slot, Ending::Closed);
            }
        }
        self.sweep(out, now_ns, ended);
    }

    /// Writes the rows of `conn_stats` that are due.
    pub fn tell(&mut self, out: &mut Outside<'_>, now_ns: u64, rows: &mut dyn Rows) {
        for slot in std::mem::take(&mut self.dirty) {
            if let Some(conn) = self.slots.get_mut(slot as usize).and_then(|s| s.as_deref_mut())
                && std::mem::take(&mut conn.dirty)
            {
                conn.count(out, &mut self.groups);
            }
        }
        self.groups.tell(now_ns, out.machine.epoch_ns(now_ns), rows);
    }

    /// Forgets all, since what comes of them next does not continue what came. Requests under way are told as lost.
    pub fn forget(&mut self, out: &mut Outside<'_>) {
        for slot in 0..self.slots.len() {
            self.end(out, slot as u32, Ending::Forgotten);
        }
        // Else a connection that takes a place again would be ended, or waited for, in the name of the one before.
        self.closing.clear();
        self.holding.clear();
    }

    fn mark(&mut self, slot: u32) {
        if let Some(conn) = self.slots.get_mut(slot as usize).and_then(|s| s.as_deref_mut())
            && !std::mem::replace(&mut conn.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    /// Where the connection is, and whether it was made just now.
    fn slot(&mut self, out: &mut Outside<'_>, id: u64, now_ns: u64) -> (u32, bool) {
        if let Some(&slot) = self.index.get(&id) {
            return (slot, false);
        }
        if self.index.len() >= self.max.unwrap_or(CONNECTIONS_MAX) {
            self.evict(out);
        }
        let conn = Some(Box::new(Conn::new(id, now_ns)));
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.slots.get_mut(slot as usize) {
                    *place = conn;
                }
                slot
            }
            None => {
                self.slots.push(conn);
                (self.slots.len() - 1) as u32
            }
        };
        self.index.insert(id, slot);
        (slot, true)
    }

    /// Makes room: of the next few, the one that was silent for longest ends.
    fn evict(&mut self, out: &mut Outside<'_>) {
        let len = self.slots.len().max(1);
        let begin = self.sweep % len;
        self.sweep = (begin + EVICT_AMONG) % len;
        let places = (begin..len).chain(0..begin).take(EVICT_AMONG);
        let oldest = places
            .filter_map(|at| Some((self.slots.get(at)?.as_ref()?.last_ns, at)))
            .min()
            // All of those places were free: take the first that is not.
            .or_else(|| self.slots.iter().enumerate().find_map(|(at, s)| s.as_ref().map(|c| (c.last_ns, at))));
        if let Some((_, at)) = oldest {
            self.end(out, at as u32, Ending::LetGo("connections_full"));
        }
    }

    fn sweep(&mut self, out: &mut Outside<'_>, now_ns: u64, ended: impl Fn(crate::upid::Upid) -> bool) {
        let len = self.slots.len();
        let share = len.div_ceil(SWEEP_TICKS);
        for _ in 0..share {
            self.sweep = (self.sweep + 1) % len.max(1);
            let Some(conn) = self.slots.get_mut(self.sweep).and_then(|s| s.as_deref_mut()) else { continue };
            let idle_ns = now_ns.saturating_sub(conn.last_ns);
            if idle_ns > IDLE_NS {
                self.end(out, self.sweep as u32, Ending::LetGo("idle"));
            } else if idle_ns > ORPHAN_IDLE_NS && ended(conn.facts.upid) {
                self.end(out, self.sweep as u32, Ending::LetGo("close_lost"));
            } else {
                conn.parser_tick(out, now_ns);
                conn.after_parser(&mut self.parser_bytes);
                // The mean would be PARSERS_BYTES_MAX / len: who holds twice that pays for all.
                if self.parser_bytes > PARSERS_BYTES_MAX && conn.parser_bytes > 2 * PARSERS_BYTES_MAX / len.max(1) {
                    conn.restart_parser(out, &mut self.parser_bytes);
                }
            }
        }
    }

    /// Ends a connection for good.
    fn end(&mut self, out: &mut Outside<'_>, slot: u32, ending: Ending) {
        let Some(mut conn) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        if let Ending::LetGo(reason) = ending {
            out.ledger.add(Source::Reassembly, "conn_stats", reason, 1, 0);
        }
        // What was told of its end holds, whoever lets go of it.
        let end = if conn.closed_ns.is_some() { End::Closed } else { End::Unseen };
        let held = conn.flow.held_bytes();
        let (sent, received) = match conn.closed_ns {
            Some(_) => (conn.sent, conn.received),
            None => (0, 0),
        };
        conn.with_flow(out, |flow, to| flow.finish(sent, received, to));
        self.held_bytes -= held;
        let end_ns = conn.closed_ns.unwrap_or(conn.last_ns);
        conn.with_parser(out, |parser, cx| parser.close(cx, end_ns, end));
        self.parser_bytes -= conn.parser_bytes;
        conn.count(out, &mut self.groups);
        self.groups.close(&conn.counted);
        self.index.remove(&conn.id);
        self.free.push(slot);
    }
}

/// Why a connection is not kept any longer.
#[derive(Clone, Copy)]
enum Ending {
    /// It was told as closed.
    Closed,
    /// By us, with the reason for `data_loss`. It may well go on.
    LetGo(&'static str),
    /// By us, with all others.
    Forgotten,
}

impl Conn {
    fn new(id: u64, now_ns: u64) -> Self {
        Self {
            id,
            facts: Facts::default(),
            protocol: protocol::UNKNOWN,
            named: false,
            sent: 0,
            received: 0,
            base: None,
            sent_seen: 0,
            received_seen: 0,
            flow: Flow::default(),
            parser: None,
            parsed_as: 0,
            parser_bytes: 0,
            deaf: false,
            counted: Counted::default(),
            dirty: false,
            last_ns: now_ns,
            closed_ns: None,
        }
    }

    /// Takes what the kernel inferred. The opening's role comes from accept or connect and holds.
    fn learn(&mut self, protocol: u8, role: u8) {
        if protocol != protocol::UNKNOWN {
            self.protocol = protocol;
        }
        if self.facts.role == role::UNKNOWN && (role == role::CLIENT || role == role::SERVER) {
            self.facts.role = role;
        }
    }

    /// Makes the parser once the protocol is known, from the kernel or from the bytes themselves.
    fn listen(&mut self, payload: &[u8], first: bool) {
        if self.parser.is_some() {
            return;
        }
        let found = match self.protocol {
            protocol::UNKNOWN => PROTOCOLS.iter().enumerate().find(|(_, p)| !payload.is_empty() && (p.infer)(payload)),
            number => protocols::find(number),
        };
        if let Some((index, protocol)) = found {
            self.parser = Some((protocol.parser)());
            self.parsed_as = index;
            // Bytes that went by before are a beginning that the parser has not seen.
            self.facts.existing |= !first;
        }
    }

    fn with_flow(&mut self, out: &mut Outside<'_>, run: impl FnOnce(&mut Flow, &mut Feed<'_, '_>)) {
        let Some(rows) = out.rows.get_mut(self.parsed_as) else { return };
        let mut feed = Feed {
            parser: self.parser.as_deref_mut(),
            table: PROTOCOLS.get(self.parsed_as).map_or("", |p| p.table.name),
            lossy: out.lossy,
            cx: Context {
                conn: &self.facts,
                boot_to_epoch_ns: out.machine.boot_to_epoch_ns,
                settings: out.settings,
                rows,
                ledger: out.ledger,
            },
        };
        run(&mut self.flow, &mut feed);
    }

    fn with_parser(&mut self, out: &mut Outside<'_>, run: impl FnOnce(&mut dyn Parser, &mut Context<'_>)) {
        let (Some(parser), Some(rows)) = (self.parser.as_deref_mut(), out.rows.get_mut(self.parsed_as)) else { return };
        let mut cx = Context {
            conn: &self.facts,
            boot_to_epoch_ns: out.machine.boot_to_epoch_ns,
            settings: out.settings,
            rows,
            ledger: out.ledger,
        };
        run(parser, &mut cx);
    }

    fn parser_tick(&mut self, out: &mut Outside<'_>, now_ns: u64) {
        if self.parser.as_ref().is_some_and(|parser| parser.wants_tick()) {
            self.with_parser(out, |parser, cx| parser.tick(cx, now_ns));
        }
    }

    /// Takes from the parser what it found out.
    fn after_parser(&mut self, total: &mut usize) {
        let Some(parser) = &self.parser else { return };
        if self.facts.role == role::UNKNOWN
            && let Some(role) = parser.role()
        {
            self.facts.role = role;
        }
        if self.protocol == protocol::UNKNOWN && parser.role().is_some() {
            self.protocol = PROTOCOLS.get(self.parsed_as).map_or(protocol::UNKNOWN, |p| p.number);
        }
        let bytes = parser.bytes_held();
        *total = *total + bytes - self.parser_bytes;
        self.parser_bytes = bytes;
        if parser.done() {
            *total -= self.parser_bytes;
            self.parser_bytes = 0;
            self.parser = None;
            self.deaf = true;
        }
    }

    fn restart_parser(&mut self, out: &mut Outside<'_>, total: &mut usize) {
        let bytes = self.parser_bytes;
        out.ledger.add(
            Source::Parser,
            PROTOCOLS.get(self.parsed_as).map_or("", |p| p.table.name),
            "memory",
            1,
            bytes as u64,
        );
        *total -= bytes;
        self.parser_bytes = 0;
        self.parser = None;
        self.facts.existing = true;
    }

    fn count(&mut self, out: &mut Outside<'_>, groups: &mut Groups) {
        let key = Key::of(&self.facts, self.protocol);
        let base = self.base.unwrap_or_default();
        let sent = self.sent.saturating_sub(base.sent).max(self.sent_seen);
        let received = self.received.saturating_sub(base.received).max(self.received_seen);
        if !groups.count(&mut self.counted, key, sent, received) {
            out.ledger.add(Source::Store, "conn_stats", "keys_full", 1, 0);
        }
    }
}

/// From a flow to a parser.
struct Feed<'p, 'c> {
    parser: Option<&'p mut (dyn Parser + 'static)>,
    table: &'static str,
    lossy: bool,
    cx: Context<'c>,
}

impl Deliver for Feed<'_, '_> {
    fn data(&mut self, direction: Direction, bytes: &[u8], time_ns: u64) {
        if let Some(parser) = &mut self.parser {
            parser.data(&mut self.cx, direction, bytes, time_ns);
        }
    }

    fn gap(&mut self, direction: Direction, bytes: u64, time_ns: u64, lost: bool) {
        let Some(parser) = &mut self.parser else { return };
        if lost && self.lossy {
            self.cx.ledger.add(Source::Reassembly, self.table, "stream_gap", 1, bytes);
        }
        parser.gap(&mut self.cx, direction, bytes, time_ns);
    }
}
