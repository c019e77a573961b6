//! A Vizier and agents, each on a TCP connection which it dialled, through a wire that can be cut or frozen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use host::backend::{Frame, TimeRange};
use host::error::Error;
use host::meter::{Budget, Meter};
use pem_tables::Store;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use vizier_engine::exchange::{Activity, AgentPlugins, AgentState, Limits, serve};
use vizier_engine::policy::{AllowAll, Policy};
use vizier_engine::{AgentId, AgentInfo, Engine, EngineConfig, Query, QueryContext, Registry, functions};

use super::data::{STEP_NS, T0};

/// State of a wire.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Wire {
    Whole,
    Frozen,
    Cut,
}

pub struct Agent {
    pub activity: Arc<Activity>,
    pub wire: watch::Sender<Wire>,
    pub served: JoinHandle<std::io::Result<()>>,
}

pub struct Cluster {
    pub registry: Arc<Registry>,
    pub engine: Engine,
    pub agents: Vec<Agent>,
    pub stores: Vec<Arc<Store>>,
    pub vizier: SocketAddr,
}

/// One for all, as a process has one.
pub fn runtime() -> &'static host::Runtime {
    static RUNTIME: OnceLock<host::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| host::Runtime::new(host::Config::default()).expect("a runtime"))
}

pub fn id_of(agent: u32) -> AgentId {
    AgentId::new(format!("agent-{agent}"))
}

pub fn info(agent: u32) -> AgentInfo {
    AgentInfo {
        id: id_of(agent),
        asid: agent + 1,
        hostname: format!("node-{agent}"),
        version: "0.1.0".into(),
        kernel: "6.1".into(),
        capture: "replay".into(),
        events: 0,
        events_lost: 0,
        since_ns: None,
    }
}

/// Range that holds all generated rows.
pub fn everything() -> TimeRange {
    TimeRange { start_ns: T0, end_ns: T0 + 10_000_000 * STEP_NS }
}

impl Cluster {
    pub async fn start(stores: Vec<Arc<Store>>) -> Self {
        Self::with(stores, EngineConfig { threads: 2, ..EngineConfig::default() }).await
    }

    pub async fn with(stores: Vec<Arc<Store>>, config: EngineConfig) -> Self {
        let registry = Registry::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let vizier = listener.local_addr().unwrap();
        let adopting = registry.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let registry = adopting.clone();
                tokio::spawn(async move { registry.adopt(socket, None).await });
            }
        });
        let engine = Engine::new(registry.clone(), config).unwrap();
        let mut cluster = Self { registry, engine, agents: vec![], stores: vec![], vizier };
        for (i, store) in stores.into_iter().enumerate() {
            cluster.add(i as u32, store, Limits::default()).await;
        }
        cluster.connected(cluster.agents.len()).await;
        cluster
    }

    /// An agent that dials through a wire.
    pub async fn add(&mut self, agent: u32, store: Arc<Store>, limits: Limits) {
        self.add_as(info(agent), store, limits).await
    }

    pub async fn add_as(&mut self, info: AgentInfo, store: Arc<Store>, limits: Limits) {
        let (wire, state) = watch::channel(Wire::Whole);
        let proxy = wire_to(self.vizier, state).await;
        let activity = limits.activity.clone();
        let socket = TcpStream::connect(proxy).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let served = tokio::spawn(serve(socket, store.clone(), move || info.clone(), limits, self.plugins()));
        self.agents.push(Agent { activity, wire, served });
        self.stores.push(store);
    }

    /// Of an agent that runs functions of plugins.
    fn plugins(&self) -> Arc<AgentPlugins> {
        Arc::new(AgentPlugins::default().with_functions(runtime().clone()))
    }

    pub async fn connected(&self, agents: usize) {
        let connected = || self.registry.agents().iter().filter(|a| a.state == AgentState::Connected).count();
        within(Duration::from_secs(10), "agents to connect", || connected() == agents).await;
    }

    pub fn query(&self) -> Arc<Query> {
        self.query_with(Duration::from_secs(60), Arc::new(AllowAll))
    }

    pub fn query_with(&self, time: Duration, policy: Arc<dyn Policy>) -> Arc<Query> {
        self.engine.query(QueryContext {
            range: everything(),
            now_ns: T0,
            deadline: Instant::now() + time,
            policy,
            meter: Arc::new(Meter::new(Budget::default())),
        })
    }

    pub fn query_over(&self, range: TimeRange) -> Arc<Query> {
        self.engine.query(QueryContext {
            range,
            now_ns: T0,
            deadline: Instant::now() + Duration::from_secs(60),
            policy: Arc::new(AllowAll),
            meter: Arc::new(Meter::new(Budget::default())),
        })
    }

    pub async fn run(&self, sql: &str) -> Result<Done, Error> {
        run(self.query(), sql).await
    }

    /// All rows in one place, with stock DataFusion.
    pub fn single_node(&self) -> SessionContext {
        let mut config = SessionConfig::new().with_target_partitions(2);
        config.options_mut().execution.time_zone = Some("UTC".into());
        let context = SessionContext::new_with_config(config);
        for function in functions::scalars() {
            context.register_udf(function.as_ref().clone());
        }
        for function in functions::aggregates() {
            context.register_udaf(function.as_ref().clone());
        }
        let mut tables: BTreeMap<String, Vec<Vec<RecordBatch>>> = BTreeMap::new();
        for store in &self.stores {
            for table in store.tables() {
                let batches = table.scan(pem_tables::TimeRange::ALL, None).collect();
                tables.entry(table.spec().name.to_owned()).or_default().push(batches);
            }
        }
        for (name, partitions) in tables {
            let schema = self.stores[0].table(&name).unwrap().schema();
            let table = MemTable::try_new(schema, partitions).unwrap();
            context.register_table(name.as_str(), Arc::new(table)).unwrap();
        }
        context
    }
}

/// A finished query.
pub struct Done {
    pub batches: Vec<RecordBatch>,
    pub query: Arc<Query>,
}

impl Done {
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    pub fn missing(&self) -> BTreeMap<String, String> {
        self.query.missing().into_iter().map(|(id, why)| (id.to_string(), why)).collect()
    }

    pub fn lines(&self) -> Vec<String> {
        lines(&self.batches)
    }

    pub fn bytes_sent(&self) -> u64 {
        self.query.statistics().values().map(|s| s.bytes_sent).sum()
    }
}

pub async fn run(query: Arc<Query>, sql: &str) -> Result<Done, Error> {
    let frame = query.backend().sql(sql, &[])?;
    collect(query, frame).await
}

pub async fn collect(query: Arc<Query>, frame: Arc<dyn Frame>) -> Result<Done, Error> {
    let batches: Vec<_> = query.execute(frame.as_ref()).try_collect().await?;
    for batch in &batches {
        assert_eq!(batch.schema(), frame.schema(), "a frame gives what its schema says");
    }
    Ok(Done { batches, query })
}

/// One line per row, floats to nine digits.
pub fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = vec![];
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(batch.columns()).map(|(formatter, column)| {
                let text = formatter.value(row).to_string();
                let float = matches!(column.data_type(), DataType::Float64) && column.is_valid(row);
                if float { format!("{:.8e}", text.parse::<f64>().unwrap()) } else { text }
            });
            lines.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    lines
}

/// Waits for something that must come about. Only for what another task does in its own time.
pub async fn within(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {time:?} for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A listener whose one connection is carried to `target` while the wire is whole.
async fn wire_to(target: SocketAddr, mut state: watch::Receiver<Wire>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(target).await.unwrap();
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        loop {
            let now = *state.borrow_and_update();
            match now {
                Wire::Cut => return,
                // Nothing is read: both ends see a peer that is there and silent.
                Wire::Frozen => {
                    if state.changed().await.is_err() {
                        return;
                    }
                }
                Wire::Whole => tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => return,
                    changed = state.changed() => if changed.is_err() {
                        return;
                    },
                },
            }
        }
    });
    address
}
