//! The bytes of one connection, put in order.
//!
//! Two CPUs may write their records in either order, and records may be lost. A piece that comes too early waits until
//! the piece before it comes or until it is clear that it will not. While one direction waits, pieces of the other that
//! are later in time wait too: else a response would overtake its request. Pieces that come before it is known whose they are
//! wait for that, as long as for a piece that is missing.

use crate::protocols::Direction;

/// How long a piece waits for the one before it. Records that were reserved in either order lie microseconds apart; by
/// the first tick after this the ring was drained, so what has not come is lost.
pub const HOLD_NS: u64 = 10_000_000;

/// Pieces of one connection that wait. A ring can be out of order by as many records as there are CPUs.
const HELD_PIECES_MAX: usize = 64;

/// Their bytes.
const HELD_BYTES_MAX: usize = 256 << 10;

/// Pieces in a row that lie wholly before the position reached until the count is taken to have started anew.
const BEFORE_MAX: u8 = 16;

/// A gap longer than this is no count of bytes but a jump of the counter.
const GAP_BYTES_MAX: u64 = 1 << 40;

/// One record's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub direction: Direction,
    pub pos: u64,
    /// Bytes it stands for.
    pub total: u64,
    /// The first of them.
    pub payload: &'a [u8],
    pub time_ns: u64,
}

/// Where bytes in order go.
pub trait Deliver {
    fn data(&mut self, direction: Direction, bytes: &[u8], time_ns: u64);
    /// Bytes that were not copied (`lost` false) or for which no record came (`lost` true). The time of those is not
    /// known; they are given that of the bytes before them. 0 bytes: nobody knows how many.
    fn gap(&mut self, direction: Direction, bytes: u64, time_ns: u64, lost: bool);
}

#[derive(Debug)]
struct Held {
    direction: Direction,
    pos: u64,
    total: u64,
    payload: Box<[u8]>,
    time_ns: u64,
}

impl Held {
    fn piece(&self) -> Piece<'_> {
        let Self { direction, pos, total, time_ns, .. } = *self;
        Piece { direction, pos, total, payload: &self.payload, time_ns }
    }
}

/// Order of one connection's bytes.
#[derive(Debug, Default)]
pub struct Flow {
    send: Half,
    recv: Half,
    /// It was told who speaks here, or not in time.
    named: bool,
    /// By time. Empty for nearly all connections nearly always.
    held: Vec<Held>,
    held_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// Position of the byte that comes next; `None` before the first piece of a connection that was joined midway.
    next: Option<u64>,
    before: u8,
    /// Time of the piece that came last.
    last_ns: u64,
}

impl Flow {
    /// The connection begins here: both directions start at 0.
    pub fn start(&mut self) {
        for half in [&mut self.send, &mut self.recv] {
            half.next.get_or_insert(0);
        }
    }

    /// It is known who speaks here: what waited for that goes on.
    pub fn name(&mut self, to: &mut impl Deliver) {
        self.named = true;
        self.drain(to);
    }

    /// Whether nothing has gone on yet.
    pub fn untouched(&self) -> bool {
        self.send.next.is_none() && self.recv.next.is_none()
    }

    /// Bytes that wait.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether a piece waits.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes a piece. `crowded` says that no more memory may be used for waiting.
    pub fn push(&mut self, piece: Piece<'_>, crowded: bool, to: &mut impl Deliver) {
        if self.held.is_empty() && (self.named && self.follows(&piece) || crowded) {
            return self.play(piece, to);
        }
        let at = self.held.partition_point(|held| held.time_ns <= piece.time_ns);
        let Piece { direction, pos, total, payload, time_ns } = piece;
        self.held_bytes += payload.len();
        self.held.insert(at, Held { direction, pos, total, payload: payload.into(), time_ns });
        self.drain(to);
        while self.held.len() > HELD_PIECES_MAX || self.held_bytes > HELD_BYTES_MAX || (crowded && self.holds()) {
            self.play_held(0, to);
            self.drain(to);
        }
    }

    /// Gives up waiting for what should have come before pieces of `before_ns` and earlier.
    pub fn give_up(&mut self, before_ns: u64, to: &mut impl Deliver) {
        self.named |= self.held.first().is_some_and(|held| held.time_ns <= before_ns);
        while self.held.first().is_some_and(|held| held.time_ns <= before_ns) {
            self.play_held(0, to);
            self.drain(to);
        }
    }

    /// The connection ended after so many bytes in all: the last may have moved unseen.
    pub fn finish(&mut self, sent: u64, received: u64, to: &mut impl Deliver) {
        self.give_up(u64::MAX, to);
        for (direction, end) in [(Direction::Send, sent), (Direction::Recv, received)] {
            let half = *self.half(direction);
            let missing = end.saturating_sub(half.next.unwrap_or(end));
            if missing > 0 && missing <= GAP_BYTES_MAX {
                to.gap(direction, missing, half.last_ns, true);
            }
        }
    }

    /// Plays what need not wait.
    fn drain(&mut self, to: &mut impl Deliver) {
        if !self.named {
            return;
        }
        while let Some(first) = self.held.first() {
            // The first may go; or one that came later but belongs before the first of its own direction.
            let direction = first.direction;
            let ready = |held: &Held| held.direction == direction && self.follows(&held.piece());
            let Some(at) = self.held.iter().position(ready) else { return };
            self.play_held(at, to);
        }
        self.held = Vec::new();
    }

    fn play_held(&mut self, at: usize, to: &mut impl Deliver) {
        if at < self.held.len() {
            let held = self.held.remove(at);
            self.held_bytes -= held.payload.len();
            self.play(held.piece(), to);
        }
    }

    fn half(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Send => &mut self.send,
            Direction::Recv => &mut self.recv,
        }
    }

    fn follows(&self, piece: &Piece<'_>) -> bool {
        let half = match piece.direction {
            Direction::Send => &self.send,
            Direction::Recv => &self.recv,
        };
        half.next.is_none_or(|next| piece.pos <= next)
    }

    fn play(&mut self, piece: Piece<'_>, to: &mut impl Deliver) {
        let Piece { direction, pos, total, payload, time_ns } = piece;
        let half = self.half(direction);
        let mut next = half.next.unwrap_or(pos);
        // Positions that older kernel programs gave to what came before their 0 lie at the end of the numbers.
        let end = pos.wrapping_add(total);
        if end <= next && pos < next && total > 0 {
            // Seen already: a peek, or a retransmission as some hooks see it.
            half.before = half.before.saturating_add(1);
            if half.before < BEFORE_MAX {
                return;
            }
            to.gap(direction, 0, time_ns, true);
            next = pos;
        }
        half.before = 0;
        half.next = Some(end);
        let before_ns = std::mem::replace(&mut half.last_ns, time_ns);
        let before_ns = if before_ns == 0 { time_ns } else { before_ns };
        if pos > next {
            let missing = pos - next;
            // A jump of the counter hides nobody knows how many.
            to.gap(direction, if missing > GAP_BYTES_MAX { 0 } else { missing }, before_ns, true);
        }
        let seen = usize::try_from(next.saturating_sub(pos)).unwrap_or(usize::MAX);
        let fresh = payload.get(seen..).unwrap_or(&[]);
        if !fresh.is_empty() {
            to.data(direction, fresh, time_ns);
        }
        let unseen = total.saturating_sub(seen.max(payload.len()) as u64);
        if unseen > 0 {
            to.gap(direction, unseen, time_ns, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default, Debug, PartialEq)]
    struct Log(Vec<String>);

    impl Deliver for Log {
        fn data(&mut self, direction: Direction, bytes: &[u8], _: u64) {
            self.0.push(format!("{direction:?} {}", String::from_utf8_lossy(bytes)));
        }

        fn gap(&mut self, direction: Direction, bytes: u64, _: u64, lost: bool) {
            self.0.push(format!("{direction:?} {} {bytes}", if lost { "lost" } else { "skip" }));
        }
    }

    fn recv(pos: u64, payload: &[u8], time_ns: u64) -> Piece<'_> {
        Piece { direction: Direction::Recv, pos, total: payload.len() as u64, payload, time_ns }
    }

    fn send(pos: u64, payload: &[u8], time_ns: u64) -> Piece<'_> {
        Piece { direction: Direction::Send, ..recv(pos, payload, time_ns) }
    }

    /// A flow of which it is known whose it is.
    fn named() -> Flow {
        Flow { named: true, ..Flow::default() }
    }

    #[test]
    fn what_comes_before_the_name_waits_for_it_but_not_for_long() {
        let (mut flow, mut log) = (Flow::default(), Log::default());
        flow.push(recv(100, b"a", 10), false, &mut log);
        flow.push(send(7, b"b", 20), false, &mut log);
        assert!(log.0.is_empty() && flow.untouched());
        flow.name(&mut log);
        flow.push(recv(101, b"c", 30), false, &mut log);
        assert_eq!(log.0, ["Recv a", "Send b", "Recv c"]);

        let (mut flow, mut log) = (Flow::default(), Log::default());
        flow.push(recv(100, b"a", 10), false, &mut log);
        flow.give_up(9, &mut log);
        assert!(log.0.is_empty());
        flow.give_up(10, &mut log);
        flow.push(recv(101, b"c", 30), false, &mut log);
        assert_eq!(log.0, ["Recv a", "Recv c"], "it waits once");
    }

    #[test]
    fn a_position_at_the_end_of_the_numbers_leads_on_to_the_beginning() {
        let (mut flow, mut log) = (named(), Log::default());
        flow.start();
        flow.push(recv(u64::MAX - 3, b"abcdef", 1), true, &mut log);
        flow.push(recv(2, b"xy", 2), false, &mut log);
        assert_eq!(log.0, ["Recv lost 0", "Recv abcdef", "Recv xy"]);
    }

    #[test]
    fn pieces_out_of_order_wait_and_hold_the_other_direction() {
        let (mut flow, mut log) = (named(), Log::default());
        flow.start();
        flow.push(recv(3, b"def", 20), false, &mut log);
        flow.push(send(0, b"answer", 30), false, &mut log);
        assert!(log.0.is_empty() && flow.holds());
        flow.push(recv(0, b"abc", 10), false, &mut log);
        assert_eq!(log.0, ["Recv abc", "Recv def", "Send answer"]);
        assert!(!flow.holds() && flow.held_bytes() == 0);
    }

    #[test]
    fn what_does_not_come_is_a_gap_after_a_while() {
        let (mut flow, mut log) = (named(), Log::default());
        flow.push(recv(100, b"abc", 10), false, &mut log);
        flow.push(recv(110, b"xyz", 20), false, &mut log);
        flow.push(send(7, b"late", 30), false, &mut log);
        flow.give_up(19, &mut log);
        assert_eq!(log.0, ["Recv abc"]);
        flow.give_up(20, &mut log);
        assert_eq!(log.0, ["Recv abc", "Recv lost 7", "Recv xyz", "Send late"]);
    }

    #[test]
    fn bytes_not_copied_are_skipped_and_repeats_are_dropped() {
        let (mut flow, mut log) = (named(), Log::default());
        flow.push(Piece { total: 10, ..recv(0, b"abc", 1) }, false, &mut log);
        flow.push(recv(0, b"abc", 2), false, &mut log);
        flow.push(recv(8, b"89ab", 3), false, &mut log);
        assert_eq!(log.0, ["Recv abc", "Recv skip 7", "Recv ab"]);
    }

    #[test]
    fn a_count_that_starts_anew_is_followed_after_some_pieces() {
        let (mut flow, mut log) = (named(), Log::default());
        flow.push(recv(1000, b"x", 0), false, &mut log);
        for n in 0..20 {
            flow.push(recv(n, b"y", n), false, &mut log);
        }
        assert!(log.0.len() > 4, "{log:?}");
        assert_eq!(log.0.last().unwrap(), "Recv y");
    }

    #[test]
    fn waiting_is_bounded() {
        let (mut flow, mut log) = (named(), Log::default());
        flow.start();
        let payload = vec![b'x'; 9000];
        for n in 1..200 {
            flow.push(recv(n * 20_000, &payload, n), false, &mut log);
            assert!(flow.held_bytes() <= HELD_BYTES_MAX && flow.held.len() <= HELD_PIECES_MAX);
        }
        let (mut flow, mut log) = (named(), Log::default());
        flow.start();
        flow.push(recv(5, b"x", 0), true, &mut log);
        assert_eq!(log.0, ["Recv lost 5", "Recv x"]);
    }

    proptest! {
        #[test]
        fn any_order_within_the_window_gives_the_stream(
            lens in prop::collection::vec(1usize..20, 1..40),
            swaps in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let stream: Vec<u8> = (0..lens.iter().sum::<usize>()).map(|n| n as u8).collect();
            let mut pieces = Vec::new();
            let mut pos = 0;
            for (time, len) in lens.iter().enumerate() {
                pieces.push(recv(pos as u64, &stream[pos..pos + len], time as u64));
                pos += len;
            }
            for swap in &swaps {
                let at = swap.index(pieces.len());
                if at + 1 < pieces.len() {
                    pieces.swap(at, at + 1);
                }
            }
            struct Bytes(Vec<u8>);
            impl Deliver for Bytes {
                fn data(&mut self, _: Direction, bytes: &[u8], _: u64) {
                    self.0.extend(bytes);
                }
                fn gap(&mut self, _: Direction, bytes: u64, _: u64, _: bool) {
                    panic!("gap of {bytes}");
                }
            }
            let (mut flow, mut got) = (named(), Bytes(Vec::new()));
            flow.start();
            for piece in pieces {
                flow.push(piece, false, &mut got);
            }
            prop_assert_eq!(got.0, stream);
            prop_assert!(!flow.holds());
        }
    }
}
