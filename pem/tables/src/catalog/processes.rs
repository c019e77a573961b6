use crate::spec::{ColumnSpec, DataType, Pattern, Semantic, TableSpec, Unit};

/// `processes`
pub static PROCESSES: TableSpec = TableSpec {
    name: "processes",
    description: "What each process is: one row when it is first seen, one more whenever that changes, one when it ends. The last row of a upid holds.",
    columns: &[
        ColumnSpec::time("When this was seen."),
        ColumnSpec::upid("The process."),
        ColumnSpec::int("pid", "Process id in the host's namespace."),
        ColumnSpec::int("ppid", "Process id of the parent."),
        ColumnSpec::int("uid", "User id it runs as."),
        ColumnSpec::label("comm", "Short name, at most 15 bytes."),
        ColumnSpec::label("exe", "Path of the program."),
        ColumnSpec::text("cmdline", "Command line, arguments joined by spaces."),
        ColumnSpec::label("cgroup", "Path of the control group."),
        ColumnSpec::label("container_id", "Id of the container; empty outside of one."),
        ColumnSpec::label("systemd_unit", "systemd unit; empty without one."),
        ColumnSpec::new("started_at", DataType::Time64Ns, "When it started.")
            .semantic(Semantic::TimeNs)
            .unit(Unit::Nanoseconds),
        ColumnSpec::boolean("exited", "Whether it has ended.").pattern(Pattern::GeneralEnum),
        ColumnSpec::int("exit_code", "What it exited with, 128 + signal when a signal ended it; null while it runs."),
    ],
    budget_share: 6,
};
