//! A request and its response, and the row they make.

use std::fmt::Write;

use ebpf_abi::role;
use pem_tables::Value;

use super::body::Body;
use super::head::{Head, Start};
use super::text::{self, CUT_MARK};
use crate::protocols::Context;

/// Bytes of a request target that are kept. Browsers and proxies stop at 2-8 KiB; Pixie keeps 1 KiB.
const PATH_BYTES_MAX: usize = 4096;

/// Bytes of a method or a reason phrase: tokens of a dozen bytes unless someone plays.
const WORD_BYTES_MAX: usize = 128;

/// One half, or both, of an exchange. Texts lie in one buffer, so that a request costs one allocation and not six.
#[derive(Debug, Default)]
pub struct Exchange {
    /// First byte of the request.
    pub request_ns: u64,
    /// A request after this one may have been lost.
    pub doubtful: bool,
    /// Of the process, as the directions of the messages show it.
    pub role: u8,
    /// Last byte of the response so far.
    pub response_ns: u64,
    minor: u8,
    status: u16,
    content_type: i64,
    text: String,
    method_end: u32,
    path_end: u32,
    req_headers_end: u32,
    message_end: u32,
    resp_headers_end: u32,
    req_type: Span,
    resp_type: Span,
    pub request_body: Body,
    pub response_body: Body,
}

/// A stretch of [`Exchange::text`].
#[derive(Clone, Copy, Debug, Default)]
struct Span(u32, u32);

impl Exchange {
    /// Makes it the exchange that this request begins.
    pub fn begin(&mut self, head: &Head<'_, '_>, time_ns: u64) {
        let Start::Request { method, path } = head.start else { return };
        self.request_ns = time_ns;
        self.response_ns = 0;
        self.doubtful = false;
        self.status = 0;
        self.content_type = 0;
        self.minor = head.minor;
        self.text.clear();
        push_cut(&mut self.text, method, WORD_BYTES_MAX);
        self.method_end = self.here();
        push_cut(&mut self.text, path, PATH_BYTES_MAX);
        self.path_end = self.here();
        text::headers_json(&mut self.text, head.headers);
        self.req_headers_end = self.here();
        self.message_end = self.here();
        self.resp_headers_end = self.here();
        self.req_type = self.keep_type(head.fields.content_type);
        self.resp_type = Span::default();
        self.request_body.begin(head.fields.content_type, head.fields.content_encoding);
        self.response_body.begin(None, None);
    }

    /// Adds the head of its final response.
    pub fn answer(&mut self, head: &Head<'_, '_>, time_ns: u64) {
        let Start::Response { status, reason } = head.start else { return };
        self.status = status;
        self.response_ns = time_ns;
        // The exchange has the lower of the two versions; a row has one.
        self.minor = self.minor.min(head.minor);
        // The request's type stands after its headers; the response's texts go behind it.
        push_cut(&mut self.text, reason, WORD_BYTES_MAX);
        self.message_end = self.here();
        text::headers_json(&mut self.text, head.headers);
        self.resp_headers_end = self.here();
        self.content_type = head.fields.content_type.map_or(0, content_type);
        self.resp_type = self.keep_type(head.fields.content_type);
        self.response_body.begin(head.fields.content_type, head.fields.content_encoding);
    }

    /// Makes it a response alone, whose request is still to come.
    pub fn begin_answered(&mut self, head: &Head<'_, '_>, time_ns: u64) {
        self.text.clear();
        (self.method_end, self.path_end, self.req_headers_end) = (0, 0, 0);
        self.req_type = Span::default();
        self.request_body.begin(None, None);
        self.doubtful = false;
        self.minor = head.minor;
        self.answer(head, time_ns);
    }

    /// Takes the response of another, which has nothing else.
    pub fn take_answer(&mut self, from: &mut Exchange) {
        self.status = from.status;
        self.response_ns = from.response_ns;
        self.minor = self.minor.min(from.minor);
        self.content_type = from.content_type;
        self.text.push_str(from.slice(from.req_type.1, from.message_end));
        self.message_end = self.here();
        self.text.push_str(from.slice(from.message_end, from.resp_headers_end));
        self.resp_headers_end = self.here();
        self.text.push_str(from.slice(from.resp_type.0, from.resp_type.1));
        self.resp_type = Span(self.resp_headers_end, self.here());
        self.response_body = std::mem::take(&mut from.response_body);
    }

    /// The method, for the framing of the response.
    pub fn method(&self) -> &str {
        self.slice(0, self.method_end)
    }

    /// Whether a final response began.
    pub fn answered(&self) -> bool {
        self.status != 0
    }

    /// Memory held.
    pub fn bytes_held(&self) -> usize {
        size_of::<Self>() + self.text.capacity() + self.request_body.bytes_held() + self.response_body.bytes_held()
    }

    /// Appends the row. `no_response` says why there is no response, if there is none; then the latency runs to
    /// `end_ns`.
    pub fn emit(&self, cx: &mut Context<'_>, end_ns: u64, no_response: &str, bodies: &mut String) {
        let max = cx.settings.body_bytes_max;
        bodies.clear();
        self.request_body.render(bodies, max, self.slice(self.req_type.0, self.req_type.1));
        let split = bodies.len();
        self.response_body.render(bodies, max, self.slice(self.resp_type.0, self.resp_type.1));
        let (req_body, resp_body) = bodies.split_at_checked(split).unwrap_or_default();
        let message = if self.answered() { self.slice(self.req_type.1, self.message_end) } else { no_response };
        let resp_headers = if self.answered() { self.slice(self.message_end, self.resp_headers_end) } else { "{}" };
        let conn = cx.conn;
        let row = [
            Value::Time(cx.epoch_ns(end_ns)),
            Value::U128(conn.upid.as_u128()),
            Value::Str(conn.remote.addr.as_str()),
            Value::Int(conn.remote.port as i64),
            Value::Str(conn.local.addr.as_str()),
            Value::Int(conn.local.port as i64),
            Value::Int(if conn.role == role::UNKNOWN { self.role } else { conn.role } as i64),
            Value::Bool(conn.encrypted),
            Value::Int(1),
            Value::Int(self.minor as i64),
            Value::Int(self.content_type),
            Value::Str(self.slice(self.path_end, self.req_headers_end)),
            Value::Str(self.method()),
            Value::Str(self.slice(self.method_end, self.path_end)),
            Value::Str(req_body),
            Value::Int(self.request_body.size as i64),
            Value::Str(resp_headers),
            Value::Int(self.status as i64),
            Value::Str(message),
            Value::Str(resp_body),
            Value::Int(self.response_body.size as i64),
            Value::Int(end_ns.saturating_sub(self.request_ns) as i64),
        ];
        cx.rows.append(&row);
    }

    fn here(&self) -> u32 {
        self.text.len() as u32
    }

    fn slice(&self, from: u32, to: u32) -> &str {
        self.text.get(from as usize..to as usize).unwrap_or("")
    }

    fn keep_type(&mut self, value: Option<&[u8]>) -> Span {
        let from = self.here();
        if let Some(value) = value {
            text::lossy(&mut self.text, value.get(..WORD_BYTES_MAX).unwrap_or(value), WORD_BYTES_MAX, false);
        }
        Span(from, self.here())
    }
}

fn push_cut(out: &mut String, text: &str, max: usize) {
    if text.len() <= max {
        return out.push_str(text);
    }
    let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let _ = write!(out, "{}{CUT_MARK}", text.get(..end).unwrap_or(""));
}

/// `content_type` of the table: 1 JSON, 2 gRPC, 0 other.
fn content_type(value: &[u8]) -> i64 {
    let starts = |prefix: &[u8]| value.get(..prefix.len()).is_some_and(|b| b.eq_ignore_ascii_case(prefix));
    if starts(b"application/json") {
        1
    } else if starts(b"application/grpc") {
        2
    } else {
        0
    }
}
