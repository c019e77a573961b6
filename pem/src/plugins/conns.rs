//! The connections of a plugin: whether they speak its protocol, and which end is the client.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ebpf_abi::role;
use host::protocol::{self, Event, Happening, Verdict};
use rustc_hash::FxHasher;

use crate::conns::Facts;
use crate::protocols::Direction;

/// Bytes of a connection that are kept while the plugin cannot tell yet. No protocol that we know of needs more than a line.
const UNDECIDED_BYTES_MAX: usize = 1024;
/// Calls that they may come in: each costs a look at all of them.
const UNDECIDED_CALLS_MAX: usize = 32;
/// Calls of a connection that was met in its middle at whose beginnings the plugin is asked: a long value may be under way.
const ASKED_MAX: u32 = 16;

/// A connection as the plugin's thread knows it.
pub(super) struct Conn {
    pub facts: Facts,
    /// Nothing more is wanted of it: read by the ingest thread.
    deaf: Arc<AtomicBool>,
    state: State,
    asked: u32,
}

enum State {
    /// Not known yet; what came so far.
    Asking(Vec<(Direction, i64, Vec<u8>)>),
    /// It speaks the protocol; requests go in this direction. One that does not is forgotten.
    Speaks(Direction),
}

/// All of them.
#[derive(Default)]
pub(super) struct Conns {
    conns: HashMap<u32, Conn, BuildHasherDefault<FxHasher>>,
}

impl Conn {
    /// Side of the traced process: as the kernel saw it, else as the bytes show.
    pub fn role(&self) -> u8 {
        match (&self.state, self.facts.role) {
            (_, role @ (role::CLIENT | role::SERVER)) => role,
            (State::Speaks(Direction::Send), _) => role::CLIENT,
            (State::Speaks(Direction::Recv), _) => role::SERVER,
            _ => role::UNKNOWN,
        }
    }
}

impl Conns {
    pub fn get(&self, number: u32) -> Option<&Conn> {
        self.conns.get(&number)
    }

    pub fn open(&mut self, number: u32, facts: Facts, deaf: Arc<AtomicBool>) {
        self.conns.insert(number, Conn { facts, deaf, state: State::Asking(Vec::new()), asked: 0 });
    }

    pub fn know(&mut self, number: u32, facts: Facts) {
        if let Some(conn) = self.conns.get_mut(&number) {
            conn.facts = facts;
        }
    }

    /// Bytes came. The plugin is asked through `infer` until it knows.
    pub fn data<E>(
        &mut self,
        number: u32,
        time: i64,
        direction: Direction,
        bytes: &[u8],
        to: &mut Vec<Event>,
        mut infer: impl FnMut(&[u8]) -> Result<Verdict, E>,
    ) -> Result<(), E> {
        let Some(conn) = self.conns.get_mut(&number) else { return Ok(()) };
        let held = match &mut conn.state {
            State::Speaks(requests) => {
                to.push(event(number, time, Happening::Data((toward(*requests, direction), bytes.to_vec()))));
                return Ok(());
            }
            State::Asking(held) => held,
        };
        held.push((direction, time, bytes.to_vec()));
        let full = held.len() >= UNDECIDED_CALLS_MAX
            || held.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>() >= UNDECIDED_BYTES_MAX;
        let one_way: Vec<u8> =
            held.iter().filter(|(way, ..)| *way == direction).flat_map(|(_, _, bytes)| bytes).copied().collect();
        let requests = match infer(&one_way)? {
            Verdict::Request => direction,
            Verdict::Response => direction.other(),
            Verdict::Undecided if !full => return Ok(()),
            Verdict::Undecided | Verdict::Other => {
                conn.asked += 1;
                if conn.facts.existing && conn.asked < ASKED_MAX {
                    // The middle of something; the next call may begin with a message.
                    held.clear();
                } else {
                    // The end of its connection is told nobody any more.
                    conn.deaf.store(true, Ordering::Relaxed);
                    self.conns.remove(&number);
                }
                return Ok(());
            }
        };
        let State::Asking(held) = std::mem::replace(&mut conn.state, State::Speaks(requests)) else { return Ok(()) };
        let began = held.first().map_or(time, |(_, time, _)| *time);
        to.push(event(number, began, Happening::Opened));
        for (direction, time, bytes) in held {
            to.push(event(number, time, Happening::Data((toward(requests, direction), bytes))));
        }
        Ok(())
    }

    pub fn gap(&mut self, number: u32, time: i64, direction: Direction, bytes: u64, to: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(&number) else { return };
        match &mut conn.state {
            State::Speaks(requests) => {
                to.push(event(number, time, Happening::Gap((toward(*requests, direction), bytes))));
            }
            // What came before does not go on.
            State::Asking(held) => {
                held.clear();
                conn.facts.existing = true;
            }
        }
    }

    pub fn close(&mut self, number: u32, time: i64, to: &mut Vec<Event>) {
        let Some(conn) = self.conns.get(&number) else { return };
        if matches!(conn.state, State::Speaks(_)) {
            to.push(event(number, time, Happening::Closed));
        }
    }

    /// Rows of it were taken.
    pub fn forget(&mut self, number: u32) {
        self.conns.remove(&number);
    }

    /// Ends all, in the order in which they were opened.
    pub fn close_all(&mut self, time: i64, to: &mut Vec<Event>) -> Vec<u32> {
        let mut numbers: Vec<u32> = self.conns.keys().copied().collect();
        numbers.sort_unstable();
        for number in &numbers {
            self.close(*number, time, to);
        }
        numbers
    }
}

fn event(connection: u32, time: i64, what: Happening) -> Event {
    Event { connection, time, what }
}

fn toward(requests: Direction, direction: Direction) -> protocol::Direction {
    if direction == requests { protocol::Direction::Request } else { protocol::Direction::Response }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> Result<Verdict, ()> {
        Ok(match bytes {
            b"?" => Verdict::Undecided,
            _ if bytes.starts_with(b"ask") => Verdict::Request,
            _ if bytes.starts_with(b"answer") => Verdict::Response,
            _ => Verdict::Other,
        })
    }

    fn play(existing: bool, role: u8, pieces: &[(Direction, &[u8])]) -> (Vec<String>, u8, bool) {
        let (mut conns, mut events) = (Conns::default(), Vec::new());
        let deaf = Arc::new(AtomicBool::new(false));
        conns.open(1, Facts { existing, role, ..Facts::default() }, deaf.clone());
        for (direction, bytes) in pieces {
            conns.data(1, 0, *direction, bytes, &mut events, told).unwrap();
        }
        let role = conns.get(1).map_or(role::UNKNOWN, Conn::role);
        let events = events.iter().map(|event| match &event.what {
            Happening::Data((direction, bytes)) => format!("{direction:?} {}", String::from_utf8_lossy(bytes)),
            other => format!("{other:?}"),
        });
        (events.collect(), role, deaf.load(Ordering::Relaxed))
    }

    #[test]
    fn the_verdict_tells_directions_and_the_role_that_the_kernel_did_not() {
        use Direction::{Recv, Send};
        let (events, role, _) = play(true, role::UNKNOWN, &[(Send, b"ask"), (Recv, b"answer")]);
        assert_eq!(events, ["Happening::Opened", "Direction::Request ask", "Direction::Response answer"]);
        assert_eq!(role, role::CLIENT);
        let (events, role, _) = play(true, role::UNKNOWN, &[(Send, b"answer"), (Recv, b"ask")]);
        assert_eq!(events, ["Happening::Opened", "Direction::Response answer", "Direction::Request ask"]);
        assert_eq!(role, role::SERVER);
        assert_eq!(play(false, role::SERVER, &[(Recv, b"ask")]).1, role::SERVER);
    }

    #[test]
    fn other_protocols_are_given_up_at_once_and_middles_after_some_calls() {
        let recv = |n: usize| vec![(Direction::Recv, b"zzz".as_slice()); n];
        assert_eq!(play(false, role::SERVER, &recv(1)), (vec![], role::UNKNOWN, true), "nothing of it is kept");
        assert!(!play(true, role::SERVER, &recv(ASKED_MAX as usize - 1)).2);
        assert!(play(true, role::SERVER, &recv(ASKED_MAX as usize)).2);
        let mut pieces = recv(3);
        pieces.push((Direction::Recv, b"ask"));
        assert_eq!(play(true, role::SERVER, &pieces).0, ["Happening::Opened", "Direction::Request ask"]);
    }

    #[test]
    fn what_cannot_be_told_is_kept_and_handed_on() {
        let pieces: [(Direction, &[u8]); 2] = [(Direction::Send, b"?"), (Direction::Recv, b"answer")];
        let (events, ..) = play(false, role::CLIENT, &pieces);
        assert_eq!(events, ["Happening::Opened", "Direction::Request ?", "Direction::Response answer"]);
    }

    #[test]
    fn what_is_never_told_is_let_go() {
        let never = |_: &[u8]| Ok::<_, ()>(Verdict::Undecided);
        for bytes in [vec![b'?'; UNDECIDED_BYTES_MAX / 2], vec![b'?']] {
            let (mut conns, mut events) = (Conns::default(), Vec::new());
            let deaf = Arc::new(AtomicBool::new(false));
            conns.open(1, Facts { existing: false, ..Facts::default() }, deaf.clone());
            let calls = (0..100).take_while(|_| {
                conns.data(1, 0, Direction::Send, &bytes, &mut events, never).unwrap();
                !deaf.load(Ordering::Relaxed)
            });
            assert_eq!(calls.count() + 1, if bytes.len() > 1 { 2 } else { UNDECIDED_CALLS_MAX });
            assert!(conns.get(1).is_none() && events.is_empty());
        }
    }
}
