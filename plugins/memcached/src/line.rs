//! A line of the text protocol, taken in as it comes: a get of a thousand keys is not kept whole.

/// Bytes kept of a line: all of a storage command with the longest key.
const HEAD_BYTES_MAX: usize = 512;
/// Longest line that is followed. memcached itself gives up at 64 KiB of keys.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What of a line is known so far.
#[derive(Default)]
pub struct Line {
    head: Vec<u8>,
    words: u32,
    in_word: bool,
    bytes: u64,
    /// When its first byte came.
    pub began: i64,
}

/// Whether the line is whole.
pub enum Taken {
    /// So many bytes of the input belong to it, and it ends there.
    Whole(usize),
    /// All of the input belongs to it.
    Part,
    /// It is no line.
    TooLong,
}

impl Line {
    /// Takes bytes up to the line's end.
    pub fn take(&mut self, bytes: &[u8], time: i64) -> Taken {
        if self.bytes == 0 {
            self.began = time;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes, |end| &bytes[..end]);
        for &byte in taken {
            let space = byte == b' ' || byte == b'\r';
            if !space && !self.in_word {
                self.words += 1;
            }
            self.in_word = !space;
        }
        let room = HEAD_BYTES_MAX.saturating_sub(self.head.len());
        self.head.extend_from_slice(&taken[..taken.len().min(room)]);
        self.bytes += taken.len() as u64 + u64::from(end.is_some());
        match end {
            _ if self.bytes > LINE_BYTES_MAX => Taken::TooLong,
            Some(end) => Taken::Whole(end + 1),
            None => Taken::Part,
        }
    }

    /// Whether nothing of it came yet.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes so far, its end included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Words in all of it.
    pub fn words(&self) -> u32 {
        self.words
    }

    /// Words of what is kept of it. The last may be cut in a line of more than 512 bytes.
    pub fn kept_words(&self) -> impl Iterator<Item = &[u8]> {
        self.head.split(|byte| *byte == b' ' || *byte == b'\r').filter(|word| !word.is_empty())
    }

    /// Its beginning.
    pub fn head(&self) -> &[u8] {
        &self.head
    }
}
