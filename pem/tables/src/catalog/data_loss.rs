use crate::spec::{ColumnSpec, TableSpec, Unit};

/// `data_loss`
pub static DATA_LOSS: TableSpec = TableSpec {
    name: "data_loss",
    description: "What is missing from the other tables: one row per source, table and reason in an interval in which something was lost.",
    columns: &[
        ColumnSpec::time("End of the interval."),
        ColumnSpec::label("agent", "The agent that lost it."),
        ColumnSpec::label(
            "source",
            "Where it was lost: the capture as a whole, a ring, a connection, a parser, a table.",
        ),
        ColumnSpec::label("table_name", "The table that lacks it; empty when it cannot be told."),
        ColumnSpec::label("reason", "Why."),
        ColumnSpec::int(
            "events",
            "Events lost in the interval; null where nobody saw how many, since nothing was captured at all.",
        )
        .gauge()
        .unit(Unit::Count),
        ColumnSpec::bytes("bytes", "Bytes lost in the interval, where known.").gauge(),
        ColumnSpec::duration("duration_ns", "Length of the interval.").gauge(),
    ],
    budget_share: 1,
};
