//! The binary protocol: frames with a header of 24 bytes.

use std::collections::VecDeque;

use pyxis_sdk::protocol::{Label, Rows, Side, Verdict};

use crate::command::{
    Answer, Asked, Command, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, NO_RESPONSE, NOREPLY, WAITING_MAX, text,
};

const PROTOCOL: &str = "binary";

/// First byte of a request.
pub const REQUEST: u8 = 0x80;
/// First byte of a response.
pub const RESPONSE: u8 = 0x81;

const HEADER_BYTES: usize = 24;
/// Most extras of any command.
const EXTRAS_BYTES_MAX: usize = 31;
/// Bytes of a body that are kept: extras, key, and the words of an error.
const BODY_BYTES_MAX: usize = EXTRAS_BYTES_MAX + KEY_BYTES_MAX + MESSAGE_BYTES_MAX;
/// Largest body that is believed; memcached's own limit is 1 GiB.
const FRAME_BYTES_MAX: u32 = 1 << 30;
/// Statistics come in a frame each, the last without a key.
const STAT: u8 = 0x10;

/// Names by opcode; empty ones do not exist.
const NAMES: [&str; 0x26] = [
    "get",
    "set",
    "add",
    "replace",
    "delete",
    "increment",
    "decrement",
    "quit",
    "flush",
    "getq",
    "noop",
    "version",
    "getk",
    "getkq",
    "append",
    "prepend",
    "stat",
    "setq",
    "addq",
    "replaceq",
    "deleteq",
    "incrementq",
    "decrementq",
    "quitq",
    "flushq",
    "appendq",
    "prependq",
    "verbosity",
    "touch",
    "gat",
    "gatq",
    "",
    "sasl_list_mechs",
    "sasl_auth",
    "sasl_step",
    "gatk",
    "gatkq",
    "",
];

fn fetches(opcode: u8) -> bool {
    matches!(opcode, 0x00 | 0x09 | 0x0c | 0x0d | 0x1d | 0x1e | 0x23 | 0x24)
}

/// Commands that are answered only when something is out of the ordinary.
fn quiet(opcode: u8) -> bool {
    matches!(opcode, 0x09 | 0x0d | 0x11..=0x1a | 0x1e | 0x24)
}

#[derive(Clone, Copy)]
struct Header {
    magic: u8,
    opcode: u8,
    key_bytes: u16,
    extras_bytes: u8,
    data_type: u8,
    /// Of a response; of a request something else.
    status: u16,
    body_bytes: u32,
    opaque: u32,
}

impl Header {
    fn of(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [magic, opcode, k0, k1, extras_bytes, data_type, s0, s1, b0, b1, b2, b3, o0, o1, o2, o3, ..] = *bytes;
        Self {
            magic,
            opcode,
            key_bytes: u16::from_be_bytes([k0, k1]),
            extras_bytes,
            data_type,
            status: u16::from_be_bytes([s0, s1]),
            body_bytes: u32::from_be_bytes([b0, b1, b2, b3]),
            opaque: u32::from_be_bytes([o0, o1, o2, o3]),
        }
    }

    fn plausible(&self, side: Side) -> bool {
        let magic = if side == Side::Request { REQUEST } else { RESPONSE };
        self.magic == magic
            && NAMES.get(usize::from(self.opcode)).is_some_and(|name| !name.is_empty())
            && self.data_type == 0
            && usize::from(self.key_bytes) <= KEY_BYTES_MAX
            && usize::from(self.extras_bytes) <= EXTRAS_BYTES_MAX
            && self.body_bytes <= FRAME_BYTES_MAX
            && self.body_bytes >= u32::from(self.key_bytes) + u32::from(self.extras_bytes)
    }
}

/// Whether these are the first bytes of a frame.
pub fn infer(bytes: &[u8]) -> Verdict {
    let side = if bytes.first() == Some(&REQUEST) { Side::Request } else { Side::Response };
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        let wrong = bytes.get(1).is_some_and(|opcode| usize::from(*opcode) >= NAMES.len())
            || bytes.get(5).is_some_and(|data_type| *data_type != 0);
        return if wrong { Verdict::Other } else { Verdict::Undecided };
    };
    match (Header::of(header).plausible(side), side) {
        (false, _) => Verdict::Other,
        (true, Side::Request) => Verdict::Request,
        (true, Side::Response) => Verdict::Response,
    }
}

/// One direction.
#[derive(Default)]
struct Half {
    state: State,
    began: i64,
}

enum State {
    Header(Vec<u8>),
    /// What is kept of the body, and how much is still to come.
    Body(Header, Vec<u8>, u32),
    /// The beginning of the next frame is not known.
    Lost,
}

impl Default for State {
    fn default() -> Self {
        Self::Header(Vec::new())
    }
}

/// A whole frame.
struct Frame {
    header: Header,
    body: Vec<u8>,
    began: i64,
}

impl Frame {
    fn key(&self) -> &[u8] {
        let from = usize::from(self.header.extras_bytes);
        self.body.get(from..from + usize::from(self.header.key_bytes)).unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        let from = usize::from(self.header.extras_bytes) + usize::from(self.header.key_bytes);
        self.body.get(from..).unwrap_or_default()
    }

    fn bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.header.body_bytes)
    }
}

/// What [`Half::take`] found.
enum Taken {
    Frame(usize, Frame),
    Part(usize),
    Wrong,
}

impl Half {
    fn take(&mut self, side: Side, bytes: &[u8], time: i64) -> Taken {
        match &mut self.state {
            State::Lost => Taken::Part(bytes.len()),
            State::Header(have) => {
                if have.is_empty() {
                    self.began = time;
                }
                let taken = bytes.len().min(HEADER_BYTES - have.len());
                have.extend_from_slice(&bytes[..taken]);
                let Some(header) = have.first_chunk::<HEADER_BYTES>().map(Header::of) else {
                    return Taken::Part(taken);
                };
                if !header.plausible(side) {
                    return Taken::Wrong;
                }
                self.state = State::Body(header, Vec::new(), header.body_bytes);
                self.whole().map_or(Taken::Part(taken), |frame| Taken::Frame(taken, frame))
            }
            State::Body(_, body, left) => {
                let taken = bytes.len().min(*left as usize);
                let room = BODY_BYTES_MAX.saturating_sub(body.len());
                body.extend_from_slice(&bytes[..taken.min(room)]);
                *left -= taken as u32;
                self.whole().map_or(Taken::Part(taken), |frame| Taken::Frame(taken, frame))
            }
        }
    }

    /// The frame, if it is whole.
    fn whole(&mut self) -> Option<Frame> {
        if !matches!(self.state, State::Body(_, _, 0)) {
            return None;
        }
        let State::Body(header, body, _) = std::mem::take(&mut self.state) else { return None };
        Some(Frame { header, body, began: self.began })
    }

    /// Bytes that nobody saw: of a value they are not missed. Otherwise `None`.
    fn gap(&mut self, bytes: u64) -> Option<Option<Frame>> {
        let State::Body(header, body, left) = &mut self.state else { return None };
        let needed = usize::from(header.extras_bytes) + usize::from(header.key_bytes);
        if bytes == 0 || bytes > u64::from(*left) || body.len() < needed {
            return None;
        }
        *left -= bytes as u32;
        Some(self.whole())
    }
}

struct Waiting {
    asked: Asked,
    opcode: u8,
    opaque: u32,
}

/// A connection.
#[derive(Default)]
pub struct Binary {
    request: Half,
    response: Half,
    waiting: VecDeque<Waiting>,
    /// Of statistics, whose answer has many frames.
    answer: Answer,
}

impl Binary {
    pub fn data(&mut self, side: Side, mut bytes: &[u8], time: i64, rows: &mut Rows<Command>) {
        let half = self.half(side);
        if matches!(half.state, State::Lost) {
            // A call that begins with a frame.
            let begins = infer(bytes);
            if !matches!(begins, Verdict::Request | Verdict::Response) {
                return;
            }
            half.state = State::default();
        }
        while !bytes.is_empty() {
            match self.half(side).take(side, bytes, time) {
                Taken::Part(taken) => bytes = &bytes[taken..],
                Taken::Wrong => return self.lose(side, rows),
                Taken::Frame(taken, frame) => {
                    bytes = &bytes[taken..];
                    self.frame(side, &frame, time, rows);
                }
            }
        }
    }

    pub fn gap(&mut self, side: Side, bytes: u64, time: i64, rows: &mut Rows<Command>) {
        let half = self.half(side);
        if matches!(half.state, State::Lost) {
            return;
        }
        match half.gap(bytes) {
            Some(Some(frame)) => self.frame(side, &frame, time, rows),
            Some(None) => {}
            None => self.lose(side, rows),
        }
    }

    pub fn closed(&mut self, time: i64, rows: &mut Rows<Command>) {
        for waiting in self.waiting.drain(..) {
            let status = if quiet(waiting.opcode) { NOREPLY } else { NO_RESPONSE };
            waiting.asked.unanswered(PROTOCOL, status, time, rows);
        }
    }

    fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }

    /// Frames are numbered, so that only what was in the hole is lost, and the other direction goes on.
    fn lose(&mut self, side: Side, rows: &mut Rows<Command>) {
        rows.skip(1);
        self.half(side).state = State::Lost;
    }

    fn frame(&mut self, side: Side, frame: &Frame, time: i64, rows: &mut Rows<Command>) {
        match side {
            Side::Request => self.asked(frame, time, rows),
            Side::Response => self.answered(frame, time, rows),
        }
    }

    fn asked(&mut self, frame: &Frame, time: i64, rows: &mut Rows<Command>) {
        let Header { opcode, opaque, .. } = frame.header;
        let key = (!frame.key().is_empty()).then(|| text(frame.key(), KEY_BYTES_MAX));
        let asked = Asked {
            command: Label::from(NAMES[usize::from(opcode)]),
            keys: u32::from(key.is_some()),
            key,
            fetches: fetches(opcode),
            began: frame.began,
            bytes: frame.bytes(),
        };
        if self.waiting.len() >= WAITING_MAX
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.passed(oldest, time, rows);
        }
        self.waiting.push_back(Waiting { asked, opcode, opaque });
    }

    /// One that was not answered while later ones were.
    fn passed(&mut self, waiting: Waiting, time: i64, rows: &mut Rows<Command>) {
        if quiet(waiting.opcode) {
            let status = if waiting.asked.fetches { "MISS" } else { NOREPLY };
            waiting.asked.unanswered(PROTOCOL, status, time, rows);
        } else {
            rows.skip(1);
        }
    }

    fn answered(&mut self, frame: &Frame, time: i64, rows: &mut Rows<Command>) {
        let Header { opcode, opaque, status, key_bytes, .. } = frame.header;
        let Some(at) = self.waiting.iter().position(|w| w.opaque == opaque && w.opcode == opcode) else {
            return rows.skip(1);
        };
        self.answer.bytes += frame.bytes();
        if opcode == STAT && status == 0 && key_bytes > 0 {
            return;
        }
        let before: Vec<Waiting> = self.waiting.drain(..at).collect();
        for waiting in before {
            self.passed(waiting, time, rows);
        }
        let Some(waiting) = self.waiting.pop_front() else { return };
        let mut answer = std::mem::take(&mut self.answer);
        answer.status = Label::from(word(opcode, status));
        answer.hits = u32::from(status == 0 && waiting.asked.fetches);
        // A miss is said in words too, but is no error.
        if status > 1 && !frame.value().is_empty() {
            answer.message = Some(text(frame.value(), MESSAGE_BYTES_MAX));
        }
        waiting.asked.answered(PROTOCOL, answer, time, rows);
    }
}

/// The status in the text protocol's words, where it has one.
fn word(opcode: u8, status: u16) -> &'static str {
    match status {
        0 if fetches(opcode) => "HIT",
        0 => match opcode {
            0x01..=0x03 | 0x0e | 0x0f | 0x11..=0x13 | 0x19 | 0x1a => "STORED",
            0x04 | 0x14 => "DELETED",
            0x1c => "TOUCHED",
            _ => "OK",
        },
        1 if fetches(opcode) => "MISS",
        1 => "NOT_FOUND",
        2 => "EXISTS",
        3 => "TOO_LARGE",
        4 => "INVALID",
        5 => "NOT_STORED",
        6 => "NON_NUMERIC",
        0x20 | 0x21 => "AUTH_ERROR",
        0x81 => "UNKNOWN_COMMAND",
        0x82 => "OUT_OF_MEMORY",
        0x86 => "TEMPORARY_FAILURE",
        _ => "ERROR",
    }
}
