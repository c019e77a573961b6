//! Recordings: everything that entered the core, in a file.
//!
//! ```text
//! file   = header block* end?
//! header = "PYXISREC" format:u32 abi:u32 order:u32 zero:u32
//! block  = "BLCK" inputs:u32 plain_len:u32 stored_len:u32 stored bytes (a zstd frame with its checksum)
//! end    = "LAST" zero:u32 zero:u32 zero:u32 inputs:u64
//! plain  = (kind:u8 len:u32 payload)*
//! ```
//! Numbers are in the byte order of the machine that recorded; `order` tells a reader of the other kind, since the ring's
//! records inside are in that order too. The payload of a record is the record; of every other input it is JSON, which
//! names its fields, so that a later version reads what an earlier one wrote.
//!
//! A file that ends within a block is read up to the last whole block, and the reader says so: that is what remains when
//! the machine loses power. Anything else that is wrong is an error.

mod format;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use format::{BLOCK_BYTES_MAX, FORMAT_VERSION, INPUT_BYTES_MAX};
pub use reader::{End, ReadError, Reader};
pub use writer::{WriteError, Writer};
