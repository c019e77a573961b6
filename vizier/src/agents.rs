//! Lets PEMs in: TCP, mutual TLS, then the engine's registry. Nothing here waits for a peer without a bound.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use vizier_engine::{AgentId, Registry};

use crate::tls;

/// A handshake takes two round trips; across the world under loss that is below this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After `accept` failed (no descriptors left, usually) others get time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts PEMs until `stop`. At most `handshakes` connections are held that have not shown a certificate: one more takes the place
/// of the oldest of them, so that those that say nothing do not keep out those that do.
pub async fn listen(
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    registry: Arc<Registry>,
    handshakes: usize,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(config);
    let pending = Arc::new(Pending::default());
    loop {
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept agents for a moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = pending.take(handshakes.max(1), &stop);
        let (acceptor, registry) = (acceptor.clone(), registry.clone());
        tokio::spawn(async move {
            let cancel = place.cancel.clone();
            match cancel.run_until_cancelled(admit(stream, acceptor, registry)).await {
                Some(Ok(())) => {}
                Some(Err(reason)) => tracing::warn!(%peer, %reason, "an agent could not connect"),
                None => tracing::debug!(%peer, "a connection that showed no certificate made room for another"),
            }
            drop(place);
        });
    }
}

/// Connections whose peer has not shown who it is, the oldest first.
#[derive(Default)]
struct Pending {
    waiting: Mutex<VecDeque<(u64, CancellationToken)>>,
    numbers: AtomicU64,
}

impl Pending {
    fn take(self: &Arc<Self>, most: usize, stop: &CancellationToken) -> Place {
        let (number, cancel) = (self.numbers.fetch_add(1, Ordering::Relaxed), stop.child_token());
        let mut pending = self.lock();
        while pending.len() >= most {
            let Some((_, oldest)) = pending.pop_front() else { break };
            oldest.cancel();
        }
        pending.push_back((number, cancel.clone()));
        Place { pending: self.clone(), number, cancel }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, CancellationToken)>> {
        self.waiting.lock().expect("no panic while it is held")
    }
}

/// One of them; dropped, it is none any more.
struct Place {
    pending: Arc<Pending>,
    number: u64,
    cancel: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.lock().retain(|(number, _)| *number != self.number);
    }
}

async fn admit(stream: TcpStream, acceptor: TlsAcceptor, registry: Arc<Registry>) -> Result<(), String> {
    // Small messages both ways: with Nagle's algorithm a query took 88 ms instead of 2.5.
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .map_err(|_| format!("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs()))?
        .map_err(|e| format!("its TLS handshake failed: {e}"))?;
    let identity =
        stream.get_ref().1.peer_certificates().and_then(tls::agent_id).ok_or("its certificate names no agent")?;
    registry.adopt(stream, Some(&AgentId::from(identity.as_str()))).await.map_err(|e| e.to_string())?;
    Ok(())
}
