//! What a guest puts out while it runs, on its way to the round that executes and sends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use host::backend::{Frame, Level, Sink};
use host::error::{Error, Exhausted};
use host::meter::{Held, Meter};
use tokio::sync::mpsc;

/// Views a script may declare while it runs: a few for each of the 64 tables it may show.
const VIEWS_MAX: usize = 256;
/// Longest view.
const VIEW_BYTES_MAX: usize = 64 << 10;

/// Something the guest put out.
pub enum Put {
    Frame {
        name: String,
        frame: Arc<dyn Frame>,
    },
    /// `held` is the memory they take, until they are gone.
    Rows {
        name: String,
        batch: RecordBatch,
        held: Held,
    },
    View {
        json: String,
    },
    Log {
        level: Level,
        message: String,
    },
}

/// The queue is not bounded by length, since calls of a guest cannot wait; it is bounded by the run's budget, which the host
/// charges for each table, row, byte and log line before it calls here. Rows count as memory of the run while they wait.
pub struct GuestSink {
    sender: mpsc::UnboundedSender<Put>,
    views: AtomicUsize,
    meter: Arc<Meter>,
}

impl GuestSink {
    pub fn new(meter: Arc<Meter>) -> (Arc<Self>, mpsc::UnboundedReceiver<Put>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { sender, views: AtomicUsize::new(0), meter }), receiver)
    }

    fn put(&self, put: Put) -> Result<(), Error> {
        self.sender.send(put).map_err(|_| Error::Cancelled)
    }
}

impl Sink for GuestSink {
    fn display(&self, name: &str, frame: Arc<dyn Frame>) -> Result<(), Error> {
        self.put(Put::Frame { name: name.to_owned(), frame })
    }

    fn emit(&self, name: &str, batch: RecordBatch) -> Result<(), Error> {
        let held = self.meter.hold(batch.get_array_memory_size() as u64)?;
        self.put(Put::Rows { name: name.to_owned(), batch, held })
    }

    fn view(&self, json: &str) -> Result<(), Error> {
        if json.len() > VIEW_BYTES_MAX || self.views.fetch_add(1, Ordering::Relaxed) >= VIEWS_MAX {
            return Err(Error::Exhausted(Exhausted::Output));
        }
        self.put(Put::View { json: json.to_owned() })
    }

    fn log(&self, level: Level, message: &str) {
        // Nobody is there to read it any more: then it is not missed either.
        let _ = self.put(Put::Log { level, message: message.to_owned() });
    }
}
