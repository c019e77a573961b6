//! Ctrl-C, SIGTERM, and the end of the terminal.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Result};

/// From its creation on these signals no longer kill the process.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    pub fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::io("listen for signals", &e));
        Ok(Interrupts {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
