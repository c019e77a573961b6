use crate::spec::{ColumnSpec, TableSpec};

/// `proc_exit_events`
pub static PROC_EXIT_EVENTS: TableSpec = TableSpec {
    name: "proc_exit_events",
    description: "One row per process that ended.",
    columns: &[
        ColumnSpec::time("When it ended."),
        ColumnSpec::upid("The process."),
        ColumnSpec::int("exit_code", "What it exited with; -1 when a signal ended it."),
        ColumnSpec::int("signal", "The signal that ended it; -1 when it exited by itself."),
        ColumnSpec::label("comm", "Its short name, at most 15 bytes."),
    ],
    budget_share: 2,
};
