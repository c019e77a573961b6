//! One round: the guest runs, its frames run beside it as they are displayed, their rows go out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arrow::array::RecordBatch;
use futures::StreamExt;
use host::RunRequest;
use host::backend::{Frame, Level, Op, TimeRange};
use host::error::{Error, Exhausted};
use host::meter::Meter;
use host::tenant::Tenant;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vizier_api::execute_response::Event;
use vizier_api::{Completeness, Expired, Log, Loss};
use vizier_engine::policy::AllowAll;
use vizier_engine::{Engine, Query, QueryContext};

use super::guest::{GuestSink, Put};
use super::output::Output;
use super::tables::{self, Tables};
use super::tail::Tail;
use super::{Job, Work, report};
use crate::runs::Used;

/// Frames of one run that execute at once: the others wait, so that a script with thirty tables leaves room for others.
const FRAMES_AT_ONCE: usize = 4;
/// Name of the table that SQL gives.
const SQL_TABLE: &str = "result";

/// What is particular to this round.
pub struct Round<'a> {
    pub job: &'a Job,
    pub tenant: Arc<Tenant>,
    pub number: u64,
    pub range: TimeRange,
    pub now_ns: i64,
    pub tail: Option<Arc<Mutex<Tail>>>,
}

impl Round<'_> {
    pub async fn run(self, engine: &Engine, output: &Output, cancel: CancellationToken) -> super::Round {
        let began = Instant::now();
        let meter = Arc::new(Meter::of(self.tenant.clone(), self.job.budget));
        let query = engine.query(QueryContext {
            range: self.range,
            now_ns: self.now_ns,
            deadline: tokio::time::Instant::now() + self.job.timeout,
            policy: Arc::new(AllowAll),
            meter: meter.clone(),
        });
        let mut show = Show {
            query: query.clone(),
            meter: meter.clone(),
            output: output.clone(),
            rows_max: self.job.rows_max,
            number: self.number,
            tail: self.tail.clone(),
            tables: Tables::default(),
            emitted: BTreeMap::new(),
            places: Arc::new(Semaphore::new(FRAMES_AT_ONCE)),
            pumps: JoinSet::new(),
            truncated: BTreeSet::new(),
            planned: began,
            host_cpu_ns: 0,
            instantiate_ns: 0,
        };
        let end = match &self.job.work {
            Work::Sql(text) => self.sql(text, &mut show, &cancel).await,
            Work::Script { .. } => self.script(&mut show, &cancel).await,
        };
        let end = if cancel.is_cancelled() { Err(Error::Cancelled) } else { end };
        let completeness = show.completeness(&end).await;
        let plan_ns = (show.planned - began).as_nanos() as u64;
        let statistics = report::statistics(&query, &meter, plan_ns, began.elapsed().as_nanos() as u64);
        let used = Used {
            host_cpu_ns: show.host_cpu_ns,
            instantiate_ns: show.instantiate_ns,
            ..report::used(&meter, &statistics)
        };
        super::Round { end, completeness, statistics, used }
    }

    async fn sql(&self, text: &str, show: &mut Show, cancel: &CancellationToken) -> Result<(), Error> {
        let (backend, text) = (show.query.backend(), text.to_owned());
        // Planning is processor work without a pause; other runs share these threads.
        let planning = tokio::task::spawn_blocking(move || backend.sql(&text, &[]));
        let Some(frame) = cancel.run_until_cancelled(planning).await else {
            show.query.cancel();
            return Err(Error::Cancelled);
        };
        let frame = frame.map_err(|e| Error::Internal(format!("planning ended badly: {e}")))??;
        show.frame(SQL_TABLE, frame).await?;
        let mut end = Ok(());
        while let Some(done) = next_pump(show, cancel).await {
            end = end.and(done);
        }
        end
    }

    async fn script(&self, show: &mut Show, cancel: &CancellationToken) -> Result<(), Error> {
        let Work::Script { script, args } = &self.job.work else { return Ok(()) };
        show.tables = Tables::new(&script.manifest().views);
        let (sink, mut puts) = GuestSink::new(show.meter.clone());
        let request = RunRequest {
            args: args.clone(),
            now_ns: self.now_ns,
            range: self.range,
            meter: show.meter.clone(),
            cancel: cancel.clone(),
            ..RunRequest::new(show.query.backend(), sink)
        };
        let script = script.clone();
        // A task of its own, so that what it has displayed goes out meanwhile.
        let mut guest = JoinSet::new();
        guest.spawn(async move { script.script.run(request).await });
        let (mut guest_end, mut frames_end, mut putting, mut stopped) = (Ok(()), Ok(()), true, false);
        while putting || !guest.is_empty() || !show.pumps.is_empty() {
            tokio::select! {
                biased;
                // Also what the guest itself is collecting.
                () = cancel.cancelled(), if !stopped => {
                    stopped = true;
                    show.query.cancel();
                }
                put = puts.recv(), if putting => match put {
                    Some(put) => frames_end = frames_end.and(show.put(put).await),
                    None => putting = false,
                },
                done = guest.join_next(), if !guest.is_empty() => {
                    match done {
                        Some(Ok(report)) => {
                            if report.logs_dropped > 0 {
                                let message = format!("{} more log lines were dropped", report.logs_dropped);
                                show.output.send(Event::Log(log(Level::Warn, message))).await;
                            }
                            show.truncated.extend(report.truncated);
                            (show.host_cpu_ns, show.instantiate_ns) = (report.host_cpu_ns, report.instantiate_ns);
                            guest_end = report.result;
                        }
                        Some(Err(e)) => guest_end = Err(Error::Internal(format!("the script's task ended badly: {e}"))),
                        None => {}
                    }
                }
                done = next_pump(show, cancel), if !show.pumps.is_empty() => frames_end = frames_end.and(done.unwrap_or(Ok(()))),
            }
        }
        // What the guest says of itself comes first: a frame may have failed because of it.
        guest_end.and(frames_end)
    }
}

/// The end of the next frame; cancelling ends the frames.
async fn next_pump(show: &mut Show, cancel: &CancellationToken) -> Option<Result<(), Error>> {
    if show.pumps.is_empty() {
        return None;
    }
    let done = match cancel.run_until_cancelled(show.pumps.join_next()).await {
        Some(done) => done?,
        None => {
            show.query.cancel();
            show.pumps.join_next().await?
        }
    };
    Some(match done {
        Ok(pumped) => {
            if pumped.truncated {
                show.truncated.insert(pumped.table);
            }
            pumped.end
        }
        Err(e) => Err(Error::Internal(format!("a frame's task ended badly: {e}"))),
    })
}

/// The output of a round as it grows.
struct Show {
    query: Arc<Query>,
    meter: Arc<Meter>,
    output: Output,
    rows_max: u64,
    number: u64,
    tail: Option<Arc<Mutex<Tail>>>,
    tables: Tables,
    /// Rows emitted so far, by table.
    emitted: BTreeMap<String, u64>,
    places: Arc<Semaphore>,
    pumps: JoinSet<Pumped>,
    truncated: BTreeSet<String>,
    /// When the last frame was handed to the engine.
    planned: Instant,
    /// Of the guest's report.
    host_cpu_ns: u64,
    instantiate_ns: u64,
}

impl Show {
    async fn put(&mut self, put: Put) -> Result<(), Error> {
        match put {
            Put::Frame { name, frame } => self.frame(&name, frame).await,
            Put::Rows { name, batch, held } => {
                let sent = self.rows(&name, batch).await;
                drop(held);
                sent
            }
            Put::View { json } => self.tables.view(&json),
            Put::Log { level, message } => {
                self.output.send(Event::Log(log(level, message))).await;
                Ok(())
            }
        }
    }

    async fn frame(&mut self, name: &str, frame: Arc<dyn Frame>) -> Result<(), Error> {
        let (table, started) = self.tables.begin(name, &frame.schema(), self.number)?;
        if let Some(started) = started {
            self.output.send(started).await;
        }
        // One row more than is kept shows that there were more. A tail has to see all rows to know which are new.
        let frame = match self.tail {
            Some(_) => frame,
            None => frame.apply(&Op::Limit { skip: 0, count: self.rows_max.saturating_add(1) })?,
        };
        let pump = Pump {
            name: name.to_owned(),
            table,
            rows_left: self.rows_max,
            meter: self.meter.clone(),
            output: self.output.clone(),
            tail: self.tail.clone(),
        };
        let (query, places) = (self.query.clone(), self.places.clone());
        self.planned = Instant::now();
        self.pumps.spawn(async move {
            let _place = places.acquire_owned().await;
            pump.run(&query, &*frame).await
        });
        Ok(())
    }

    /// Rows of the guest's own. The host has charged them.
    async fn rows(&mut self, name: &str, batch: RecordBatch) -> Result<(), Error> {
        let (table, started) = self.tables.begin(name, &batch.schema(), self.number)?;
        if let Some(started) = started {
            self.output.send(started).await;
        }
        let batch = match &self.tail {
            Some(tail) => {
                let fresh = tail.lock().expect("no panic while it is held").fresh(name, &batch);
                let (batch, cut) = fresh.map_err(tables::internal)?;
                if cut {
                    self.truncated.insert(name.to_owned());
                }
                batch
            }
            None => batch,
        };
        let sent = self.emitted.entry(name.to_owned()).or_default();
        let left = self.rows_max.saturating_sub(*sent) as usize;
        if batch.num_rows() > left {
            self.truncated.insert(name.to_owned());
        }
        let batch = batch.slice(0, left.min(batch.num_rows()));
        *sent += batch.num_rows() as u64;
        tables::send(&self.output, table, &batch).await.map(drop)
    }

    /// What the result lacks. Asked last, so that losses of the round itself are in it.
    async fn completeness(&self, end: &Result<(), Error>) -> Completeness {
        let mut completeness =
            Completeness { truncated: self.truncated.iter().cloned().collect(), ..Completeness::default() };
        // Of a run that was stopped nobody reads the footnotes.
        if !matches!(end, Err(Error::Cancelled)) {
            match self.query.completeness().await {
                Ok(found) => {
                    completeness.losses = found
                        .losses
                        .into_iter()
                        .map(|l| Loss {
                            agent: l.agent,
                            table: l.table,
                            reason: l.reason,
                            events: l.events,
                            bytes: l.bytes,
                            unseen_ns: l.unseen_ns,
                        })
                        .collect();
                    completeness.expired = found
                        .expired
                        .into_iter()
                        .map(|e| Expired { agent: e.agent.to_string(), table: e.table, oldest_time_ns: e.oldest_ns })
                        .collect();
                }
                Err(error) => tracing::debug!(%error, "losses are not known for this result"),
            }
        }
        completeness.missing = report::missing(self.query.missing());
        completeness
    }
}

/// Carries one frame's rows to the client.
struct Pump {
    name: String,
    table: u32,
    rows_left: u64,
    meter: Arc<Meter>,
    output: Output,
    tail: Option<Arc<Mutex<Tail>>>,
}

/// How that ended.
struct Pumped {
    table: String,
    truncated: bool,
    end: Result<(), Error>,
}

impl Pump {
    async fn run(mut self, query: &Query, frame: &dyn Frame) -> Pumped {
        let mut truncated = false;
        let end = self.rows(query, frame, &mut truncated).await;
        Pumped { table: self.name, truncated, end }
    }

    async fn rows(&mut self, query: &Query, frame: &dyn Frame, truncated: &mut bool) -> Result<(), Error> {
        let mut batches = query.execute(frame);
        while let Some(batch) = batches.next().await {
            let mut batch = batch?;
            if let Some(tail) = &self.tail {
                let fresh = tail.lock().expect("no panic while it is held").fresh(&self.name, &batch);
                let (fresh, cut) = fresh.map_err(tables::internal)?;
                *truncated |= cut;
                batch = fresh;
            }
            if batch.num_rows() as u64 > self.rows_left {
                *truncated = true;
                batch = batch.slice(0, self.rows_left as usize);
            }
            self.rows_left -= batch.num_rows() as u64;
            if batch.num_rows() > 0 {
                let charged = self.meter.charge_output(batch.num_rows() as u64, tables::bytes_of(&batch) as u64);
                if charged.is_err() {
                    *truncated = true;
                    return Err(Error::Exhausted(Exhausted::Output));
                }
                if !tables::send(&self.output, self.table, &batch).await? {
                    return Err(Error::Cancelled);
                }
            }
            if *truncated && self.tail.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn log(level: Level, message: String) -> Log {
    let level = match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    Log { level: level.into(), message, time_ns: crate::server::now_ns() }
}
