//! A Vizier with everything real around it, on loopback and in a temporary folder.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use hyper_util::rt::TokioIo;
use pem_tables::{Store, StoreConfig, Value, catalog};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use vizier_api::client::VizierClient;
use vizier_api::execute_request::What;
use vizier_api::execute_response::Event;
use vizier_api::status::Code;
use vizier_api::*;
use vizier_engine::{AgentInfo, exchange};

use crate::config::{self, Config, Socket};
use crate::server::{Error, Ready, Server, now_ns};
use crate::{Limits, pki};

/// Everything here happens on one machine; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Harness {
    dir: TempDir,
    ready: Ready,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), Error>>,
    pub pki: pki::Pki,
}

impl Harness {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        Self::with(|config| config.limits = limits).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = pki::create(&dir.path().join("pki"), None, &["node-a", "node-b", "node-c"]).unwrap();
        let mut config = Config {
            socket: Some(Socket { path: dir.path().join("v.sock"), group: None }),
            agents: Some(config::Agents {
                listen: "127.0.0.1:0".parse().unwrap(),
                identity: pki.vizier.clone(),
                address_file: Some(dir.path().join("agents.addr")),
            }),
            ..Config::default()
        };
        change(&mut config);
        let server = Server::build(config).await.unwrap();
        let ready = server.ready().clone();
        let written = std::fs::read_to_string(dir.path().join("agents.addr")).unwrap();
        assert_eq!(written.trim().parse::<SocketAddr>().ok(), ready.agents);
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(server.serve(shutdown.clone().cancelled_owned()));
        Self { dir, ready, shutdown, server, pki }
    }

    pub fn socket(&self) -> PathBuf {
        self.ready.socket.clone().unwrap()
    }

    pub fn agents_addr(&self) -> SocketAddr {
        self.ready.agents.unwrap()
    }

    pub async fn channel(&self) -> Channel {
        let path = self.socket();
        Endpoint::from_static("http://vizier.local")
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .unwrap()
    }

    pub async fn client(&self) -> VizierClient<Channel> {
        VizierClient::new(self.channel().await).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    /// An agent with `rows` rows in `proc_exit_events`, connected.
    pub async fn agent(&self, id: &str, asid: u32, rows: i64) -> Agent {
        let agent = self.dial(&self.identity(id), id, asid, store(rows)).await;
        self.wait_for(id, "connected").await;
        agent
    }

    pub fn identity(&self, id: &str) -> pki::Identity {
        self.pki.agents.iter().find(|(name, _)| name == id).unwrap().1.clone()
    }

    /// Dials with these certificates under this id.
    pub async fn dial(&self, identity: &pki::Identity, id: &str, asid: u32, store: Arc<Store>) -> Agent {
        let proxy = Proxy::start(self.ready.agents.unwrap()).await;
        let info = AgentInfo {
            id: id.into(),
            asid,
            hostname: format!("{id}.example"),
            version: "0".into(),
            kernel: "6.18".into(),
            capture: "none".into(),
            events: 0,
            events_lost: 0,
            since_ns: None,
        };
        let (tls, addr, tables) = (client_tls(identity), proxy.addr, store.clone());
        let task = tokio::spawn(async move {
            let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
            stream.set_nodelay(true).unwrap();
            let name = ServerName::try_from(VIZIER_TLS_NAME).unwrap();
            let stream =
                tokio_rustls::TlsConnector::from(tls).connect(name, stream).await.map_err(|e| e.to_string())?;
            exchange::serve(stream, tables, move || info.clone(), exchange::Limits::default(), Arc::default())
                .await
                .map_err(|e| e.to_string())
        });
        Agent { store, proxy, task: Some(task) }
    }

    pub async fn wait_for(&self, id: &str, state: &str) {
        let mut client = self.client().await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let agents = client.list_agents(ListAgentsRequest {}).await.unwrap().into_inner().agents;
            if agents.iter().any(|a| a.id == id && a.state == state) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{id} is not {state}: {agents:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.server).await.expect("it stops").unwrap().unwrap();
        drop(self.dir);
    }
}

/// What stands in for a PEM.
pub struct Agent {
    pub store: Arc<Store>,
    pub proxy: Proxy,
    task: Option<JoinHandle<Result<(), String>>>,
}

impl Agent {
    /// How its link ended.
    pub async fn ended(&mut self) -> Result<(), String> {
        tokio::time::timeout(PATIENCE, self.task.take().unwrap()).await.expect("the link ends").unwrap()
    }

    pub fn append(&self, from: i64, rows: i64) {
        append(&self.store, from, rows);
    }
}

/// Between an agent and Vizier.
pub struct Proxy {
    addr: SocketAddr,
    /// Ends the connection, as a killed process does.
    pub cut: CancellationToken,
    /// Swallows everything from now on, as a frozen process does.
    pub freeze: CancellationToken,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (cut, freeze) = (CancellationToken::new(), CancellationToken::new());
        let (cut_here, freeze_here) = (cut.clone(), freeze.clone());
        tokio::spawn(async move {
            let (mut agent, _) = listener.accept().await.unwrap();
            let mut vizier = TcpStream::connect(to).await.unwrap();
            agent.set_nodelay(true).unwrap();
            vizier.set_nodelay(true).unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut agent, &mut vizier) => {}
                () = cut_here.cancelled() => {}
                () = freeze_here.cancelled() => cut_here.cancelled().await,
            }
        });
        Self { addr, cut, freeze }
    }
}

pub fn store(rows: i64) -> Arc<Store> {
    // Enough for the largest test to keep all its rows.
    let store = Store::new(StoreConfig { budget_bytes: 2 << 30, ..StoreConfig::default() }, catalog::ALL);
    append(&store, 0, rows);
    store
}

/// Rows `from..from + rows`, whose exit code is their number, a second old.
pub fn append(store: &Arc<Store>, from: i64, rows: i64) {
    let mut appender = store.table("proc_exit_events").unwrap().appender();
    let now = now_ns();
    for n in from..from + rows {
        let row = [
            Value::Time(now - 1_000_000_000),
            Value::U128(n as u128),
            Value::Int(n),
            Value::Int(-1),
            Value::Str(if n % 2 == 0 { "even" } else { "odd" }),
        ];
        appender.append(&row).unwrap();
    }
    appender.publish(now);
}

fn client_tls(identity: &pki::Identity) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&identity.ca).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(&identity.cert).unwrap()],
            PrivateKeyDer::from_pem_file(&identity.key).unwrap(),
        )
        .unwrap();
    Arc::new(config)
}

/// One output table of one round.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub name: String,
    pub schema: Vec<u8>,
    pub batches: Vec<RecordBatch>,
}

impl Output {
    pub fn schema_fields(&self) -> Vec<String> {
        let schema = ipc::decode_schema(&self.schema).unwrap();
        schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// A whole stream.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub started: Started,
    pub outputs: Vec<Output>,
    pub rounds: Vec<RoundFinished>,
    pub logs: Vec<Log>,
    pub finished: Finished,
}

impl Answer {
    pub fn code(&self) -> Code {
        self.finished.status.as_ref().expect("it was finished").code()
    }

    pub fn table(&self, name: &str) -> &Output {
        self.outputs.iter().find(|o| o.name == name).unwrap_or_else(|| panic!("no table {name}: {:?}", self.finished))
    }

    pub fn statistics(&self) -> &Statistics {
        self.finished.statistics.as_ref().unwrap()
    }

    pub fn completeness(&self) -> &Completeness {
        self.finished.completeness.as_ref().unwrap()
    }
}

pub fn query(text: &str) -> ExecuteRequest {
    ExecuteRequest { what: Some(What::Sql(text.into())), ..Default::default() }
}

pub async fn sql(client: &mut VizierClient<Channel>, text: &str) -> Answer {
    execute(client, query(text)).await
}

pub async fn execute(client: &mut VizierClient<Channel>, request: ExecuteRequest) -> Answer {
    let stream = client.execute(request).await.unwrap().into_inner();
    tokio::time::timeout(PATIENCE, read(stream)).await.expect("the stream ends")
}

/// Reads to the end, and checks the order that the contract promises.
pub async fn read(mut stream: Streaming<ExecuteResponse>) -> Answer {
    let mut result = Answer::default();
    let mut current: Vec<usize> = Vec::new();
    let mut over = false;
    while let Some(message) = stream.message().await.unwrap() {
        assert!(!over, "something after Finished");
        match message.event.unwrap() {
            Event::Started(started) => {
                assert!(result.started.run_id.is_empty() && result.outputs.is_empty());
                result.started = started;
            }
            Event::Table(table) => {
                if current.len() > table.table as usize {
                    // A new round numbers from 0 again.
                    assert_eq!(table.table, 0);
                    current.clear();
                }
                assert_eq!(table.table as usize, current.len());
                current.push(result.outputs.len());
                result.outputs.push(Output { name: table.name, schema: table.schema, batches: Vec::new() });
            }
            Event::Batch(batch) => {
                assert!(batch.ipc.len() < RESPONSE_BYTES_MAX);
                let batches = ipc::decode_batches(&batch.ipc).unwrap();
                assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() as u64, batch.rows);
                result.outputs[current[batch.table as usize]].batches.extend(batches);
            }
            Event::Log(log) => result.logs.push(log),
            Event::Round(round) => result.rounds.push(round),
            Event::Finished(finished) => {
                over = true;
                result.finished = finished;
            }
        }
    }
    result
}

pub fn numbers(batches: &[RecordBatch], column: usize) -> Vec<i64> {
    batches.iter().flat_map(|b| b.column(column).as_primitive::<Int64Type>().values().to_vec()).collect()
}

pub fn hint(status: &tonic::Status) -> String {
    let bytes = status.metadata().get_bin(HINT_KEY).map(|v| v.to_bytes().unwrap().to_vec()).unwrap_or_default();
    String::from_utf8(bytes).unwrap()
}
