//! One run: rounds of guest and frames, their output to the client, and what to say at the end.
//!
//! A run never outlives its client (a dropped stream cancels it), its deadline by more than [`GRACE`], or Vizier. What it
//! holds in memory is bounded by its budget and by `output::MESSAGES_READY`: a client that reads slowly slows the run.

mod guest;
mod output;
mod report;
mod round;
mod tables;
mod tail;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use host::backend::TimeRange;
use host::error::Error;
use host::meter::Budget;
use tokio_util::sync::CancellationToken;
use vizier_api::execute_response::Event;
use vizier_api::{Completeness, Finished, RoundFinished, Started, Statistics};
use vizier_engine::Engine;

use crate::request::Follow;
use crate::runs::{History, Place, Record, Used};
use crate::scripts::Loaded;
use crate::status::finished;

pub use output::{Messages, Output};

/// Time beyond a round's deadline for merging what had arrived and for telling the client.
const GRACE: Duration = Duration::from_secs(2);
/// How long the last message waits for a client that does not read.
const LAST_WORD: Duration = Duration::from_secs(5);

/// What shall run, complete.
pub struct Job {
    pub work: Work,
    pub range: TimeRange,
    pub now_ns: i64,
    pub rows_max: u64,
    pub timeout: Duration,
    /// Never `Auto`.
    pub follow: Follow,
    pub interval: Duration,
    pub budget: Budget,
}

/// Where frames come from.
pub enum Work {
    Sql(String),
    Script { script: Arc<Loaded>, args: BTreeMap<String, String> },
}

impl Work {
    fn digest(&self) -> &str {
        match self {
            Self::Sql(_) => "",
            Self::Script { script, .. } => &script.digest,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Sql(_) => "sql",
            Self::Script { .. } => "script",
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Sql(_) => "sql",
            Self::Script { script, .. } => script.name(),
        }
    }
}

/// How a round ended.
struct Round {
    end: Result<(), Error>,
    completeness: Completeness,
    statistics: Statistics,
    used: Used,
}

/// A clock that may be the recording's: what `now` is for the next round.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Runs the job to its end, and writes down what became of it.
pub async fn drive(job: Job, place: &Place, engine: Engine, clock: Clock, output: Output, history: &History) {
    let began = Instant::now();
    // The last instant that a query asked for next still sees: on a replay the clock stands, and ends are exclusive.
    let started_time_ns = clock() - 1;
    // A client that goes away takes its run along.
    let watch = tokio::spawn({
        let (output, cancel) = (output.clone(), place.cancel.clone());
        async move {
            output.closed().await;
            cancel.cancel();
        }
    });
    let mut used = Used::default();
    let (round, rounds) = go(&job, place, &engine, &clock, &output, &mut used).await;
    watch.abort();
    let status = finished(&round.end);
    let last = Finished {
        status: Some(status.clone()),
        completeness: Some(round.completeness.clone()),
        statistics: Some(round.statistics.clone()),
    };
    // Before the client is told that it is over, so that whoever asks next finds it.
    history.record(&Record {
        run_id: place.run_id.clone(),
        name: job.work.name().to_owned(),
        digest: job.work.digest().to_owned(),
        kind: job.work.kind(),
        tenant: place.tenant.name().to_owned(),
        client: place.client.clone(),
        started_time_ns,
        total_ns: began.elapsed().as_nanos() as u64,
        status,
        used,
        missing: round.completeness.missing.len(),
        rounds,
    });
    if tokio::time::timeout(LAST_WORD, output.send_last(Event::Finished(last))).await.is_err() {
        tracing::info!(run = %place.run_id, "a client stopped reading; its stream is cut off");
    }
}

async fn go(
    job: &Job,
    place: &Place,
    engine: &Engine,
    clock: &Clock,
    output: &Output,
    used: &mut Used,
) -> (Round, u64) {
    let started = Started {
        run_id: place.run_id.clone(),
        digest: job.work.digest().to_owned(),
        start_time_ns: job.range.start_ns,
        end_time_ns: job.range.end_ns,
    };
    output.send(Event::Started(started)).await;
    if job.follow == Follow::Off {
        let tenant = place.tenant.clone();
        let once = round::Round { job, tenant, number: 0, range: job.range, now_ns: job.now_ns, tail: None };
        let done = bounded(once, place, engine, output).await;
        used.add(&done.used);
        return (done, 1);
    }
    let length = job.range.end_ns - job.range.start_ns;
    let tail = (job.follow == Follow::Tail).then(|| Arc::new(Mutex::new(tail::Tail::default())));
    let (mut range, mut now_ns) = (job.range, job.now_ns);
    let mut number = 0;
    loop {
        let began = Instant::now();
        let next = round::Round { job, tenant: place.tenant.clone(), number, range, now_ns, tail: tail.clone() };
        let done = bounded(next, place, engine, output).await;
        used.add(&done.used);
        number += 1;
        if done.end.is_err() {
            return (done, number);
        }
        let told = RoundFinished {
            round: number - 1,
            completeness: Some(done.completeness.clone()),
            statistics: Some(done.statistics.clone()),
        };
        output.send(Event::Round(told)).await;
        let pause = job.interval.saturating_sub(began.elapsed());
        if place.cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return (Round { end: Err(Error::Cancelled), ..done }, number);
        }
        let met_ns = std::mem::replace(&mut now_ns, clock());
        let start_ns = match &tail {
            None => now_ns - length,
            Some(tail) => {
                let whole = done.end.is_ok() && done.completeness.missing.is_empty();
                tail.lock().expect("no panic while it is held").next_round(met_ns, whole);
                (now_ns - length).max(now_ns - tail::OVERLAP_NS)
            }
        };
        range = TimeRange { start_ns, end_ns: now_ns.max(start_ns + 1) };
    }
}

/// A round that ends whatever the parts below it do.
async fn bounded(round: round::Round<'_>, place: &Place, engine: &Engine, output: &Output) -> Round {
    let timeout = round.job.timeout;
    let cancel: CancellationToken = place.cancel.child_token();
    let mut work = std::pin::pin!(round.run(engine, output, cancel.clone()));
    match tokio::time::timeout(timeout + GRACE, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            // The client is not reading, or something below did not keep its own deadline.
            cancel.cancel();
            match tokio::time::timeout(GRACE, &mut work).await {
                // It was we who stopped it, unless the client did too.
                Ok(done @ Round { end: Err(Error::Cancelled), .. }) if !place.cancel.is_cancelled() => {
                    Round { end: Err(Error::Exhausted(host::error::Exhausted::Deadline)), ..done }
                }
                Ok(done) => done,
                Err(_) => Round {
                    end: Err(Error::Exhausted(host::error::Exhausted::Deadline)),
                    completeness: Completeness::default(),
                    statistics: Statistics::default(),
                    used: Used::default(),
                },
            }
        }
    }
}
