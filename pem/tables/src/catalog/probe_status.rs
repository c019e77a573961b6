use crate::spec::{ColumnSpec, Pattern, TableSpec};

/// `probe_status`
pub static PROBE_STATUS: TableSpec = TableSpec {
    name: "probe_status",
    description: "What became of each probe: attached, not available on this kernel, failed and why.",
    columns: &[
        ColumnSpec::time("When it became so."),
        ColumnSpec::upid("The agent's process."),
        ColumnSpec::label("source_connector", "The part of the agent that owns the probe."),
        ColumnSpec::label("tracepoint", "Name of the probe."),
        ColumnSpec::code("status", "0 attached; else what kind of error (enums::STATUS)."),
        ColumnSpec::text("error", "Why it is not attached and what to do."),
        ColumnSpec::text("info", "More about it, as a JSON object.").pattern(Pattern::Structured),
    ],
    budget_share: 1,
};
