//! Ctrl-C, SIGTERM, and the end of the terminal.

use std::time::Duration;

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Result};

/// Nobody presses a key twice in this time and means two things by it.
const SAME_WITHIN: Duration = Duration::from_millis(300);

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

    /// A second one, after the first was seen. What comes at once with the first is the same: `timeout(1)` signals a process
    /// and then its group.
    pub async fn again(&mut self) {
        tokio::time::sleep(SAME_WITHIN).await;
        let _ = self.next().now_or_never();
        self.next().await;
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
