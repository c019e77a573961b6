//! One direction of a connection: bytes to heads, bodies and ends, wherever the bytes are split and whatever is missing.

use super::head::{self, Framing, HEAD_BYTES_MAX, Head, Parsed, Side};

/// Bytes of a chunk's size line and of a trailer section. Both are a few dozen in practice; servers stop at 4-16 KiB.
const CHUNK_LINE_BYTES_MAX: u32 = 16 << 10;

/// Messages in a row that were no HTTP before the connection is given up as something else.
const MALFORMED_MAX: u32 = 8;

/// What a decoder tells. All calls are in the order of the stream.
pub trait Events {
    /// A head was read whose first byte came at `time_ns`. The answer says how its body ends.
    fn head(&mut self, head: &Head<'_, '_>, time_ns: u64) -> Next;
    /// Bytes of the body.
    fn body(&mut self, bytes: &[u8]);
    /// Bytes of the body that nobody saw.
    fn body_gap(&mut self, bytes: u64);
    /// The message is complete.
    fn end(&mut self, time_ns: u64);
    /// Heads may have passed unseen: what comes next may belong to another exchange.
    fn desync(&mut self, reason: &'static str, bytes: u64);
    /// Bytes were passed over while looking for a head.
    fn skipped(&mut self, bytes: u64);
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Body(Framing),
    /// Not HTTP any more, in both directions.
    Opaque,
    /// Maybe not HTTP any more: the other side decides. Bytes are passed over until then.
    Pause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a message or within its head.
    Head,
    /// Within a body of known length; so many bytes remain.
    Length(u64),
    /// Within a body that ends with the connection.
    UntilClose,
    /// In the line with a chunk's size.
    ChunkSize {
        size: u64,
        digits: u8,
        extension: bool,
        seen: u32,
    },
    /// Within a chunk.
    ChunkData(u64),
    /// Before the line end that closes a chunk; so many of its two bytes were seen.
    ChunkEnd(u8),
    /// After the last chunk; bytes in the current line, and in all.
    Trailers {
        line: u32,
        seen: u32,
    },
    /// Within a chunked body, but where in the framing is not known.
    Adrift,
    /// Looking for a head at the start of a record.
    Lost,
    Paused,
    Opaque,
}

/// Decoder of one direction.
#[derive(Debug)]
pub struct Decoder {
    side: Side,
    state: State,
    /// Beginning of a head that is not whole yet.
    head: Vec<u8>,
    /// Bytes of `head` in which no end was found.
    searched: usize,
    /// Time of the message's first byte.
    first_ns: u64,
    /// When this direction last moved.
    last_ns: u64,
    malformed: u32,
}

impl Decoder {
    /// A decoder that knows nothing of what came before when `joined` in the middle.
    pub fn new(side: Side, joined: bool) -> Self {
        let state = if joined { State::Lost } else { State::Head };
        Self { side, state, head: Vec::new(), searched: 0, first_ns: 0, last_ns: 0, malformed: 0 }
    }

    /// Whether nothing will ever come of it.
    pub fn opaque(&self) -> bool {
        self.state == State::Opaque
    }

    /// Gives up.
    pub fn make_opaque(&mut self) {
        self.state = State::Opaque;
        self.head = Vec::new();
    }

    /// After [`Next::Pause`], when it stays HTTP: goes on at the next head.
    pub fn resume(&mut self) {
        if self.state == State::Paused {
            self.state = State::Lost;
        }
    }

    /// Memory held.
    pub fn bytes_held(&self) -> usize {
        self.head.capacity()
    }

    /// One record's bytes.
    pub fn data(&mut self, bytes: &[u8], time_ns: u64, to: &mut impl Events) {
        let mut rest = bytes;
        let before_ns = std::mem::replace(&mut self.last_ns, time_ns);
        if matches!(self.state, State::Adrift | State::Lost) {
            self.find_step(bytes, before_ns, to);
        }
        while !rest.is_empty() {
            let before = rest.len();
            rest = self.step(rest, time_ns, to);
            debug_assert!(
                rest.len() < before || self.state != State::Head,
                "a step that takes nothing must change state"
            );
        }
    }

    /// Whether these bytes, which come next, begin a message.
    pub fn begins(&self, bytes: &[u8]) -> bool {
        matches!(self.state, State::Head | State::Lost) && self.head.is_empty() && head::plausible(self.side, bytes)
    }

    /// The other side goes on as if the message were over: if it is one whose end may have passed unseen, it is.
    pub fn settle(&mut self, to: &mut impl Events) {
        if self.state == State::Adrift {
            self.message_end(self.last_ns, to);
            self.state = State::Lost;
        }
    }

    /// The message under way has no body after all: it ended with its head.
    pub fn without_body(&mut self, to: &mut impl Events) {
        if !matches!(self.state, State::Head | State::Lost | State::Paused | State::Opaque) {
            self.message_end(self.last_ns, to);
        }
    }

    /// Bytes nobody saw; with 0 nobody knows how many.
    pub fn gap(&mut self, mut bytes: u64, time_ns: u64, to: &mut impl Events) {
        self.last_ns = time_ns;
        if bytes == 0 && !matches!(self.state, State::UntilClose | State::Paused | State::Opaque) {
            self.forget_head();
            self.state = State::Lost;
            return to.desync("gap_unknown", 0);
        }
        while bytes > 0 {
            match self.state {
                State::Length(remaining) => {
                    let skip = bytes.min(remaining);
                    to.body_gap(skip);
                    bytes -= skip;
                    self.length_passed(remaining - skip, time_ns, to);
                }
                State::UntilClose => return to.body_gap(bytes),
                State::ChunkData(remaining) => {
                    let skip = bytes.min(remaining);
                    to.body_gap(skip);
                    bytes -= skip;
                    self.state =
                        if skip == remaining { State::ChunkEnd(0) } else { State::ChunkData(remaining - skip) };
                }
                State::ChunkEnd(seen) => {
                    // The chunk's line end is \r\n for all senders that are seen in practice.
                    let skip = bytes.min(2u64.saturating_sub(seen as u64));
                    bytes -= skip;
                    let seen = seen + skip as u8;
                    self.state = if seen >= 2 { CHUNK_START } else { State::ChunkEnd(seen) };
                }
                State::ChunkSize { .. } | State::Trailers { .. } | State::Adrift => {
                    self.state = State::Adrift;
                    return to.body_gap(bytes);
                }
                State::Head => {
                    self.forget_head();
                    self.state = State::Lost;
                    return to.desync("gap_in_head", bytes);
                }
                State::Lost => return to.desync("gap_in_head", bytes),
                State::Paused | State::Opaque => return,
            }
        }
    }

    /// The stream ended.
    pub fn close(&mut self, time_ns: u64, to: &mut impl Events) {
        match self.state {
            State::UntilClose => to.end(time_ns),
            State::Head if self.head.is_empty() => {}
            State::Head => to.desync("closed_in_head", self.head.len() as u64),
            State::Lost | State::Paused | State::Opaque => {}
            _ => to.end(time_ns),
        }
        self.make_opaque();
    }

    /// Takes at least one byte off the front, or changes state.
    fn step<'b>(&mut self, bytes: &'b [u8], time_ns: u64, to: &mut impl Events) -> &'b [u8] {
        match self.state {
            State::Head => self.head_step(bytes, time_ns, to),
            State::Length(remaining) => {
                let (body, rest) = split_at(bytes, remaining);
                to.body(body);
                self.length_passed(remaining - body.len() as u64, time_ns, to);
                rest
            }
            State::UntilClose | State::Adrift => {
                to.body(bytes);
                &[]
            }
            State::ChunkData(remaining) => {
                let (body, rest) = split_at(bytes, remaining);
                to.body(body);
                let remaining = remaining - body.len() as u64;
                self.state = if remaining == 0 { State::ChunkEnd(0) } else { State::ChunkData(remaining) };
                rest
            }
            State::ChunkSize { .. } | State::ChunkEnd(_) | State::Trailers { .. } => {
                let Some((&byte, rest)) = bytes.split_first() else { return bytes };
                self.chunk_byte(byte, time_ns, to);
                rest
            }
            State::Lost => {
                to.skipped(bytes.len() as u64);
                &[]
            }
            State::Paused | State::Opaque => &[],
        }
    }

    fn length_passed(&mut self, remaining: u64, time_ns: u64, to: &mut impl Events) {
        if remaining == 0 {
            self.message_end(time_ns, to);
        } else {
            self.state = State::Length(remaining);
        }
    }

    fn message_end(&mut self, time_ns: u64, to: &mut impl Events) {
        self.state = State::Head;
        to.end(time_ns);
    }

    fn head_step<'b>(&mut self, bytes: &'b [u8], time_ns: u64, to: &mut impl Events) -> &'b [u8] {
        if self.head.is_empty() {
            self.first_ns = time_ns;
            let side = self.side;
            return match head::parse(side, bytes, |head| to.head(head, time_ns)) {
                Parsed::Whole(len, next) => {
                    self.after_head(next, time_ns, to);
                    bytes.get(len..).unwrap_or(&[])
                }
                // Empty lines between messages are nobody's beginning.
                Parsed::Partial if bytes.iter().all(|b| matches!(b, b'\r' | b'\n')) => &[],
                Parsed::Partial => {
                    self.hold(bytes, to);
                    &[]
                }
                Parsed::Not => self.not_http(bytes.len(), to),
            };
        }
        let held = self.head.len();
        self.hold(bytes, to);
        let Some(end) = head::end(&self.head, self.searched.saturating_sub(3)) else {
            self.searched = self.head.len();
            return &[];
        };
        let head = std::mem::take(&mut self.head);
        self.searched = 0;
        let first_ns = self.first_ns;
        match head::parse(self.side, &head, |head| to.head(head, first_ns)) {
            Parsed::Whole(len, next) => {
                self.after_head(next, time_ns, to);
                bytes.get(len.saturating_sub(held)..).unwrap_or(&[])
            }
            // An end that httparse does not take for one.
            Parsed::Partial | Parsed::Not => {
                let _ = end;
                self.not_http(head.len(), to)
            }
        }
    }

    fn after_head(&mut self, next: Next, time_ns: u64, to: &mut impl Events) {
        self.malformed = 0;
        match next {
            Next::Opaque => self.make_opaque(),
            Next::Pause => self.state = State::Paused,
            Next::Body(Framing::None) => self.message_end(time_ns, to),
            Next::Body(Framing::Length(0)) => self.message_end(time_ns, to),
            Next::Body(Framing::Length(n)) => self.state = State::Length(n),
            Next::Body(Framing::Chunked) => self.state = CHUNK_START,
            Next::Body(Framing::UntilClose) => self.state = State::UntilClose,
        }
    }

    fn hold(&mut self, bytes: &[u8], to: &mut impl Events) {
        if self.head.len() + bytes.len() > HEAD_BYTES_MAX {
            let lost = (self.head.len() + bytes.len()) as u64;
            self.forget_head();
            self.state = State::Lost;
            to.desync("head_too_long", lost);
            return;
        }
        self.head.extend_from_slice(bytes);
    }

    fn forget_head(&mut self) {
        self.head = Vec::new();
        self.searched = 0;
    }

    /// What should be a head is none: the rest of the record is passed over.
    fn not_http<'b>(&mut self, bytes: usize, to: &mut impl Events) -> &'b [u8] {
        self.forget_head();
        self.malformed += 1;
        self.state = State::Lost;
        to.desync("malformed_head", bytes as u64);
        if self.malformed >= MALFORMED_MAX {
            self.make_opaque();
        }
        &[]
    }

    fn chunk_byte(&mut self, byte: u8, time_ns: u64, to: &mut impl Events) {
        self.state = match self.state {
            State::ChunkSize { seen: CHUNK_LINE_BYTES_MAX.., .. }
            | State::Trailers { seen: CHUNK_LINE_BYTES_MAX.., .. } => {
                to.body_gap(0);
                State::Adrift
            }
            State::ChunkSize { size, digits, .. } if byte == b'\n' => match (digits, size) {
                (0, _) => State::Adrift,
                (_, 0) => State::Trailers { line: 0, seen: 0 },
                (_, size) => State::ChunkData(size),
            },
            State::ChunkSize { size, digits, extension: false, seen } => match (byte as char).to_digit(16) {
                Some(_) if digits >= 16 => State::Adrift,
                Some(digit) => State::ChunkSize {
                    size: size << 4 | digit as u64,
                    digits: digits + 1,
                    extension: false,
                    seen: seen + 1,
                },
                None if matches!(byte, b';' | b' ' | b'\t' | b'\r') && digits > 0 => {
                    State::ChunkSize { size, digits, extension: true, seen: seen + 1 }
                }
                None => State::Adrift,
            },
            State::ChunkSize { size, digits, extension, seen } => {
                State::ChunkSize { size, digits, extension, seen: seen + 1 }
            }
            State::ChunkEnd(0) if byte == b'\r' => State::ChunkEnd(1),
            State::ChunkEnd(_) if byte == b'\n' => CHUNK_START,
            State::ChunkEnd(_) => State::Adrift,
            State::Trailers { line: 0, .. } if byte == b'\n' => return self.message_end(time_ns, to),
            State::Trailers { seen, .. } if byte == b'\n' => State::Trailers { line: 0, seen: seen + 1 },
            State::Trailers { line, seen } if byte == b'\r' => State::Trailers { line, seen: seen + 1 },
            State::Trailers { line, seen } => State::Trailers { line: line + 1, seen: seen + 1 },
            other => other,
        };
    }

    /// At the start of a record after a gap: finds out where we are, if the record shows it.
    /// A message whose end was not seen ended when its direction last moved, at `before_ns`.
    fn find_step(&mut self, bytes: &[u8], before_ns: u64, to: &mut impl Events) {
        if head::plausible(self.side, bytes) {
            if self.state == State::Adrift {
                self.message_end(before_ns, to);
            }
            self.state = State::Head;
        } else if self.state == State::Adrift {
            if chunk_line(bytes) {
                self.state = CHUNK_START;
            } else if bytes.ends_with(b"\r\n0\r\n\r\n") {
                // The framing at the end is no body; what precedes it is, but for framing that cannot be told apart.
                self.state = State::Length(bytes.len() as u64);
            }
        }
    }
}

const CHUNK_START: State = State::ChunkSize { size: 0, digits: 0, extension: false, seen: 0 };

/// Whether bytes begin with the size line of a chunk.
fn chunk_line(bytes: &[u8]) -> bool {
    let digits = bytes.iter().take(9).take_while(|b| b.is_ascii_hexdigit()).count();
    (1..=8).contains(&digits) && matches!(bytes.get(digits), Some(b'\r' | b';')) && {
        let line = bytes.get(..bytes.len().min(64)).unwrap_or(bytes);
        line.windows(2).any(|w| w == b"\r\n")
    }
}

fn split_at(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    let at = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_at(at)
}
