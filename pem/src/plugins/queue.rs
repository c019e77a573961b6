//! What goes from the ingest thread to a plugin's thread.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::conns::Facts;
use crate::protocols::Direction;

/// Bytes of one batch. A parser is through it in some milliseconds, and with the queue it is all a plugin may keep waiting.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// Events of one batch: short ones, at which [`BATCH_BYTES_MAX`] would let too many through.
pub const BATCH_ITEMS_MAX: usize = 8192;
/// Batches that wait: with the one being filled and the one being parsed 4.5 MiB of payload, which is half a second of a busy
/// cache.
pub const QUEUE_BATCHES: usize = 16;

/// Some events of all connections of a plugin, in order.
#[derive(Default)]
pub(super) struct Batch {
    pub items: Vec<Item>,
    /// Bytes of all [`What::Data`], one after the other.
    pub bytes: Vec<u8>,
    /// Something before this batch was lost: no connection of before goes on.
    pub restart: bool,
    /// The tick that sent it, ns since the epoch: its rows become visible.
    pub tick_ns: Option<i64>,
    /// Answered when all is done.
    pub done: Option<std::sync::mpsc::SyncSender<()>>,
}

pub(super) struct Item {
    pub connection: u32,
    /// Ns since the epoch.
    pub time_ns: i64,
    pub what: What,
}

pub(super) enum What {
    /// It begins, possibly in its middle. The flag is raised when nothing more is wanted of it.
    Opened(Box<Facts>, Arc<AtomicBool>),
    /// More is known of it.
    Known(Box<Facts>),
    /// So many bytes.
    Data(Direction, usize),
    Gap(Direction, u64),
    Closed,
}

impl Batch {
    pub fn full(&self) -> bool {
        self.items.len() >= BATCH_ITEMS_MAX || self.bytes.len() >= BATCH_BYTES_MAX
    }
}
