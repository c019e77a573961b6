use crate::spec::{ColumnSpec, TableSpec, Unit};

/// `agent_stats`
pub static AGENT_STATS: TableSpec = TableSpec {
    name: "agent_stats",
    description: "What Pyxis itself costs and does, per agent and component, sampled; counters run from the component's start.",
    columns: &[
        ColumnSpec::time("When the sample was taken."),
        ColumnSpec::label("agent", "The agent, as `px agents` names it."),
        ColumnSpec::label("component", "The part: helper, pem, ..."),
        ColumnSpec::duration("cpu_ns", "CPU time used so far.").counter(),
        ColumnSpec::bytes("rss_bytes", "Resident memory.").gauge(),
        ColumnSpec::bytes("ring_bytes_waiting", "Bytes in the ring that are not read yet.").gauge(),
        ColumnSpec::int("events", "Events read so far.").counter().unit(Unit::Count),
        ColumnSpec::int("events_lost", "Events lost so far.").counter().unit(Unit::Count),
        ColumnSpec::int("rows_appended", "Rows written to tables so far.").counter().unit(Unit::Count),
    ],
    budget_share: 3,
};
