use crate::spec::{ColumnSpec, Pattern, TableSpec};

/// `stirling_error`, by Pixie's name: errors of the agent's own parts.
pub static AGENT_ERRORS: TableSpec = TableSpec {
    name: "stirling_error",
    description: "Errors and recoveries of the agent's own data sources.",
    columns: &[
        ColumnSpec::time("When it happened."),
        ColumnSpec::upid("The agent's process."),
        ColumnSpec::label("source_connector", "The part of the agent."),
        ColumnSpec::code("status", "0 ok; else what kind of error (enums::STATUS)."),
        ColumnSpec::text("error", "What went wrong and what to do."),
        ColumnSpec::text("context", "What it was about, as a JSON object.").pattern(Pattern::Structured),
    ],
    budget_share: 1,
};
