//! Telling HTTP by the first bytes of a call.

use ebpf_abi::protocol;

/// What the first bytes of a stream, or of a call, look like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The beginning of something known, but too short to tell.
    Undecided,
    Request,
    Response,
    Http2,
    Other,
}

/// Bytes that suffice to decide.
pub const LOOK_BYTES: u32 = 8;

/// A word of up to eight bytes and the mask of those that count, first byte lowest.
const fn pattern(text: &[u8]) -> (u64, u64) {
    let (mut word, mut mask, mut i) = (0, 0, 0);
    while i < text.len() {
        word |= (text[i] as u64) << (8 * i);
        mask |= 0xff << (8 * i);
        i += 1;
    }
    (word, mask)
}

macro_rules! try_pattern {
    ($word:expr, $seen:expr, $maybe:expr, $text:literal, $look:expr) => {
        const { assert!($text.len() <= LOOK_BYTES as usize) };
        let (text, mask) = const { pattern($text) };
        if ($word ^ text) & mask & $seen == 0 {
            if mask & !$seen == 0 {
                return $look;
            }
            $maybe = Look::Undecided;
        }
    };
}

/// Looks at the first `count` (1..=8) bytes, which are the low bytes of `word`.
#[inline(always)]
pub fn look(word: u64, count: u32) -> Look {
    let seen = if count >= LOOK_BYTES { u64::MAX } else { (1u64 << (8 * count)) - 1 };
    let mut maybe = Look::Other;
    try_pattern!(word, seen, maybe, b"HTTP/1.", Look::Response);
    try_pattern!(word, seen, maybe, b"GET ", Look::Request);
    try_pattern!(word, seen, maybe, b"POST ", Look::Request);
    try_pattern!(word, seen, maybe, b"PUT ", Look::Request);
    try_pattern!(word, seen, maybe, b"HEAD ", Look::Request);
    try_pattern!(word, seen, maybe, b"DELETE ", Look::Request);
    try_pattern!(word, seen, maybe, b"PATCH ", Look::Request);
    try_pattern!(word, seen, maybe, b"OPTIONS ", Look::Request);
    try_pattern!(word, seen, maybe, b"CONNECT ", Look::Request);
    try_pattern!(word, seen, maybe, b"TRACE ", Look::Request);
    try_pattern!(word, seen, maybe, b"PRI * HT", Look::Http2);
    maybe
}

impl Look {
    /// The protocol this tells.
    #[inline(always)]
    pub fn protocol(self) -> u8 {
        match self {
            Look::Request | Look::Response => protocol::HTTP,
            Look::Http2 => protocol::HTTP2,
            Look::Undecided | Look::Other => protocol::UNKNOWN,
        }
    }
}

/// Whether these eight bytes begin a response.
#[inline(always)]
pub fn answers(word: u64) -> bool {
    const ANSWER: (u64, u64) = pattern(b"HTTP/1.");
    (word ^ ANSWER.0) & ANSWER.1 == 0
}

/// Whether these are bytes 8..12 of a response head that switches to another protocol: `HTTP/1.1 101`.
#[inline(always)]
pub fn switches_protocol(second_word: u64) -> bool {
    const STATUS: (u64, u64) = pattern(b" 101");
    (second_word ^ STATUS.0) & STATUS.1 == 0
}
