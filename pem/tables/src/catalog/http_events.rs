use crate::spec::{ColumnSpec, Pattern, Semantic, TableSpec, Unit};

/// `http_events`
pub static HTTP_EVENTS: TableSpec = TableSpec {
    name: "http_events",
    description: "One row per HTTP request and its response, as seen on a traced process's connection.",
    columns: &[
        ColumnSpec::time("When the last byte of the response was seen."),
        ColumnSpec::upid("The traced process."),
        ColumnSpec::label("remote_addr", "IP address of the other side.").semantic(Semantic::IpAddress),
        ColumnSpec::int("remote_port", "Port of the other side.").semantic(Semantic::Port),
        ColumnSpec::label("local_addr", "IP address of the traced process's side.").semantic(Semantic::IpAddress),
        ColumnSpec::int("local_port", "Port of the traced process's side.").semantic(Semantic::Port),
        ColumnSpec::code("trace_role", "Side of the traced process: 1 client, 2 server, 4 not known."),
        ColumnSpec::boolean("encrypted", "Whether the request travelled encrypted.").pattern(Pattern::GeneralEnum),
        ColumnSpec::code("major_version", "Major version of HTTP: 1 or 2."),
        ColumnSpec::code("minor_version", "Minor version of HTTP: 0 or 1."),
        ColumnSpec::code("content_type", "Type of the response's content: 0 other, 1 JSON, 2 gRPC."),
        ColumnSpec::text("req_headers", "Headers of the request, as a JSON object.").pattern(Pattern::Structured),
        ColumnSpec::label("req_method", "Method of the request.")
            .semantic(Semantic::HttpReqMethod)
            .pattern(Pattern::GeneralEnum),
        ColumnSpec::label("req_path", "Path of the request, with its query.").pattern(Pattern::Structured),
        ColumnSpec::text("req_body", "Start of the request's body, decoded.").pattern(Pattern::Structured),
        ColumnSpec::bytes("req_body_size", "Size of the request's body on the wire.").gauge(),
        ColumnSpec::text("resp_headers", "Headers of the response, as a JSON object.").pattern(Pattern::Structured),
        ColumnSpec::code("resp_status", "Status code of the response.").semantic(Semantic::HttpRespStatus),
        ColumnSpec::label("resp_message", "Reason phrase of the response.")
            .semantic(Semantic::HttpRespMessage)
            .pattern(Pattern::Structured),
        ColumnSpec::text("resp_body", "Start of the response's body, decoded.").pattern(Pattern::Structured),
        ColumnSpec::bytes("resp_body_size", "Size of the response's body on the wire.").gauge(),
        ColumnSpec::duration("latency", "From the first byte of the request to the last of the response.")
            .gauge()
            .unit(Unit::Nanoseconds),
    ],
    // What people ask about most, and by far the widest rows.
    budget_share: 60,
};
