//! One run's work with the engine: its time, its limits, what it used and what it could not have.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use host::backend::{Backend, Frame, TimeRange};
use host::error::Exhausted;
use host::function::Bounds;
use host::manifest::function::ExportKind;
use host::meter::Meter;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::agent::AgentId;
use crate::completeness::Reads;
use crate::engine::Inner;
use crate::error::{Fault, fault_in};
use crate::exchange::View;
use crate::exchange::wire::Usage;
use crate::frame::Frames;
use crate::functions::plugin::Calls;
use crate::policy::Policy;
use crate::provider::PemTable;

/// What a run asks for.
#[derive(Clone, Debug)]
pub struct QueryContext {
    /// Rows outside do not exist: applied to every scan that names no range of its own, in SQL too.
    pub range: TimeRange,
    /// What `now()` says, ns since the epoch.
    pub now_ns: i64,
    /// What is not there by then is missing.
    pub deadline: Instant,
    /// What the run may see.
    pub policy: Arc<dyn Policy>,
    /// What the run may use; rows are charged as they are scanned.
    pub meter: Arc<Meter>,
}

/// A run: makes frames, runs them, and says afterwards what was missing and what it took.
pub struct Query {
    pub(crate) engine: Arc<Inner>,
    pub(crate) cx: QueryContext,
    pub(crate) view: Arc<View>,
    pub(crate) run: Arc<Run>,
    pub(crate) tables: Mutex<HashMap<String, Option<Arc<PemTable>>>>,
    calls: Calls,
    bounds: Arc<Bounds>,
}

/// What one agent did for a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentStatistics {
    /// Rows read from its tables.
    pub rows_scanned: u64,
    /// Bytes of the columns that were read.
    pub bytes_scanned: u64,
    /// Arrow bytes that travelled from it.
    pub bytes_sent: u64,
    /// Longest of its fragments.
    pub elapsed_ns: u64,
}

impl Query {
    pub(crate) fn new(engine: Arc<Inner>, cx: QueryContext, view: Arc<View>) -> Arc<Self> {
        let run = Arc::new(Run::new(cx.deadline));
        let bounds = Arc::new(bounds(&cx, run.clone()));
        let calls = Calls::new(engine.functions(), bounds.clone());
        Arc::new(Self { engine, cx, view, run, tables: Mutex::default(), calls, bounds })
    }

    /// Functions of plugins, bound to this run.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// What calls on behalf of this run are bounded by.
    pub(crate) fn bounds(&self) -> &Arc<Bounds> {
        &self.bounds
    }

    /// Names of all functions of plugins that expressions can call.
    pub(crate) fn plugin_functions(&self) -> impl Iterator<Item = &str> {
        let functions = self.calls.functions();
        functions.names(ExportKind::Scalar).chain(functions.names(ExportKind::Aggregate))
    }

    /// The way in for scripts and SQL.
    pub fn backend(self: &Arc<Self>) -> Arc<dyn Backend> {
        Arc::new(Frames::new(self.clone()))
    }

    /// Runs a frame, on the run's own meter. Dropping the stream stops the work everywhere.
    pub fn execute(&self, frame: &dyn Frame) -> BoxStream<'static, Result<RecordBatch, host::error::Error>> {
        frame.collect(self.cx.meter.clone())
    }

    /// Agents whose rows are not, or not all, in the results so far, with the reason.
    pub fn missing(&self) -> BTreeMap<AgentId, String> {
        self.run.missing()
    }

    /// What each agent did so far.
    pub fn statistics(&self) -> BTreeMap<AgentId, AgentStatistics> {
        lock(&self.run.statistics).clone()
    }

    /// Stops everything; streams end with `Error::Cancelled`.
    pub fn cancel(&self) {
        self.run.cancel.cancel();
    }
}

/// What functions of plugins may use of the run, and when they end.
fn bounds(cx: &QueryContext, run: Arc<Run>) -> Bounds {
    let deadline = cx.deadline + MERGE_GRACE;
    Bounds::new(cx.meter.clone(), move || {
        if run.cancel.is_cancelled() {
            return Some(host::error::Error::Cancelled);
        }
        (Instant::now() > deadline).then_some(host::error::Error::Exhausted(Exhausted::Deadline))
    })
    .with_log(|level, line| tracing::debug!(?level, line, "a function of a plugin says"))
}

/// State of a run that its streams share.
#[derive(Debug)]
pub(crate) struct Run {
    pub deadline: Instant,
    pub cancel: CancellationToken,
    missing: Mutex<BTreeMap<AgentId, String>>,
    stops: Mutex<HashMap<AgentId, CancellationToken>>,
    pub statistics: Mutex<BTreeMap<AgentId, AgentStatistics>>,
    pub reads: Mutex<Reads>,
}

/// A run as operators find it in their task.
#[derive(Debug)]
pub(crate) struct RunCx {
    pub run: Arc<Run>,
    pub meter: Arc<Meter>,
}

impl Run {
    pub fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            cancel: CancellationToken::new(),
            missing: Mutex::default(),
            stops: Mutex::default(),
            statistics: Mutex::default(),
            reads: Mutex::default(),
        }
    }

    pub fn missing(&self) -> BTreeMap<AgentId, String> {
        lock(&self.missing).clone()
    }

    /// Names an agent as missing and ends all its streams: of half a node's streams no result can be made. The first
    /// reason stays.
    pub fn miss(&self, agent: &AgentId, reason: impl Into<String>) {
        lock(&self.missing).entry(agent.clone()).or_insert_with(|| reason.into());
        self.stop_of(agent).cancel();
    }

    fn stop_of(&self, agent: &AgentId) -> CancellationToken {
        lock(&self.stops).entry(agent.clone()).or_default().clone()
    }

    /// Adds what an agent reports, given what the same stream reported before. The meter says when it is too much.
    pub fn charge(&self, agent: &AgentId, before: &Usage, now: &Usage, meter: &Meter) -> Result<(), DataFusionError> {
        let rows = now.rows_scanned.saturating_sub(before.rows_scanned);
        let bytes = now.bytes_scanned.saturating_sub(before.bytes_scanned);
        {
            let mut statistics = lock(&self.statistics);
            let statistics = statistics.entry(agent.clone()).or_default();
            statistics.rows_scanned += rows;
            statistics.bytes_scanned += bytes;
            statistics.elapsed_ns = statistics.elapsed_ns.max(now.elapsed_ns);
        }
        let cpu_ns = now.guest_cpu_ns.saturating_sub(before.guest_cpu_ns);
        meter.charge_cpu(cpu_ns).map_err(Fault::Function)?;
        meter.memory_peak_bytes.fetch_max(now.guest_memory_bytes, Ordering::Relaxed);
        meter.charge_scan(rows, bytes).map_err(|_| Fault::Rows.into())
    }

    /// For what computes without a pause: planning.
    pub fn go_on(&self) -> Result<(), DataFusionError> {
        if self.cancel.is_cancelled() {
            return Err(Fault::Cancelled.into());
        }
        if Instant::now() > self.deadline + MERGE_GRACE {
            return Err(Fault::Deadline.into());
        }
        Ok(())
    }

    /// A part of a table is about to be read.
    pub fn reads(&self, table: &str, range: TimeRange) {
        lock(&self.reads).add(table, range);
    }

    pub fn received(&self, agent: &AgentId, bytes: usize) {
        lock(&self.statistics).entry(agent.clone()).or_default().bytes_sent += bytes as u64;
    }

    /// An agent's stream of which a node's failure ends that node's part alone, and the query's own error is an error.
    pub fn tolerant<T: Send + 'static>(
        self: Arc<Self>,
        agent: AgentId,
        stream: impl Stream<Item = Result<T, DataFusionError>> + Send + 'static,
    ) -> BoxStream<'static, Result<T, DataFusionError>> {
        let stop = self.stop_of(&agent);
        let deadline = Box::pin(sleep_until(self.deadline));
        let state = Some((Box::pin(stream), deadline));
        futures::stream::unfold(state, move |state| {
            let (run, agent, stop) = (self.clone(), agent.clone(), stop.clone());
            async move {
                let (mut stream, mut deadline) = state?;
                let item = tokio::select! {
                    biased;
                    () = run.cancel.cancelled() => return Some((Err(Fault::Cancelled.into()), None)),
                    () = stop.cancelled() => return None,
                    // Before the item: a stream that always has one would never come to its deadline.
                    () = deadline.as_mut() => {
                        run.miss(&agent, "no answer before the deadline");
                        return None;
                    }
                    item = stream.next() => item?,
                };
                match item {
                    Ok(value) => Some((Ok(value), Some((stream, deadline)))),
                    Err(e) => match fault_in(&e) {
                        Some(Fault::Node(why)) => {
                            run.miss(&agent, why);
                            None
                        }
                        _ => Some((Err(e), None)),
                    },
                }
            }
        })
        .boxed()
    }

    /// The whole result: ends when the run is cancelled, and some time after the deadline.
    pub fn bounded<T: Send + 'static>(
        self: Arc<Self>,
        stream: impl Stream<Item = Result<T, DataFusionError>> + Send + 'static,
    ) -> BoxStream<'static, Result<T, DataFusionError>> {
        // At the deadline the agents' streams end; what is there is still merged. This bounds the merging.
        let deadline: std::pin::Pin<Box<Sleep>> = Box::pin(sleep_until(self.deadline + MERGE_GRACE));
        let state = Some((Box::pin(stream), deadline));
        futures::stream::unfold(state, move |state| {
            let run = self.clone();
            async move {
                let (mut stream, mut deadline) = state?;
                tokio::select! {
                    biased;
                    () = run.cancel.cancelled() => Some((Err(Fault::Cancelled.into()), None)),
                    () = deadline.as_mut() => Some((Err(Fault::Deadline.into()), None)),
                    item = stream.next() => match item? {
                        Ok(value) => Some((Ok(value), Some((stream, deadline)))),
                        Err(e) => Some((Err(e), None)),
                    },
                }
            }
        })
        .boxed()
    }
}

/// Time to merge what had arrived by the deadline.
const MERGE_GRACE: std::time::Duration = std::time::Duration::from_millis(500);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it is held")
}
