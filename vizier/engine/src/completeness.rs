//! What is missing from a result for other reasons than an agent that did not answer: events lost on the way into the
//! tables, times in which nothing was captured, rows that had to make room, and what an agent held before it began anew.
//!
//! It is asked for what the run has read, whoever read it: the tables of frames that were shown and of those that a script
//! collected, each in the time that was read of it.

mod reads;

use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use host::backend::{Backend, Scalar, TimeRange};
use host::error::Error;

use crate::agent::AgentId;
use crate::frame::Frames;
use crate::policy::AllowAll;
use crate::query::{Query, QueryContext};

pub(crate) use reads::Reads;

/// Answer to [`Query::completeness`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completeness {
    /// Events lost within the range before they reached a table, and parts of the range in which there was no capture.
    pub losses: Vec<Loss>,
    /// Tables that do not reach back to the start of the range any more, for want of room or since their agent restarted.
    pub expired: Vec<Expired>,
}

/// Events lost for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Agent that lost them.
    pub agent: String,
    /// Table that lacks them; empty when it cannot be told.
    pub table: String,
    /// Why.
    pub reason: String,
    /// How many, as far as they were counted.
    pub events: u64,
    /// Their bytes, where known.
    pub bytes: u64,
    /// How much of the range nothing was captured in, ns. What happened then was not counted.
    pub unseen_ns: u64,
}

/// The past that a table does not hold any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Agent.
    pub agent: AgentId,
    /// Table.
    pub table: String,
    /// Oldest row there is; the agent's start when it has restarted.
    pub oldest_ns: i64,
}

/// Table of losses that agents keep.
const DATA_LOSS: &str = "data_loss";
/// How long agents are asked for the state of their tables: it is needed for a footnote.
const REFRESH_WITHIN: Duration = Duration::from_millis(250);

/// Tables in which an agent writes of itself: no event that was lost is missing from them, unless it is said so.
const OF_ITSELF: [&str; 3] = ["agent_stats", DATA_LOSS, "probe_status"];

/// A table and what was read of it.
type Read = (String, Vec<TimeRange>);

impl Query {
    /// What is missing from what was read so far. Counts no more than the caller's query may take: it has the same deadline,
    /// and is cancelled with it.
    pub async fn completeness(&self) -> Result<Completeness, Error> {
        let reads = self.run.reads.lock().expect("no panic while it is held").clone();
        if reads.is_empty() {
            return Ok(Completeness::default());
        }
        self.engine.registry.refresh(REFRESH_WITHIN).await;
        let view = self.engine.registry.view();
        let mut expired = Vec::new();
        for (table, parts) in reads.iter() {
            let (Some(def), Some(first)) = (view.tables.get(table), parts.iter().find(|part| !whatever(part))) else {
                continue;
            };
            for (agent, state) in &def.agents {
                // A table that never lost a row reaches back as far as there was anything to see.
                let kept = state.oldest_ns.filter(|_| state.rows_expired > 0);
                let oldest = kept.max(view.began_anew.get(agent).copied());
                if let Some(oldest_ns) = oldest.filter(|oldest_ns| *oldest_ns > first.start_ns) {
                    expired.push(Expired { agent: agent.clone(), table: table.to_owned(), oldest_ns });
                }
            }
        }
        if !view.tables.contains_key(DATA_LOSS) {
            return Ok(Completeness { losses: Vec::new(), expired });
        }
        let reads = reads.iter().map(|(table, parts)| (table.to_owned(), self.of_losses(parts))).collect();
        Ok(Completeness { losses: self.losses(reads).await?, expired })
    }

    /// The parts of time in which losses count.
    fn of_losses(&self, parts: &[TimeRange]) -> Vec<TimeRange> {
        let mut counted = Vec::new();
        for part in parts {
            let start_ns = if whatever(part) { self.cx.range.start_ns.min(part.end_ns) } else { part.start_ns };
            reads::add(&mut counted, TimeRange { start_ns, ..*part });
        }
        counted
    }

    async fn losses(&self, mut reads: Vec<Read>) -> Result<Vec<Loss>, Error> {
        // Of what is not known to belong to a table any of them may lack something.
        let mut any = Vec::new();
        for (_, parts) in reads.iter().filter(|(table, _)| !OF_ITSELF.contains(&table.as_str())) {
            parts.iter().for_each(|part| reads::add(&mut any, *part));
        }
        if !any.is_empty() {
            reads.push((String::new(), any));
        }
        let starts = reads.iter().flat_map(|(_, parts)| parts).map(|part| part.start_ns);
        let start_ns = starts.min().unwrap_or(self.cx.range.start_ns);
        // A run of its own: what is lost is nobody's secret and not on the caller's bill. It shares the cancelling.
        // A row stands at the end of its interval, which may lie after the range.
        let cx = QueryContext {
            range: TimeRange { start_ns, end_ns: i64::MAX },
            policy: std::sync::Arc::new(AllowAll),
            meter: std::sync::Arc::default(),
            ..self.cx.clone()
        };
        let query = Query::new(self.engine.clone(), cx, self.engine.registry.view());
        let (text, parameters) = statement(&reads);
        let frame = Frames::new(query.clone()).sql(&text, &parameters)?;
        let batches: Vec<RecordBatch> = tokio::select! {
            biased;
            () = self.run.cancel.cancelled() => return Err(Error::Cancelled),
            batches = frame.collect(query.cx.meter.clone()).try_collect::<Vec<_>>() => batches?,
        };
        batches.iter().map(losses_in).collect::<Result<Vec<_>, _>>().map(|losses| losses.concat())
    }
}

/// Who reads from the epoch on asks for whatever there is: then nothing of the past is missing, and losses count within the
/// run's own range.
fn whatever(part: &TimeRange) -> bool {
    part.start_ns <= 0
}

/// The query for losses in these parts of these tables, and its parameters.
fn statement(reads: &[Read]) -> (String, Vec<(String, Scalar)>) {
    let mut parameters = Vec::new();
    let mut parameter = |value: Scalar| {
        let name = (parameters.len() + 1).to_string();
        let place = format!("${name}");
        parameters.push((name, value));
        place
    };
    let (mut where_, mut hidden) = (Vec::new(), String::new());
    for (table, parts) in reads {
        let table = parameter(Scalar::Utf8(table.clone()));
        let (mut within, mut hides) = (Vec::new(), Vec::new());
        for part in parts {
            let (start, end) = (parameter(Scalar::Int64(part.start_ns)), parameter(Scalar::Int64(part.end_ns)));
            within.push(format!("(ends >= {start} and begins < {end})"));
            hides.push(format!("greatest(least(ends, {end}) - greatest(begins, {start}), 0)"));
        }
        where_.push(format!("(table_name = {table} and ({}))", within.join(" or ")));
        hidden.push_str(&format!(" when table_name = {table} then {}", hides.join(" + ")));
    }
    let text = format!(
        "select agent, table_name, reason, sum(events) as events, sum(bytes) as bytes, sum(hidden_ns) as unseen_ns \
         from (select *, case when events is not null then null{hidden} end as hidden_ns \
         from (select *, cast(time_ as bigint) as ends, cast(time_ as bigint) - coalesce(duration_ns, 0) as begins \
         from {DATA_LOSS}) where {}) \
         group by agent, table_name, reason having sum(events) > 0 or sum(hidden_ns) > 0 \
         order by agent, table_name, reason",
        where_.join(" or ")
    );
    (text, parameters)
}

fn losses_in(batch: &RecordBatch) -> Result<Vec<Loss>, Error> {
    let text = |column: usize| {
        arrow::compute::cast(batch.column(column), &arrow::datatypes::DataType::Utf8)
            .map_err(|e| Error::Internal(format!("column {column} of {DATA_LOSS} is not text: {e}")))
    };
    let (agents, tables, reasons) = (text(0)?, text(1)?, text(2)?);
    let string = |array: &dyn Array, row: usize| {
        let array = array.as_string::<i32>();
        if array.is_valid(row) { array.value(row).to_owned() } else { String::new() }
    };
    let number = |column: usize, row: usize| {
        let array = batch.column(column).as_primitive::<Int64Type>();
        if array.is_valid(row) { array.value(row).max(0) as u64 } else { 0 }
    };
    let loss = |row| Loss {
        agent: string(&agents, row),
        table: string(&tables, row),
        reason: string(&reasons, row),
        events: number(3, row),
        bytes: number(4, row),
        unseen_ns: number(5, row),
    };
    Ok((0..batch.num_rows()).map(loss).collect())
}
