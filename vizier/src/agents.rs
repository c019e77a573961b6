//! Lets PEMs in: TCP, mutual TLS, then the engine's registry. Nothing here waits for a peer without a bound.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use vizier_engine::{AgentId, Registry};

use crate::tls;

/// A handshake takes two round trips; across the world under loss that is below this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After `accept` failed (no descriptors left, usually) others get time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts PEMs until `stop`.
pub async fn listen(
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    registry: Arc<Registry>,
    handshakes: usize,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(config);
    // Whoever has not shown a certificate holds one of these; when all are held, new ones wait in the kernel's backlog.
    let pending = Arc::new(Semaphore::new(handshakes.max(1)));
    loop {
        let Some(Ok(place)) = stop.run_until_cancelled(pending.clone().acquire_owned()).await else { return };
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept agents for a moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, registry, stop) = (acceptor.clone(), registry.clone(), stop.clone());
        tokio::spawn(async move {
            let admitted = stop.run_until_cancelled(admit(stream, acceptor, registry)).await;
            drop(place);
            if let Some(Err(reason)) = admitted {
                tracing::warn!(%peer, %reason, "an agent could not connect");
            }
        });
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
