use crate::spec::{ColumnSpec, TableSpec, Unit};

/// `plugin_runs`
pub static PLUGIN_RUNS: TableSpec = TableSpec {
    name: "plugin_runs",
    description: "What each run of a script or query used and how it ended; kept by Vizier, written when the run ends.",
    columns: &[
        ColumnSpec::time("When it began."),
        ColumnSpec::text("run_id", "Id of the run, as clients are told it."),
        ColumnSpec::label("name", "Name of the script; sql for a query that came as text."),
        ColumnSpec::label("digest", "Digest of the component; empty for a query that came as text."),
        ColumnSpec::label("kind", "What ran: script or sql."),
        ColumnSpec::label("tenant", "Whose budgets it counted against: uid:N for a local user, else the address."),
        ColumnSpec::label("client", "Who asked for it: the process or the connection."),
        ColumnSpec::label("status", "How it ended: ok, failed, exhausted, timed_out, cancelled or internal."),
        ColumnSpec::label("exhausted", "Which budget ran out; empty when none did."),
        ColumnSpec::text("error", "Why it did not end well; empty when it did."),
        ColumnSpec::int("rounds", "Times it ran: more than 1 when it was followed.").unit(Unit::Count),
        ColumnSpec::duration("guest_cpu_ns", "Processor time of the guest itself."),
        ColumnSpec::duration("host_cpu_ns", "Processor time of planning on its behalf."),
        ColumnSpec::bytes("memory_peak_bytes", "Most memory the guest had at once."),
        ColumnSpec::int("rows_scanned", "Rows read from tables for it, on all agents.").unit(Unit::Count),
        ColumnSpec::bytes("bytes_scanned", "Bytes of the columns that were read for it."),
        ColumnSpec::int("rows_output", "Rows it put out.").unit(Unit::Count),
        ColumnSpec::bytes("bytes_output", "Bytes of the rows it put out."),
        ColumnSpec::int("host_calls", "Calls of the guest into the host.").unit(Unit::Count),
        ColumnSpec::duration("instantiate_ns", "Time from its slot to a guest that is ready to be called."),
        ColumnSpec::duration("plan_ns", "Time until its last frame was handed to the engine."),
        ColumnSpec::duration("total_ns", "How long it took in all."),
        ColumnSpec::int("agents", "Agents that worked for it.").unit(Unit::Count),
        ColumnSpec::int("agents_missing", "Agents whose rows are missing from its result.").unit(Unit::Count),
    ],
    budget_share: 1,
};
