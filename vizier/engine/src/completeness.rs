//! What is missing from a result for other reasons than an agent that did not answer: events lost on the way into the
//! tables, times in which nothing was captured, rows that had to make room, and what an agent held before it began anew.

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

impl Query {
    /// What is missing from `tables` within `range`. Counts no more than the caller's query may take: it has the same
    /// deadline, and is cancelled with it.
    pub async fn completeness(&self, range: TimeRange, tables: &[&str]) -> Result<Completeness, Error> {
        let of_agents: Vec<&str> = tables.iter().copied().filter(|table| !self.engine.local.has(table)).collect();
        if of_agents.is_empty() && !tables.is_empty() {
            // Vizier's own tables lose nothing.
            return Ok(Completeness::default());
        }
        let tables = of_agents.as_slice();
        self.engine.registry.refresh(REFRESH_WITHIN).await;
        let view = self.engine.registry.view();
        let mut expired = Vec::new();
        for table in tables {
            let Some(def) = view.tables.get(*table) else { continue };
            for (agent, state) in &def.agents {
                // A table that never lost a row reaches back as far as there was anything to see.
                let kept = state.oldest_ns.filter(|_| state.rows_expired > 0);
                let oldest = kept.max(view.began_anew.get(agent).copied());
                if let Some(oldest_ns) = oldest.filter(|oldest_ns| *oldest_ns > range.start_ns) {
                    expired.push(Expired { agent: agent.clone(), table: (*table).to_owned(), oldest_ns });
                }
            }
        }
        let losses = if view.tables.contains_key(DATA_LOSS) { self.losses(range, tables).await? } else { Vec::new() };
        Ok(Completeness { losses, expired })
    }

    async fn losses(&self, range: TimeRange, tables: &[&str]) -> Result<Vec<Loss>, Error> {
        // A run of its own: what is lost is nobody's secret and not on the caller's bill. It shares the cancelling.
        // A row stands at the end of its interval, which may lie after the range.
        let cx = QueryContext {
            range: TimeRange { end_ns: i64::MAX, ..range },
            policy: std::sync::Arc::new(AllowAll),
            meter: std::sync::Arc::default(),
            ..self.cx.clone()
        };
        let query = Query::new(self.engine.clone(), cx, self.engine.registry.view());
        let places: Vec<_> = (1..=tables.len()).map(|i| format!("${i}")).collect();
        let of_tables =
            if places.is_empty() { String::new() } else { format!(" where table_name in ({}, '')", places.join(", ")) };
        let (start, end) = (tables.len() + 1, tables.len() + 2);
        let text = format!(
            "select agent, table_name, reason, sum(events) as events, sum(bytes) as bytes, sum(hidden_ns) as unseen_ns \
             from (select *, case when events is null then least(ends, ${end}) - greatest(begins, ${start}) end as hidden_ns \
             from (select *, cast(time_ as bigint) as ends, cast(time_ as bigint) - coalesce(duration_ns, 0) as begins \
             from {DATA_LOSS}{of_tables}) where begins < ${end}) \
             group by agent, table_name, reason having sum(events) > 0 or sum(hidden_ns) > 0 \
             order by agent, table_name, reason"
        );
        let mut parameters: Vec<_> =
            tables.iter().enumerate().map(|(i, t)| ((i + 1).to_string(), Scalar::Utf8((*t).to_owned()))).collect();
        parameters.push((start.to_string(), Scalar::Int64(range.start_ns)));
        parameters.push((end.to_string(), Scalar::Int64(range.end_ns)));
        let frame = Frames::new(query.clone()).sql(&text, &parameters)?;
        let batches: Vec<RecordBatch> = tokio::select! {
            biased;
            () = self.run.cancel.cancelled() => return Err(Error::Cancelled),
            batches = frame.collect(query.cx.meter.clone()).try_collect::<Vec<_>>() => batches?,
        };
        batches.iter().map(losses_in).collect::<Result<Vec<_>, _>>().map(|losses| losses.concat())
    }
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
