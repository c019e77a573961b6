//! Names of the values of columns that hold codes.

use crate::spec::TableSpec;

/// Names of codes, in order of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enum {
    /// What it is called in functions and documentation.
    pub name: &'static str,
    /// Code and name.
    pub values: &'static [(i64, &'static str)],
}

impl Enum {
    /// Name of a code.
    pub fn decode(&self, code: i64) -> Option<&'static str> {
        let at = self.values.binary_search_by_key(&code, |value| value.0).ok()?;
        Some(self.values[at].1)
    }

    /// Code of a name.
    pub fn encode(&self, name: &str) -> Option<i64> {
        self.values.iter().find(|value| value.1 == name).map(|value| value.0)
    }
}

/// `trace_role`: which side of a connection the traced process is. Numbers are Pixie's.
pub static TRACE_ROLE: Enum = Enum { name: "trace_role", values: &[(1, "client"), (2, "server"), (4, "unknown")] };

/// `protocol`: what is spoken on a connection. Numbers are Pixie's.
pub static PROTOCOL: Enum = Enum {
    name: "protocol",
    values: &[
        (0, "unknown"),
        (1, "http"),
        (2, "http2"),
        (3, "mysql"),
        (4, "cql"),
        (5, "pgsql"),
        (6, "dns"),
        (7, "redis"),
        (8, "nats"),
        (9, "mongo"),
        (10, "kafka"),
        (11, "mux"),
        (12, "amqp"),
        (13, "tls"),
    ],
};

/// `content_type` of `http_events`. Numbers are Pixie's.
pub static CONTENT_TYPE: Enum = Enum { name: "content_type", values: &[(0, "other"), (1, "json"), (2, "grpc")] };

/// `addr_family`: numbers are Linux's `AF_*`.
pub static ADDR_FAMILY: Enum =
    Enum { name: "addr_family", values: &[(0, "unknown"), (1, "unix"), (2, "ipv4"), (10, "ipv6")] };

/// `status` of `probe_status` and `stirling_error`: numbers are those of gRPC status codes.
pub static STATUS: Enum = Enum {
    name: "status",
    values: &[
        (0, "ok"),
        (1, "cancelled"),
        (2, "unknown"),
        (3, "invalid_argument"),
        (4, "deadline_exceeded"),
        (5, "not_found"),
        (6, "already_exists"),
        (7, "permission_denied"),
        (8, "resource_exhausted"),
        (9, "failed_precondition"),
        (10, "aborted"),
        (11, "out_of_range"),
        (12, "unimplemented"),
        (13, "internal"),
        (14, "unavailable"),
        (15, "data_loss"),
        (16, "unauthenticated"),
    ],
};

/// Every enum.
pub static ALL: &[&Enum] = &[&TRACE_ROLE, &PROTOCOL, &CONTENT_TYPE, &ADDR_FAMILY, &STATUS];

/// The enum of a column, where it has one.
pub fn of(table: &TableSpec, column: &str) -> Option<&'static Enum> {
    match (table.name, column) {
        (_, "trace_role") => Some(&TRACE_ROLE),
        (_, "protocol") => Some(&PROTOCOL),
        (_, "addr_family") => Some(&ADDR_FAMILY),
        ("http_events", "content_type") => Some(&CONTENT_TYPE),
        ("probe_status" | "stirling_error", "status") => Some(&STATUS),
        _ => None,
    }
}
