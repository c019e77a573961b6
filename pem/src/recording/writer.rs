//! Writes a recording.

use std::io::{self, Write};

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::format::{BLOCK, BLOCK_BYTES, FORMAT_VERSION, INPUT_BYTES_MAX, LAST, MAGIC, ORDER, PREFIX_BYTES, encode};
use crate::input::Input;

/// Fast: the agent that records also works.
const LEVEL: i32 = 3;

/// Why a recording could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("write to the recording failed (is the disk full?)")]
    Io(#[from] io::Error),
    #[error("input could not be encoded")]
    Encode(#[from] serde_json::Error),
    #[error("input of {0} bytes is larger than a recording takes ({INPUT_BYTES_MAX}): it was left out")]
    TooLarge(usize),
}

/// Writes inputs to a file as they come. Drop it without [`Writer::finish`] and the file ends as after a crash.
pub struct Writer<W: Write> {
    to: W,
    compressor: Compressor<'static>,
    plain: Vec<u8>,
    inputs: u32,
    total: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a recording. `to` is written in blocks, so it needs no buffer of its own.
    pub fn new(mut to: W) -> Result<Self, WriteError> {
        let mut header = [0; 24];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&FORMAT_VERSION.to_ne_bytes());
        header[12..16].copy_from_slice(&ebpf_abi::ABI_VERSION.to_ne_bytes());
        header[16..20].copy_from_slice(&ORDER.to_ne_bytes());
        to.write_all(&header)?;
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        let plain = Vec::with_capacity(BLOCK_BYTES + INPUT_BYTES_MAX);
        Ok(Self { to, compressor, plain, inputs: 0, total: 0, bytes: header.len() as u64 })
    }

    /// Adds an input. One that is too large is refused and changes nothing.
    pub fn write(&mut self, input: &Input<'_>) -> Result<(), WriteError> {
        let from = self.plain.len();
        let encoded = encode(&mut self.plain, input);
        let len = (self.plain.len() - from).saturating_sub(PREFIX_BYTES);
        if encoded.is_err() || len > INPUT_BYTES_MAX {
            self.plain.truncate(from);
            encoded?;
            return Err(WriteError::TooLarge(len));
        }
        self.inputs += 1;
        self.total += 1;
        if self.plain.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what waits, so that a crash does not lose it.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if self.inputs == 0 {
            return Ok(());
        }
        let stored = self.compressor.compress(&self.plain)?;
        let mut head = [0; 16];
        head[..4].copy_from_slice(BLOCK);
        head[4..8].copy_from_slice(&self.inputs.to_ne_bytes());
        head[8..12].copy_from_slice(&(self.plain.len() as u32).to_ne_bytes());
        head[12..].copy_from_slice(&(stored.len() as u32).to_ne_bytes());
        self.to.write_all(&head)?;
        self.to.write_all(&stored)?;
        self.to.flush()?;
        self.bytes += (head.len() + stored.len()) as u64;
        self.plain.clear();
        self.inputs = 0;
        Ok(())
    }

    /// Inputs written so far.
    pub fn inputs(&self) -> u64 {
        self.total
    }

    /// Bytes in the file so far, without those that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the recording and gives the file back.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.flush()?;
        let mut last = [0; 24];
        last[..4].copy_from_slice(LAST);
        last[16..].copy_from_slice(&self.total.to_ne_bytes());
        self.to.write_all(&last)?;
        self.to.flush()?;
        Ok(self.to)
    }
}
