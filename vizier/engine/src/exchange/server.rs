//! The PEM's side: serves fragments on the connection it dialled.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use host::error::Exhausted;
use host::function::Bounds;
use host::meter::{Budget, Meter};
use pem_tables::Store;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant as Deadline, timeout, timeout_at};
use tonic::{Request, Response, Status, Streaming};

use super::batches::{Coalescer, Encoder, usage_message};
use super::io::{Counted, Traffic};
use super::plugins::AgentPlugins;
use super::sessions::Sessions;
use super::wire::{
    AnnouncedTable, Announcement, DESCRIBE, Fragment, PLUGIN, PLUGINS, PluginAnswer, PluginOffer, REFUSE, Usage, decode,
};
use super::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES};
use crate::agent::AgentInfo;
use crate::codec;
use crate::error::{Fault, fault_in, to_status};
use crate::functions::plugin::FragmentFunctions;
use crate::leaf::grouped::specialise;
use crate::yielding::yielding;

/// What queries may use of a node.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Memory of operators that keep rows (aggregates, sorts, joins), all fragments together.
    pub memory_bytes: usize,
    /// Fragments that run at once; others wait until their query's deadline.
    pub fragments: usize,
    /// Counters that the embedder may show.
    pub activity: Arc<Activity>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Half of what an agent may use beyond its tables (150 MiB): a sort of a million rows of three columns fits.
            memory_bytes: 64 << 20,
            // More than this only share the same core.
            fragments: 32,
            activity: Arc::default(),
        }
    }
}

/// What queries have used of a node, since it started.
#[derive(Debug, Default)]
pub struct Activity {
    /// Fragments at work or waiting now.
    pub fragments_running: AtomicU64,
    /// Fragments ever begun.
    pub fragments: AtomicU64,
    /// Rows read from tables.
    pub rows_scanned: AtomicU64,
    /// Bytes read from tables.
    pub bytes_scanned: AtomicU64,
}

/// HTTP/2 streams at once. Far above `Limits::fragments`, so that `describe` never waits behind queries that do.
const STREAMS_MAX: u32 = 1024;
/// Messages ready to be sent, per query. With the stream's window this bounds what an unread query holds.
const MESSAGES_READY: usize = 2;
/// How often a running fragment reports what it has used.
const USAGE_PERIOD: Duration = Duration::from_millis(100);
/// How long a small batch waits for others.
const LINGER: Duration = Duration::from_millis(5);

/// Serves Vizier on a connection that was dialled (and is encrypted) by the caller, until the connection ends.
///
/// `info` is asked at each `describe`; `plugins` gets what Vizier sends, and outlives the link. The error says why the link ended badly, a refusal by Vizier included; a clean end
/// is `Ok`. Run it on a runtime of its own: fragments are work for the processor.
pub async fn serve<Io>(
    io: Io,
    store: Arc<Store>,
    info: impl Fn() -> AgentInfo + Send + Sync + 'static,
    limits: Limits,
    plugins: Arc<AgentPlugins>,
) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sessions = Sessions::new(limits.memory_bytes).map_err(io::Error::other)?;
    let refusal = Arc::new(Mutex::new(None));
    let service = Service {
        store,
        info: Box::new(info),
        sessions,
        permits: Arc::new(Semaphore::new(limits.fragments.max(1))),
        activity: limits.activity,
        plugins,
        refusal: refusal.clone(),
    };
    let (ended, end) = oneshot::channel::<()>();
    let io = Counted::new(io, Arc::new(Traffic::default()), move || drop(ended));
    let flight = FlightServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(flight)
        // One connection, then silence: without the tail the future returns at once while the connection goes on in a
        // detached task. The drop of `io` tells that it is over.
        .serve_with_incoming_shutdown(stream::once(async { Ok::<_, io::Error>(io) }).chain(stream::pending()), async {
            drop(end.await)
        })
        .await
        .map_err(io::Error::other)?;
    match refusal.lock().expect("no panic while it is held").take() {
        Some(reason) => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("vizier refused this agent: {reason}")))
        }
        None => Ok(()),
    }
}

/// What a scan inside a fragment works with.
pub(crate) struct FragmentCx {
    pub store: Arc<Store>,
    pub asid: u32,
    pub meter: Arc<FragmentMeter>,
}

/// Rows and bytes one fragment has read, against what it may.
pub(crate) struct FragmentMeter {
    rows: AtomicU64,
    bytes: AtomicU64,
    rows_max: u64,
    started: Instant,
    activity: Arc<Activity>,
    guests: Arc<Meter>,
}

impl FragmentMeter {
    fn new(rows_max: u64, activity: Arc<Activity>, guests: Arc<Meter>) -> Self {
        activity.fragments_running.fetch_add(1, Ordering::Relaxed);
        activity.fragments.fetch_add(1, Ordering::Relaxed);
        Self { rows: AtomicU64::new(0), bytes: AtomicU64::new(0), rows_max, started: Instant::now(), activity, guests }
    }

    /// Called for each batch that leaves the store.
    pub fn charge(&self, rows: u64, bytes: u64) -> Result<()> {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.activity.rows_scanned.fetch_add(rows, Ordering::Relaxed);
        self.activity.bytes_scanned.fetch_add(bytes, Ordering::Relaxed);
        let scanned = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        if scanned > self.rows_max { Err(Fault::Rows.into()) } else { Ok(()) }
    }

    fn usage(&self) -> Usage {
        Usage {
            rows_scanned: self.rows.load(Ordering::Relaxed),
            bytes_scanned: self.bytes.load(Ordering::Relaxed),
            elapsed_ns: self.started.elapsed().as_nanos() as u64,
            guest_cpu_ns: self.guests.guest_cpu_ns.load(Ordering::Relaxed),
            guest_memory_bytes: self.guests.memory_peak_bytes.load(Ordering::Relaxed),
        }
    }
}

impl Drop for FragmentMeter {
    fn drop(&mut self) {
        self.activity.fragments_running.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Service {
    store: Arc<Store>,
    info: Box<dyn Fn() -> AgentInfo + Send + Sync>,
    sessions: Sessions,
    permits: Arc<Semaphore>,
    activity: Arc<Activity>,
    plugins: Arc<AgentPlugins>,
    refusal: Arc<Mutex<Option<String>>>,
}

type Answer<T> = std::result::Result<Response<T>, Status>;
type Messages<T> = BoxStream<'static, std::result::Result<T, Status>>;

impl Service {
    fn announcement(&self) -> std::result::Result<Announcement, Status> {
        let tables = self
            .store
            .tables()
            .iter()
            .map(|table| {
                let (spec, stats) = (table.spec(), table.stats());
                let schema = table.schema();
                Ok(AnnouncedTable {
                    name: spec.name.into(),
                    description: spec.description.into(),
                    schema: Some(schema.as_ref().try_into().map_err(|e| Status::internal(format!("{e}")))?),
                    rows: stats.rows as u64,
                    bytes: stats.bytes as u64,
                    budget_bytes: stats.budget_bytes as u64,
                    oldest_ns: stats.oldest_ns,
                    newest_ns: stats.newest_ns,
                    rows_expired: stats.rows_expired as u64,
                })
            })
            .collect::<std::result::Result<_, Status>>()?;
        Ok(Announcement::new((self.info)(), tables))
    }

    fn begin(
        &self,
        fragment: &Fragment,
        stopped: impl Fn() -> Option<host::error::Error> + Send + Sync + 'static,
    ) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>, Arc<FragmentMeter>)> {
        let session = self.sessions.with(&fragment.options).map_err(cannot_run)?;
        let guests = Arc::new(Meter::new(Budget {
            guest_cpu_ns: fragment.guest_cpu_ns_max,
            memory_bytes: fragment.guest_memory_bytes_max,
            ..Budget::default()
        }));
        let bounds = Bounds::new(guests.clone(), stopped)
            .with_log(|level, line| tracing::debug!(?level, line, "a function of a plugin says"));
        let functions = FragmentFunctions::new(self.plugins.functions(), Arc::new(bounds));
        let plan = codec::from_bytes(&fragment.plan, &session, functions)
            .and_then(specialise)
            .and_then(yielding)
            .map_err(cannot_run)?;
        let meter = Arc::new(FragmentMeter::new(fragment.rows_max, self.activity.clone(), guests));
        let cx = FragmentCx { store: self.store.clone(), asid: (self.info)().asid, meter: meter.clone() };
        // A plan that is decoded needs no function by name any more: no registry is copied for each fragment.
        let task = TaskContext::new(
            None,
            session.session_id(),
            session.session_config().clone().with_extension(Arc::new(cx)),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            session.runtime_env(),
        );
        Ok((plan, Arc::new(task), meter))
    }
}

fn cannot_run(e: DataFusionError) -> DataFusionError {
    if matches!(fault_in(&e), Some(Fault::Node(_))) {
        return e;
    }
    Fault::Node(format!("this build of the agent cannot run the query: {}", e.strip_backtrace())).into()
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;
    type DoExchangeStream = Messages<FlightData>;

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let fragment: Fragment = decode(&request.into_inner().ticket, "a fragment").map_err(|e| to_status(&e))?;
        let deadline = Deadline::now() + Duration::from_nanos(fragment.remaining_ns);
        let (sender, receiver) = mpsc::channel(MESSAGES_READY);
        let reader = sender.downgrade();
        // A function that computes holds the task: it must see by itself that nobody waits any more.
        let stopped = move || {
            if reader.upgrade().is_none_or(|sender| sender.is_closed()) {
                return Some(host::error::Error::Cancelled);
            }
            (Deadline::now() > deadline).then_some(host::error::Error::Exhausted(Exhausted::Deadline))
        };
        let (plan, task, meter) = self.begin(&fragment, stopped).map_err(|e| to_status(&e))?;
        let permits = self.permits.clone();
        // A task of its own, so that the next batch is made while one is sent, and no scan runs in the connection's task.
        let work = SpawnedTask::spawn(async move {
            let run = async {
                let _permit = permits.acquire_owned().await.map_err(|e| DataFusionError::External(Box::new(e)))?;
                run(plan, task, &meter, &sender).await
            };
            let ended = tokio::select! {
                biased;
                () = sender.closed() => return,
                ended = timeout_at(deadline, run) => ended.unwrap_or_else(|_| Err(Fault::Deadline.into())),
            };
            // What was used counts even when it ended badly.
            let last = sender.send(Ok(usage_message(&meter.usage()))).await;
            if let (Ok(()), Err(e)) = (last, ended) {
                drop(sender.send(Err(to_status(&e))).await);
            }
        });
        let messages = stream::unfold(Some((receiver, work)), |state| async move {
            let (mut receiver, work) = state?;
            if let Some(message) = receiver.recv().await {
                return Some((message, Some((receiver, work))));
            }
            // A stream that just ended would be taken for all there is.
            let panicked = work.join().await.is_err();
            panicked.then(|| (Err(to_status(&Fault::Node("the query made this agent panic".into()).into())), None))
        });
        Ok(Response::new(messages.boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        let action = request.into_inner();
        let body = match action.r#type.as_str() {
            DESCRIBE => self.announcement()?.encode_to_vec(),
            PLUGINS => {
                let set = decode(&action.body, "a set of plugins").map_err(|e| to_status(&e))?;
                self.plugins.want(&set).encode_to_vec()
            }
            PLUGIN => {
                let offer: PluginOffer = decode(&action.body, "a plugin").map_err(|e| to_status(&e))?;
                let plugins = self.plugins.clone();
                let taken = tokio::task::spawn_blocking(move || plugins.take(&offer)).await;
                let taken = taken.unwrap_or_else(|e| Err(format!("loading it ended badly: {e}")));
                PluginAnswer { refused: taken.err() }.encode_to_vec()
            }
            REFUSE => {
                let reason = String::from_utf8_lossy(&action.body).into_owned();
                *self.refusal.lock().expect("no panic while it is held") = Some(reason);
                Vec::new()
            }
            other => return Err(Status::unimplemented(format!("unknown action {other}"))),
        };
        Ok(Response::new(stream::once(async { Ok(arrow_flight::Result::new(body)) }).boxed()))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        Err(unused())
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        Err(unused())
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        Err(unused())
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        Err(unused())
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        Err(unused())
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        Err(unused())
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        Err(unused())
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answer<Self::ListActionsStream> {
        Err(unused())
    }
}

fn unused() -> Status {
    Status::unimplemented("an agent serves do_get and do_action only")
}

async fn run(
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    meter: &FragmentMeter,
    sender: &mpsc::Sender<std::result::Result<FlightData, Status>>,
) -> Result<()> {
    let mut batches = plan.execute(0, task)?;
    let schema = batches.schema();
    let mut encoder = Encoder::try_new()?;
    let mut coalescer = Coalescer::new(schema.clone());
    let mut reported = Instant::now();
    let mut send = vec![encoder.schema(&schema)];
    loop {
        if reported.elapsed() >= USAGE_PERIOD {
            send.push(usage_message(&meter.usage()));
            reported = Instant::now();
        }
        for message in send.drain(..) {
            if sender.send(Ok(message)).await.is_err() {
                return Ok(());
            }
        }
        let patience = if coalescer.is_empty() { USAGE_PERIOD } else { LINGER };
        let ready = match timeout(patience, batches.next()).await {
            Ok(Some(batch)) => coalescer.push(batch?)?,
            Ok(None) => break,
            Err(_) => coalescer.flush()?,
        };
        if let Some(batch) = ready {
            send = encoder.batch(&batch)?;
            with_usage(&mut send, meter);
            reported = Instant::now();
        }
    }
    if let Some(batch) = coalescer.flush()? {
        let mut send = encoder.batch(&batch)?;
        with_usage(&mut send, meter);
        for message in send {
            if sender.send(Ok(message)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Says with a batch what it took: a limit may be met by it, and nobody read on.
fn with_usage(messages: &mut [FlightData], meter: &FragmentMeter) {
    if let Some(message) = messages.first_mut() {
        message.app_metadata = meter.usage().encode_to_vec().into();
    }
}
