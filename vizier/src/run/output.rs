//! The way to the client: a short queue of messages, so that what is not read is not computed.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vizier_api::ExecuteResponse;
use vizier_api::execute_response::Event;

/// Messages ready for the client; batches are cut to 1 MiB, so a run holds a few MiB here at most.
pub const MESSAGES_READY: usize = 4;

/// What the client's stream is fed with.
pub type Messages = mpsc::Receiver<Result<ExecuteResponse, tonic::Status>>;

/// Sends events to one client.
#[derive(Clone, Debug)]
pub struct Output {
    sender: mpsc::Sender<Result<ExecuteResponse, tonic::Status>>,
    stop: CancellationToken,
}

impl Output {
    /// An output and the stream it feeds. Once `stop` is cancelled, nothing waits for the client any more.
    pub fn new(stop: CancellationToken) -> (Self, Messages) {
        let (sender, receiver) = mpsc::channel(MESSAGES_READY);
        (Self { sender, stop }, receiver)
    }

    /// Waits for room. False: nobody is there any more, or the run was cancelled.
    pub async fn send(&self, event: Event) -> bool {
        self.stop.run_until_cancelled(self.send_last(event)).await == Some(true)
    }

    /// As [`Output::send`], for what is said after a cancellation.
    pub async fn send_last(&self, event: Event) -> bool {
        self.sender.send(Ok(ExecuteResponse { event: Some(event) })).await.is_ok()
    }

    /// Waits until nobody is there any more.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}
