//! Vizier's side: the agents it knows, connected or lately gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::datatypes::SchemaRef;
use arrow_flight::Action;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::future::join_all;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use super::io::{Counted, Traffic};
use super::plugins::{Plugin, Shipped, Wanted};
use super::wire::{Announcement, DESCRIBE, REFUSE, decode};
use super::{
    CONNECTION_WINDOW_BYTES, HELLO_TIMEOUT, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, MESSAGE_BYTES_MAX,
    STREAM_WINDOW_BYTES,
};
use crate::agent::{AgentId, AgentInfo};
use crate::error::message_of;

/// For how long results name an agent that is gone: as long as its rows would still be what people look at. After that it
/// counts as removed from the cluster.
const GONE_NAMED_FOR: Duration = Duration::from_secs(10 * 60);
/// Agents remembered after they have gone; the longest gone is forgotten first.
const GONE_MAX: usize = 256;

/// State of a table on one agent, as of its last `describe`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableOnAgent {
    /// Rows kept.
    pub rows: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// Bytes they may take.
    pub budget_bytes: u64,
    /// Time of the oldest row, if there is one.
    pub oldest_ns: Option<i64>,
    /// Time of the newest row, if there is one.
    pub newest_ns: Option<i64>,
    /// Rows that were removed for lack of room, since the agent started.
    pub rows_expired: u64,
}

/// Whether an agent answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// It has a link.
    Connected,
    /// It had one.
    Gone,
    /// It is expected and has never had one.
    Expected,
}

/// What is known of an agent.
#[derive(Clone, Debug)]
pub struct AgentStatus {
    /// What it said of itself last. Only the id is meaningful for an expected one.
    pub info: AgentInfo,
    /// Whether it answers.
    pub state: AgentState,
    /// Why it is in this state.
    pub reason: String,
    /// Start of its last link, ns since the epoch.
    pub connected_time_ns: i64,
    /// When it last answered, ns since the epoch.
    pub last_seen_time_ns: i64,
    /// Its tables.
    pub tables: BTreeMap<String, TableOnAgent>,
    /// Bytes that came from it over all its links, as the socket sees them.
    pub bytes_received: u64,
    /// Bytes sent to it over all its links.
    pub bytes_sent: u64,
}

/// A table, as the agents together have it.
#[derive(Clone, Debug)]
pub struct TableStatus {
    /// Name.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Columns: of the agents' schemas the widest.
    pub schema: SchemaRef,
    /// Agents that have it, with its state there.
    pub agents: Vec<(AgentId, TableOnAgent)>,
}

/// Why a connection was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Nothing that speaks our protocol answered.
    #[error("no agent answered on the connection: {0}")]
    Silent(String),
    /// It answered and cannot be taken.
    #[error("refused agent {id}: {reason}")]
    Refused {
        /// Who it says it is.
        id: AgentId,
        /// Why, and what to do.
        reason: String,
    },
}

/// The agents of one Vizier.
#[derive(Debug, Default)]
pub struct Registry {
    state: Mutex<State>,
    generation: AtomicU64,
    /// Agents connected at once; 0 for as many as come.
    agents_max: usize,
}

#[derive(Debug, Default)]
struct State {
    agents: BTreeMap<AgentId, Entry>,
    expected: BTreeSet<AgentId>,
    view: Option<Arc<View>>,
    plugins: Arc<Wanted>,
}

#[derive(Debug)]
struct Entry {
    info: AgentInfo,
    link: Option<Link>,
    reason: String,
    connected_at: i64,
    seen_at: i64,
    gone_at: Option<Instant>,
    tables: Arc<BTreeMap<String, Announced>>,
    traffic: Arc<Traffic>,
    /// It had tables before those it has now.
    restarted: bool,
}

#[derive(Clone, Debug)]
struct Link {
    channel: Channel,
    generation: u64,
    shipped: Arc<Shipped>,
}

#[derive(Debug)]
struct Announced {
    schema: SchemaRef,
    description: String,
    state: TableOnAgent,
}

/// What a query plans against: the agents and tables at one moment.
#[derive(Debug)]
pub(crate) struct View {
    /// Agents with a link.
    pub agents: Vec<AgentLink>,
    /// Agents that should answer and cannot, with the reason.
    pub absent: Vec<(AgentId, String)>,
    /// Tables by name, over all agents ever seen and not forgotten.
    pub tables: BTreeMap<String, Arc<TableDef>>,
    /// Agents that were known before they began anew, with the start of the tables they have now: what they held before is
    /// gone. An agent that is seen for the first time is not here. Its tables begin at its start, too, but for all that is
    /// known nobody watched that node before, and every result of a fresh installation would say that it lacks the past.
    pub began_anew: BTreeMap<AgentId, i64>,
    /// What agents are to have.
    pub plugins: Arc<Wanted>,
}

#[derive(Clone, Debug)]
pub(crate) struct AgentLink {
    pub id: AgentId,
    pub channel: Channel,
    pub shipped: Arc<Shipped>,
}

/// A table, as the agents together have it.
#[derive(Debug)]
pub(crate) struct TableDef {
    pub name: String,
    pub description: String,
    pub schema: SchemaRef,
    pub rows: u64,
    /// Agents that have it, with its state there.
    pub agents: Vec<(AgentId, TableOnAgent)>,
}

impl Registry {
    /// Knows nobody.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Knows nobody, and takes so many at once.
    pub fn bounded(agents_max: usize) -> Arc<Self> {
        Arc::new(Self { agents_max: agents_max.max(1), ..Self::default() })
    }

    /// Results name these agents as missing until they connect.
    pub fn expect(&self, ids: impl IntoIterator<Item = AgentId>) {
        let mut state = self.lock();
        state.expected.extend(ids);
        state.view = None;
    }

    /// Takes a connection that an agent dialled (the caller has decrypted it, and set `TCP_NODELAY`).
    ///
    /// `identity` is what the certificate says, where there is one: an agent may not call itself otherwise. A second link
    /// of an agent replaces the first: it has restarted, or lost the first without our noticing.
    pub async fn adopt<Io>(self: &Arc<Self>, io: Io, identity: Option<&AgentId>) -> Result<AgentId, AdoptError>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let traffic = Arc::new(Traffic::default());
        let registry = Arc::downgrade(self);
        let closed = Arc::new(AtomicBool::new(false));
        let on_drop = {
            let closed = closed.clone();
            move || {
                closed.store(true, Ordering::SeqCst);
                if let Some(registry) = registry.upgrade() {
                    registry.lost(generation);
                }
            }
        };
        let channel = channel(Counted::new(io, traffic.clone(), on_drop));
        // The first call makes the HTTP/2 handshake and shows whether an agent is there at all.
        let announcement = match timeout(HELLO_TIMEOUT, describe(&channel)).await {
            Ok(Ok(announcement)) => announcement,
            Ok(Err(reason)) => return Err(AdoptError::Silent(reason)),
            Err(_) => return Err(AdoptError::Silent(format!("nothing within {} s", HELLO_TIMEOUT.as_secs()))),
        };
        let info = announcement.info();
        let tables = match tables_of(&announcement) {
            Ok(tables) => tables,
            Err(reason) => return Err(refuse(&channel, info.id, reason).await),
        };
        if let Some(reason) = announcement.mismatch().or_else(|| self.objection(&info, identity)) {
            return Err(refuse(&channel, info.id, reason).await);
        }
        let id = info.id.clone();
        tracing::info!(agent = %id, host = %info.hostname, version = %info.version, "agent connected");
        let mut state = self.lock();
        let mut restarted = false;
        if let Some(old) = state.agents.get(&id) {
            // The same start is the same process on a new link.
            restarted = old.restarted || old.info.since_ns != info.since_ns;
            traffic.received.fetch_add(old.traffic.received.load(Ordering::Relaxed), Ordering::Relaxed);
            traffic.sent.fetch_add(old.traffic.sent.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let shipped = Arc::new(Shipped::default());
        let plugins = state.plugins.clone();
        let entry = Entry {
            info,
            link: Some(Link { channel: channel.clone(), generation, shipped: shipped.clone() }),
            reason: String::new(),
            connected_at: now_ns(),
            seen_at: now_ns(),
            gone_at: None,
            tables: Arc::new(tables),
            traffic,
            restarted,
        };
        state.agents.insert(id.clone(), entry);
        state.view = None;
        drop(state);
        if closed.load(Ordering::SeqCst) {
            // It went between its answer and now, when there was no entry to mark yet.
            self.lost(generation);
        }
        // Not waited for: a query that needs them does.
        tokio::spawn(ship(id.clone(), channel, shipped, plugins));
        Ok(id)
    }

    /// Makes all agents have these plugins of the kind, and no others of it, from now on. Must be called within a tokio runtime.
    pub fn set_plugins(&self, kind: &str, plugins: Vec<Plugin>) {
        let mut state = self.lock();
        let others = state.plugins.plugins.iter().filter(|plugin| plugin.kind != kind).cloned();
        let plugins = others.chain(plugins).collect();
        state.plugins = Arc::new(Wanted { generation: state.plugins.generation + 1, plugins });
        state.view = None;
        for (id, entry) in &state.agents {
            if let Some(link) = &entry.link {
                tokio::spawn(ship(id.clone(), link.channel.clone(), link.shipped.clone(), state.plugins.clone()));
            }
        }
    }

    /// The plugins agents are to have.
    pub fn plugins(&self) -> Vec<Plugin> {
        self.lock().plugins.plugins.clone()
    }

    /// All agents, connected ones and those that are missed.
    pub fn agents(&self) -> Vec<AgentStatus> {
        let mut state = self.lock();
        forget(&mut state);
        let known = state.agents.values().map(|entry| AgentStatus {
            info: entry.info.clone(),
            state: if entry.link.is_some() { AgentState::Connected } else { AgentState::Gone },
            reason: entry.reason.clone(),
            connected_time_ns: entry.connected_at,
            last_seen_time_ns: entry.seen_at,
            tables: entry.tables.iter().map(|(name, table)| (name.clone(), table.state)).collect(),
            bytes_received: entry.traffic.received.load(Ordering::Relaxed),
            bytes_sent: entry.traffic.sent.load(Ordering::Relaxed),
        });
        let known: Vec<_> = known.collect();
        let unknown = state.expected.iter().filter(|id| !state.agents.contains_key(*id)).map(|id| AgentStatus {
            info: AgentInfo {
                id: id.clone(),
                asid: 0,
                hostname: String::new(),
                version: String::new(),
                kernel: String::new(),
                capture: String::new(),
                events: 0,
                events_lost: 0,
                since_ns: None,
            },
            state: AgentState::Expected,
            reason: NEVER_CONNECTED.into(),
            connected_time_ns: 0,
            last_seen_time_ns: 0,
            tables: BTreeMap::new(),
            bytes_received: 0,
            bytes_sent: 0,
        });
        known.into_iter().chain(unknown).collect()
    }

    /// Tables by name, with their state on each agent. As of the last [`Self::refresh`].
    pub fn tables(&self) -> Vec<TableStatus> {
        let view = self.view();
        let status = |def: &Arc<TableDef>| TableStatus {
            name: def.name.clone(),
            description: def.description.clone(),
            schema: def.schema.clone(),
            agents: def.agents.clone(),
        };
        view.tables.values().map(status).collect()
    }

    /// Asks every connected agent again who it is and what it has. One that does not answer in time keeps what was known.
    pub async fn refresh(&self, within: Duration) {
        let links: Vec<_> =
            self.lock().agents.iter().filter_map(|(id, entry)| Some((id.clone(), entry.link.clone()?))).collect();
        join_all(links.into_iter().map(|(id, link)| async move {
            let Ok(Ok(announcement)) = timeout(within, describe(&link.channel)).await else { return };
            let Ok(tables) = tables_of(&announcement) else { return };
            let mut state = self.lock();
            if let Some(entry) = state.agents.get_mut(&id)
                && entry.link.as_ref().is_some_and(|current| current.generation == link.generation)
            {
                entry.info = announcement.info();
                entry.tables = Arc::new(tables);
                entry.seen_at = now_ns();
                state.view = None;
            }
        }))
        .await;
    }

    /// The agents and tables of this moment.
    pub(crate) fn view(&self) -> Arc<View> {
        let mut state = self.lock();
        if forget(&mut state) {
            state.view = None;
        }
        if let Some(view) = &state.view {
            return view.clone();
        }
        let view = Arc::new(make_view(&state));
        state.view = Some(view.clone());
        view
    }

    /// What speaks against an agent that otherwise fits.
    fn objection(&self, info: &AgentInfo, identity: Option<&AgentId>) -> Option<String> {
        if info.id.as_str().is_empty() {
            return Some("it has no id".into());
        }
        if let Some(identity) = identity
            && *identity != info.id
        {
            return Some(format!("its certificate is for {identity}: enrol it again, or give it its own certificate"));
        }
        let state = self.lock();
        let others = state.agents.values().filter(|entry| entry.link.is_some() && entry.info.id != info.id).count();
        if self.agents_max > 0 && others >= self.agents_max {
            return Some(format!(
                "this vizier has {others} agents, and takes no more: give the others one of their own"
            ));
        }
        let twin = state
            .agents
            .values()
            .find(|entry| entry.link.is_some() && entry.info.asid == info.asid && entry.info.id != info.id)?;
        Some(format!(
            "its short id {} is that of agent {}, and upids would clash: give one of them another id",
            info.asid, twin.info.id
        ))
    }

    fn lost(&self, generation: u64) {
        let mut state = self.lock();
        let Some(entry) = state
            .agents
            .values_mut()
            .find(|entry| entry.link.as_ref().is_some_and(|link| link.generation == generation))
        else {
            return;
        };
        tracing::warn!(agent = %entry.info.id, "agent gone: its link was closed");
        entry.link = None;
        entry.gone_at = Some(Instant::now());
        entry.seen_at = now_ns();
        entry.reason = "its link was closed".into();
        state.view = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }
}

const NEVER_CONNECTED: &str = "never connected";

/// Drops agents that are gone for too long. True if any was.
fn forget(state: &mut State) -> bool {
    let before = state.agents.len();
    state.agents.retain(|_, entry| entry.gone_at.is_none_or(|at| at.elapsed() < GONE_NAMED_FOR));
    while state.agents.values().filter(|entry| entry.gone_at.is_some()).count() > GONE_MAX {
        let oldest = state.agents.iter().filter(|(_, e)| e.gone_at.is_some()).min_by_key(|(_, e)| e.gone_at);
        let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { break };
        state.agents.remove(&oldest);
    }
    before != state.agents.len()
}

fn make_view(state: &State) -> View {
    let mut agents = Vec::new();
    let mut absent = Vec::new();
    let mut tables: BTreeMap<String, TableDef> = BTreeMap::new();
    let mut began_anew = BTreeMap::new();
    for (id, entry) in &state.agents {
        match &entry.link {
            Some(link) => {
                agents.push(AgentLink { id: id.clone(), channel: link.channel.clone(), shipped: link.shipped.clone() })
            }
            None => absent.push((id.clone(), format!("gone: {}", entry.reason))),
        }
        if let Some(since_ns) = entry.info.since_ns.filter(|_| entry.restarted) {
            began_anew.insert(id.clone(), since_ns);
        }
        for (name, announced) in entry.tables.iter() {
            let def = tables.entry(name.clone()).or_insert_with(|| TableDef {
                name: name.clone(),
                description: announced.description.clone(),
                schema: announced.schema.clone(),
                rows: 0,
                agents: Vec::new(),
            });
            // Releases add columns: the widest schema is the newest, and agents that lack a column say so when asked for it.
            if announced.schema.fields().len() > def.schema.fields().len() {
                def.schema = announced.schema.clone();
                def.description = announced.description.clone();
            }
            def.rows += announced.state.rows;
            def.agents.push((id.clone(), announced.state));
        }
    }
    for id in state.expected.iter().filter(|id| !state.agents.contains_key(*id)) {
        absent.push((id.clone(), NEVER_CONNECTED.into()));
    }
    let tables = tables.into_iter().map(|(name, def)| (name, Arc::new(def))).collect();
    View { agents, absent, tables, began_anew, plugins: state.plugins.clone() }
}

fn tables_of(announcement: &Announcement) -> Result<BTreeMap<String, Announced>, String> {
    announcement
        .tables
        .iter()
        .map(|table| {
            let schema = table.schema().map_err(|e| message_of(&e))?;
            let announced = Announced { schema, description: table.description.clone(), state: table.state() };
            Ok((table.name.clone(), announced))
        })
        .collect()
}

fn channel<Io>(io: Counted<Io>) -> Channel
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut once = Some(io);
    Endpoint::from_static("http://agent.pyxis")
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector_lazy(tower::service_fn(move |_| {
            // A second call means that the connection was lost: only the agent can dial again.
            let io = once.take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "its link was closed"));
            async move { io.map(TokioIo::new) }
        }))
}

pub(crate) fn client(channel: Channel) -> FlightServiceClient<Channel> {
    FlightServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

async fn describe(channel: &Channel) -> Result<Announcement, String> {
    let mut answer = client(channel.clone())
        .do_action(Action::new(DESCRIBE, bytes::Bytes::new()))
        .await
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    let message = answer.message().await.map_err(|status| status.message().to_owned())?;
    let message = message.ok_or("it said nothing of itself")?;
    decode(&message.body, "what an agent says of itself").map_err(|e| message_of(&e))
}

async fn ship(agent: AgentId, channel: Channel, shipped: Arc<Shipped>, plugins: Arc<Wanted>) {
    if let Err(reason) = shipped.ship(&channel, &plugins).await {
        tracing::warn!(%agent, %reason, "plugins could not be sent");
    }
}

async fn refuse(channel: &Channel, id: AgentId, reason: String) -> AdoptError {
    tracing::warn!(agent = %id, %reason, "agent refused");
    // So that the agent's own log says why; whether it still listens is its own affair.
    let mut client = client(channel.clone());
    let told = client.do_action(Action::new(REFUSE, reason.clone()));
    drop(timeout(HELLO_TIMEOUT, told).await);
    AdoptError::Refused { id, reason }
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}
