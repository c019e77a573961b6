//! What the engine and the meter know, as the client is told it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use host::meter::Meter;
use vizier_api::{AgentStatistics, MissingAgent, Statistics};
use vizier_engine::{AgentId, Query};

use crate::runs::Used;

/// Agents whose rows are not, or not all, in the result.
pub fn missing(missing: BTreeMap<AgentId, String>) -> Vec<MissingAgent> {
    missing.into_iter().map(|(agent, reason)| MissingAgent { agent: agent.to_string(), reason }).collect()
}

/// What the round has used.
pub fn statistics(query: &Query, meter: &Meter, plan_ns: u64, total_ns: u64) -> Statistics {
    let agents = query.statistics().into_iter().map(|(agent, used)| AgentStatistics {
        agent: agent.to_string(),
        rows_scanned: used.rows_scanned,
        bytes_scanned: used.bytes_scanned,
        bytes_sent: used.bytes_sent,
        elapsed_ns: used.elapsed_ns,
    });
    Statistics {
        agents: agents.collect(),
        guest_cpu_ns: meter.guest_cpu_ns.load(Relaxed),
        guest_memory_peak_bytes: meter.memory_peak_bytes.load(Relaxed),
        host_calls: meter.host_calls.load(Relaxed),
        rows_output: meter.output_rows.load(Relaxed),
        bytes_output: meter.output_bytes.load(Relaxed),
        plan_ns,
        total_ns,
    }
}

/// The same for the history, less what only the guest's report knows.
pub fn used(meter: &Meter, statistics: &Statistics) -> Used {
    Used {
        guest_cpu_ns: statistics.guest_cpu_ns,
        memory_peak_bytes: statistics.guest_memory_peak_bytes,
        rows_scanned: meter.rows_scanned.load(Relaxed),
        bytes_scanned: meter.bytes_scanned.load(Relaxed),
        rows_output: statistics.rows_output,
        bytes_output: statistics.bytes_output,
        host_calls: statistics.host_calls,
        plan_ns: statistics.plan_ns,
        agents: statistics.agents.iter().map(|agent| agent.agent.clone()).collect(),
        ..Used::default()
    }
}
