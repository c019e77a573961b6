//! The link to Vizier: dialled, served, dialled again, for ever.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pem_tables::Store;
use rand::Rng;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use vizier_engine::AgentId;
use vizier_engine::exchange::{self, AgentPlugins, Limits};

use super::Shared;
use super::config::Dial;

/// First pause before dialling again: a Vizier that was restarted is back within this.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause: so soon a Vizier that comes back sees all its agents.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A link that held this long was a good one: the next pause is short again.
const GOOD_LINK: Duration = Duration::from_secs(10);
/// Time for connecting and the TLS handshake together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// What is served, and to whom.
pub struct Link {
    pub dial: Dial,
    pub tls: Arc<rustls::ClientConfig>,
    pub id: AgentId,
    pub store: Arc<Store>,
    pub shared: Arc<Shared>,
    pub limits: Limits,
    pub plugins: Arc<AgentPlugins>,
}

impl Link {
    /// Keeps a link until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let mut ready = self.shared.ready.subscribe();
        if !matches!(stop.run_until_cancelled(ready.wait_for(|ready| *ready)).await, Some(Ok(_))) {
            return;
        }
        let mut pause = PAUSE_FIRST;
        // What was said last, so that a Vizier that is away for a day is one line in the log.
        let mut said = String::new();
        loop {
            let began = Instant::now();
            let Some(ended) = stop.run_until_cancelled(self.once(&mut said)).await else { return };
            if began.elapsed() >= GOOD_LINK {
                pause = PAUSE_FIRST;
            }
            let reason = match ended {
                Ok(()) => "vizier closed the link".to_owned(),
                Err(error) => chain(&error),
            };
            if reason != said {
                tracing::warn!(%reason, "no link to vizier; dialling until there is one");
                said = reason;
            }
            // Agents of a cluster that lost their Vizier at the same moment shall not come back at the same moment.
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            if stop.run_until_cancelled(tokio::time::sleep(jittered)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn once(&self, said: &mut String) -> io::Result<()> {
        let timeout =
            || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", DIAL_TIMEOUT.as_secs()));
        let (stream, addr) = tokio::time::timeout(DIAL_TIMEOUT, self.connect()).await.map_err(|_| timeout())??;
        tracing::info!(vizier = %addr, "link to vizier");
        said.clear();
        let (shared, id) = (self.shared.clone(), self.id.clone());
        let info = move || shared.info(&id);
        exchange::serve(stream, self.store.clone(), info, self.limits.clone(), self.plugins.clone()).await
    }

    async fn connect(&self) -> io::Result<(TlsStream<TcpStream>, SocketAddr)> {
        let stream = match &self.dial {
            Dial::Address(addr) => TcpStream::connect(addr).await,
            Dial::Host(host) => TcpStream::connect(host).await,
            Dial::File(path) => {
                let text = tokio::fs::read_to_string(path).await.map_err(|e| {
                    io::Error::new(
                        e.kind(),
                        format!("vizier has not written its address to {} yet: {e}", path.display()),
                    )
                })?;
                TcpStream::connect(text.trim()).await
            }
        }?;
        let addr = stream.peer_addr()?;
        // Small messages both ways: with Nagle's algorithm a query took 88 ms instead of 2.5.
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(vizier_api::VIZIER_TLS_NAME).expect("the constant is a DNS name");
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        Ok((stream, addr))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut level = error.source();
    while let Some(error) = level {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        level = error.source();
    }
    text
}
