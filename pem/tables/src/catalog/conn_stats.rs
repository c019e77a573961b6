use crate::spec::{ColumnSpec, Pattern, Semantic, TableSpec, Unit};

/// `conn_stats`
pub static CONN_STATS: TableSpec = TableSpec {
    name: "conn_stats",
    description: "Connections and bytes between a process and one remote endpoint, sampled; counters run from the first sample on.",
    columns: &[
        ColumnSpec::time("When the sample was taken."),
        ColumnSpec::upid("The traced process."),
        ColumnSpec::label("remote_addr", "IP address of the other side.").semantic(Semantic::IpAddress),
        ColumnSpec::int("remote_port", "Port of the other side, 0 where the traced process is the server.")
            .semantic(Semantic::Port),
        ColumnSpec::code("trace_role", "Side of the traced process: 1 client, 2 server, 4 not known."),
        ColumnSpec::code("addr_family", "Address family: 1 Unix, 2 IPv4, 10 IPv6, 0 not known."),
        ColumnSpec::code("protocol", "Protocol spoken, as inferred: 0 not known, 1 HTTP, 2 HTTP/2, ..."),
        ColumnSpec::boolean("ssl", "Whether the traffic is encrypted.").pattern(Pattern::GeneralEnum),
        ColumnSpec::int("conn_open", "Connections opened so far.").counter().unit(Unit::Count),
        ColumnSpec::int("conn_close", "Connections closed so far.").counter().unit(Unit::Count),
        ColumnSpec::int("conn_active", "Connections open now.").gauge().unit(Unit::Count),
        ColumnSpec::bytes("bytes_sent", "Bytes sent so far.").counter(),
        ColumnSpec::bytes("bytes_recv", "Bytes received so far.").counter(),
    ],
    budget_share: 12,
};
