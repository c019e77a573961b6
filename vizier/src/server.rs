//! Builds a Vizier from its configuration, and serves until told to stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use vizier_api::server::{SERVICE_NAME, VizierServer};
use vizier_api::{DESCRIPTORS, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
use vizier_engine::{AgentId, Engine, EngineConfig, Registry};

use crate::agents;
use crate::config::Config;
use crate::functions::Functions;
use crate::plugins::Plugins;
use crate::runs::{History, Runs};
use crate::scripts::Scripts;
use crate::service::Service;
use crate::{plugins, socket, tls};

/// How long runs get to say goodbye to their clients when Vizier stops.
const DRAIN: Duration = Duration::from_secs(5);
/// An idle client is probed this often, so that runs of one that vanished do not go on for ever.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// And is gone without an answer within this.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests at once on one connection. Runs have a lower bound of their own; this leaves lists and cancels room.
const STREAMS_MAX: u32 = 128;

/// Why a Vizier does not start, or ended.
#[derive(Debug, Error)]
pub enum Error {
    /// Neither a socket nor an address for clients.
    #[error("nobody could reach this vizier: give it a socket or an address for clients")]
    NoListener,
    /// Clients' place to connect to.
    #[error(transparent)]
    Socket(#[from] socket::Error),
    /// Agents' TLS.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The query engine or the guests' runtime.
    #[error("cannot start: {0}")]
    Start(host::error::Error),
    /// The file for agents on this machine.
    #[error("cannot write the agents' address to {}", path.display())]
    AddressFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reflection's descriptors.
    #[error("cannot serve reflection: {0}")]
    Reflection(String),
    /// The server of one listener ended.
    #[error("cannot go on serving clients")]
    Serve(#[source] tonic::transport::Error),
}

/// Where a Vizier can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Unix socket for clients.
    pub socket: Option<PathBuf>,
    /// TCP address for clients.
    pub clients: Option<SocketAddr>,
    /// TCP address for agents.
    pub agents: Option<SocketAddr>,
}

/// A Vizier that listens but does not serve yet.
pub struct Server {
    ready: Ready,
    unix: Option<socket::Unix>,
    tcp: Option<TcpListener>,
    agents: Option<(TcpListener, Arc<rustls::ServerConfig>)>,
    config: Config,
    engine: Engine,
    history: Arc<History>,
    runtime: host::Runtime,
}

/// Builds, says where it can be reached, and serves until `shutdown`.
pub async fn run(config: Config, ready: impl FnOnce(&Ready), shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let server = Server::build(config).await?;
    ready(server.ready());
    server.serve(shutdown).await
}

impl Server {
    /// Takes all its places, so that whatever is wrong shows here.
    pub async fn build(config: Config) -> Result<Self, Error> {
        if config.socket.is_none() && config.listen.is_none() {
            return Err(Error::NoListener);
        }
        // Read before anything is bound: a wrong file leaves nothing behind.
        let tls = config.agents.as_ref().map(|a| tls::server(&a.identity)).transpose()?;
        let unix = match &config.socket {
            Some(at) => Some(socket::unix(&at.path, at.group).await?),
            None => None,
        };
        let tcp = match config.listen {
            Some(addr) => Some(socket::tcp(addr).await?),
            None => None,
        };
        let agents = match (&config.agents, tls) {
            (Some(agents), Some(tls)) => Some((socket::tcp(agents.listen).await?, tls)),
            _ => None,
        };
        let ready = Ready {
            socket: config.socket.as_ref().map(|s| s.path.clone()),
            clients: tcp.as_ref().and_then(|l| l.local_addr().ok()),
            agents: agents.as_ref().and_then(|(l, _)| l.local_addr().ok()),
        };
        if let (Some(path), Some(addr)) = (config.agents.as_ref().and_then(|a| a.address_file.as_ref()), ready.agents) {
            write_address(path, addr).map_err(|source| Error::AddressFile { path: path.clone(), source })?;
        }
        let registry = Registry::bounded(config.limits.agents);
        registry.expect(config.agents_expected.iter().map(|id| AgentId::from(id.as_str())));
        let engine_config = EngineConfig { memory_bytes: config.limits.engine_memory_bytes, ..EngineConfig::default() };
        let history = Arc::new(History::new(config.limits.history_bytes));
        let engine = Engine::with_store(registry, engine_config, history.store()).map_err(Error::Start)?;
        let runtime = runtime(&config).map_err(Error::Start)?;
        Ok(Self { ready, unix, tcp, agents, config, engine, history, runtime })
    }

    /// Where it can be reached.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The query engine; tests hand it agents without a network.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Serves until `shutdown`, then stops taking requests, cancels runs, and gives them [`DRAIN`] to end.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { unix, tcp, agents, config, engine, history, runtime, .. } = self;
        let stop = CancellationToken::new();
        let runs = Runs::new(&config.limits, stop.clone());
        let functions = Functions::load(config.plugins.as_deref(), runtime.clone(), engine.clone()).await;
        let scripts = Scripts::new(runtime, config.plugins.clone(), config.limits.scripts_kept);
        let policy = plugins::Policy { trusted: config.trusted_keys.clone() };
        let plugins = Plugins::open(config.state.as_deref(), policy, scripts.clone(), functions);
        let service =
            Service::new(engine.clone(), scripts.clone(), plugins.clone(), runs, history, config.limits.clone());
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<VizierServer<Service>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|e| Error::Reflection(e.to_string()))?;
        let vizier = VizierServer::new(service)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(RESPONSE_BYTES_MAX);
        let router = || {
            tonic::transport::Server::builder()
                .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
                .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
                .max_concurrent_streams(Some(STREAMS_MAX))
                .tcp_nodelay(true)
                .add_service(vizier.clone())
                .add_service(health_service.clone())
                .add_service(reflection.clone())
        };

        let mut background = JoinSet::new();
        background.spawn(async move {
            scripts.warm().await;
            plugins.restore().await;
        });
        if let Some((listener, tls)) = agents {
            let (registry, handshakes) = (engine.registry().clone(), config.limits.handshakes);
            background.spawn(agents::listen(listener, tls, registry, handshakes, stop.clone()));
        }
        let mut servers = JoinSet::new();
        let _socket = unix.map(|unix| {
            let (listener, path) = unix.into_parts();
            let (stop, router) = (stop.clone(), router());
            servers.spawn(async move {
                router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned()).await
            });
            path
        });
        if let Some(listener) = tcp {
            let (stop, router) = (stop.clone(), router());
            servers.spawn(async move {
                router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned()).await
            });
        }
        tracing::info!(service = SERVICE_NAME, "vizier is ready");
        let early = tokio::select! {
            () = shutdown => None,
            ended = servers.join_next() => ended,
        };
        health.set_not_serving::<VizierServer<Service>>().await;
        stop.cancel();
        let drained = tokio::time::timeout(DRAIN, async { while servers.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!("some clients did not read the end of their runs; they are cut off");
        }
        tracing::info!("vizier has stopped");
        match early {
            Some(Ok(Err(e))) => Err(Error::Serve(e)),
            _ => Ok(()),
        }
    }
}

fn runtime(config: &Config) -> Result<host::Runtime, host::error::Error> {
    host::Runtime::new(host::Config {
        cache_dir: config.cache.clone(),
        compiler: config.compiler.clone(),
        ..host::Config::default()
    })
}

/// Whole or not at all: a PEM may read it at any time.
fn write_address(path: &Path, addr: SocketAddr) -> io::Result<()> {
    let next = path.with_extension("new");
    std::fs::write(&next, format!("{addr}\n"))?;
    std::fs::rename(&next, path)
}

/// The wall clock.
pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

#[cfg(test)]
mod tests;
