//! Reads a recording, which may come from anywhere: whatever the bytes, it ends with an error and never with a panic or
//! an allocation beyond its bounds.

use std::io::{self, Read};

use zstd::bulk::Decompressor;

use super::format::{BLOCK, BLOCK_BYTES_MAX, FORMAT_VERSION, INPUT_BYTES_MAX, LAST, MAGIC, ORDER, decode};
use crate::input::Input;

/// Why a recording cannot be read (on).
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("read of the recording failed")]
    Io(#[from] io::Error),
    #[error("not a recording of Pyxis: make one with `px record FILE`")]
    NotARecording,
    #[error("recording of format {0}, this Pyxis reads {FORMAT_VERSION}: use the version that wrote it")]
    Format(u32),
    #[error("recording of kernel record layout {0}, this Pyxis reads {abi}: record anew", abi = ebpf_abi::ABI_VERSION)]
    Abi(u32),
    #[error("recording from a machine of the other byte order: replay it on one like that")]
    ByteOrder,
    #[error("recording is damaged at byte {at}: {what}")]
    Damaged {
        /// Offset of the block in the file.
        at: u64,
        what: &'static str,
    },
    #[error("recording holds an input of kind {kind} that does not parse")]
    Input {
        kind: u8,
        #[source]
        source: serde_json::Error,
    },
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As its writer ended it.
    Whole,
    /// Cut off: what came after the last whole block is missing.
    Truncated,
}

/// Reads inputs from a file.
pub struct Reader<R: Read> {
    from: R,
    decompressor: Decompressor<'static>,
    stored: Vec<u8>,
    plain: Vec<u8>,
    /// Next input in `plain`.
    next: usize,
    /// Inputs that `plain` still should hold.
    remaining: u32,
    at: u64,
    inputs: u64,
    skipped: u64,
    end: Option<End>,
}

impl<R: Read> Reader<R> {
    /// Checks the header. `from` is read in blocks, so it needs no buffer of its own.
    pub fn new(mut from: R) -> Result<Self, ReadError> {
        let mut header = [0; 24];
        match fill(&mut from, &mut header)? {
            Filled::Whole if header.starts_with(MAGIC) => {}
            _ => return Err(ReadError::NotARecording),
        }
        match word(&header, 16) {
            ORDER => {}
            order if order.swap_bytes() == ORDER => return Err(ReadError::ByteOrder),
            _ => return Err(ReadError::NotARecording),
        }
        if word(&header, 8) != FORMAT_VERSION {
            return Err(ReadError::Format(word(&header, 8)));
        }
        if word(&header, 12) != ebpf_abi::ABI_VERSION {
            return Err(ReadError::Abi(word(&header, 12)));
        }
        Ok(Self {
            from,
            decompressor: Decompressor::new()?,
            stored: Vec::new(),
            plain: Vec::new(),
            next: 0,
            remaining: 0,
            at: header.len() as u64,
            inputs: 0,
            skipped: 0,
            end: None,
        })
    }

    /// The next input, or `None` at the end: see [`Reader::end`] for how it ended.
    // Not an iterator: what it gives borrows from the reader's block.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Input<'_>>, ReadError> {
        loop {
            while self.remaining == 0 {
                if self.end.is_some() || !self.block()? {
                    return Ok(None);
                }
            }
            let (kind, from, to) = self.input()?;
            let known = matches!(decode(kind, self.plain.get(from..to).unwrap_or(&[])), Ok(None));
            if known {
                self.skipped += 1;
                continue;
            }
            let payload = self.plain.get(from..to).unwrap_or(&[]);
            return decode(kind, payload).map_err(|source| ReadError::Input { kind, source });
        }
    }

    /// How it ended, once [`Reader::next`] gave `None`.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Inputs read so far.
    pub fn inputs(&self) -> u64 {
        self.inputs
    }

    /// Inputs of kinds that this version does not know, which were passed over.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Kind and place of the next input in the block.
    fn input(&mut self) -> Result<(u8, usize, usize), ReadError> {
        let damaged = ReadError::Damaged { at: self.at, what: "an input is longer than its block" };
        let Some((&[kind, a, b, c, d], _)) = self.plain.get(self.next..).and_then(|rest| rest.split_first_chunk())
        else {
            return Err(damaged);
        };
        let len = u32::from_ne_bytes([a, b, c, d]) as usize;
        let from = self.next + super::format::PREFIX_BYTES;
        if len > INPUT_BYTES_MAX || self.plain.len() - from < len {
            return Err(damaged);
        }
        self.next = from + len;
        self.remaining -= 1;
        self.inputs += 1;
        Ok((kind, from, from + len))
    }

    /// Reads a block; false at the end.
    fn block(&mut self) -> Result<bool, ReadError> {
        let damaged = |what| Err(ReadError::Damaged { at: self.at, what });
        if self.next != self.plain.len() {
            return damaged("a block holds more than the inputs it announced");
        }
        let mut head = [0; 16];
        match fill(&mut self.from, &mut head)? {
            Filled::Whole => {}
            Filled::Nothing | Filled::Part => return Ok(self.ended(End::Truncated)),
        }
        if head.starts_with(LAST) {
            let mut total = [0; 8];
            return match fill(&mut self.from, &mut total)? {
                Filled::Whole if u64::from_ne_bytes(total) == self.inputs => Ok(self.ended(End::Whole)),
                Filled::Whole => damaged("its count of inputs is not what it holds"),
                _ => Ok(self.ended(End::Truncated)),
            };
        }
        if !head.starts_with(BLOCK) {
            return damaged("no block where one should begin");
        }
        let (inputs, plain_len, stored_len) = (word(&head, 4), word(&head, 8) as usize, word(&head, 12) as usize);
        if plain_len > BLOCK_BYTES_MAX || stored_len > BLOCK_BYTES_MAX || inputs as usize > plain_len {
            return damaged("a block is larger than any that is written");
        }
        self.stored.resize(stored_len, 0);
        match fill(&mut self.from, &mut self.stored)? {
            Filled::Whole => {}
            _ => return Ok(self.ended(End::Truncated)),
        }
        self.plain.resize(plain_len, 0);
        match self.decompressor.decompress_to_buffer(&self.stored, self.plain.as_mut_slice()) {
            Ok(n) if n == plain_len => {}
            Ok(_) | Err(_) => return damaged("a block does not decompress to what was written"),
        }
        self.at += (head.len() + stored_len) as u64;
        self.next = 0;
        self.remaining = inputs;
        Ok(true)
    }

    fn ended(&mut self, end: End) -> bool {
        self.end = Some(end);
        false
    }
}

enum Filled {
    Whole,
    Part,
    Nothing,
}

/// Reads until the buffer is full or the file ends.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<Filled> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) => return Ok(if filled == 0 { Filled::Nothing } else { Filled::Part }),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Filled::Whole)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b))
}
