use crate::spec::{ColumnSpec, TableSpec, Unit};

/// `network_stats`
pub static NETWORK_STATS: TableSpec = TableSpec {
    name: "network_stats",
    description: "Traffic of each network namespace (pod, or the host itself), sampled; counters run from its start.",
    columns: &[
        ColumnSpec::time("When the sample was taken."),
        ColumnSpec::label(
            "pod_id",
            "Id of the pod, else of the container, else of the network namespace; empty for the host's own network.",
        ),
        ColumnSpec::bytes("rx_bytes", "Bytes received.").counter(),
        ColumnSpec::int("rx_packets", "Packets received.").counter().unit(Unit::Count),
        ColumnSpec::int("rx_errors", "Receive errors.").counter().unit(Unit::Count),
        ColumnSpec::int("rx_drops", "Received packets dropped.").counter().unit(Unit::Count),
        ColumnSpec::bytes("tx_bytes", "Bytes sent.").counter(),
        ColumnSpec::int("tx_packets", "Packets sent.").counter().unit(Unit::Count),
        ColumnSpec::int("tx_errors", "Send errors.").counter().unit(Unit::Count),
        ColumnSpec::int("tx_drops", "Packets to send dropped.").counter().unit(Unit::Count),
    ],
    budget_share: 4,
};
