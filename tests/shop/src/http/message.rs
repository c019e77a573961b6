//! Requests and responses, read and written whole.

use std::io::{self, BufRead, Read, Write};

/// Most bytes of one body, and of one head: the shop sends less than a tenth of it, so more is a mistake.
const BODY_BYTES_MAX: usize = 1 << 20;
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A request as the server saw it.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Path with its query string.
    pub path: String,
    pub body: Vec<u8>,
    /// Whether the peer wants the connection kept.
    pub keep_alive: bool,
}

/// A response, to send or as received.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: String,
    /// Body sent in chunks, a few writes each, rather than with a length.
    pub chunked: bool,
    /// Whether the server keeps the connection.
    pub keep_alive: bool,
}

impl Response {
    /// A JSON answer.
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), chunked: false, keep_alive: true }
    }

    /// The JSON error that every service of the shop answers with.
    pub fn error(status: u16, message: &str) -> Self {
        Self::json(status, format!(r#"{{"error":"{message}","status":{status}}}"#))
    }

    /// The same answer, in chunks.
    pub fn chunked(self) -> Self {
        Self { chunked: true, ..self }
    }

    /// The same answer, closing the connection after it.
    pub fn closing(self) -> Self {
        Self { keep_alive: false, ..self }
    }

    pub(super) fn write(&self, to: &mut impl Write, keep_alive: bool) -> io::Result<()> {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let reason = reason(self.status);
        let status = self.status;
        let common = format!(
            "HTTP/1.1 {status} {reason}\r\nServer: shop\r\nContent-Type: application/json\r\nConnection: {connection}\r\n"
        );
        if self.status == 204 {
            return to.write_all(format!("{common}\r\n").as_bytes());
        }
        if !self.chunked {
            let length = self.body.len();
            return to.write_all(format!("{common}Content-Length: {length}\r\n\r\n{}", self.body).as_bytes());
        }
        to.write_all(format!("{common}Transfer-Encoding: chunked\r\n\r\n").as_bytes())?;
        for chunk in self.body.as_bytes().chunks(700) {
            // Head, chunk by chunk and end are writes of their own, as frameworks that stream send them.
            let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
            to.write_all(&framed)?;
        }
        to.write_all(b"0\r\n\r\n")
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

/// Reads one request; `None` when the peer closed between requests.
pub(super) fn read_request(from: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(head) = Head::read(from)? else { return Ok(None) };
    let mut words = head.start.split(' ');
    let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(invalid(format!("not a request line: {:?}", head.start)));
    };
    let keep_alive = version == "HTTP/1.1" && !head.says("connection", "close");
    let (method, path) = (method.to_owned(), path.to_owned());
    let body = head.body(from, false)?;
    Ok(Some(Request { method, path, body, keep_alive }))
}

/// Reads one response.
pub(super) fn read_response(from: &mut impl BufRead) -> io::Result<Response> {
    let head = Head::read(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.start.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| invalid(format!("not a status line: {:?}", head.start)))?;
    let keep_alive = !head.says("connection", "close");
    let chunked = head.says("transfer-encoding", "chunked");
    let body = if status == 204 { Vec::new() } else { head.body(from, true)? };
    let body = String::from_utf8(body).map_err(|error| invalid(error.to_string()))?;
    Ok(Response { status, body, chunked, keep_alive })
}

struct Head {
    start: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut from = from.take(HEAD_BYTES_MAX as u64);
        let mut start = String::new();
        if from.read_line(&mut start)? == 0 {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Err(invalid("head ended early or is too long".to_owned()));
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(Some(Self { start: start.trim_end().to_owned(), headers }));
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn says(&self, name: &str, value: &str) -> bool {
        self.value(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }

    fn body(&self, from: &mut impl BufRead, to_the_end: bool) -> io::Result<Vec<u8>> {
        if self.says("transfer-encoding", "chunked") {
            return read_chunks(from);
        }
        let mut body = Vec::new();
        match self.value("content-length") {
            Some(length) => {
                let length: usize = length.parse().map_err(|_| invalid(format!("not a length: {length}")))?;
                if length > BODY_BYTES_MAX {
                    return Err(invalid(format!("body of {length} bytes is over {BODY_BYTES_MAX}")));
                }
                body.resize(length, 0);
                from.read_exact(&mut body)?;
            }
            // A response without a length lasts until the connection ends.
            None if to_the_end => {
                from.take(BODY_BYTES_MAX as u64).read_to_end(&mut body)?;
            }
            None => {}
        }
        Ok(body)
    }
}

fn read_chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        from.take(HEAD_BYTES_MAX as u64).read_line(&mut line)?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid(format!("not a chunk size: {line:?}")))?;
        if body.len() + size > BODY_BYTES_MAX {
            return Err(invalid(format!("chunked body is over {BODY_BYTES_MAX} bytes")));
        }
        let start = body.len();
        body.resize(start + size, 0);
        from.read_exact(&mut body[start..])?;
        let mut end = String::new();
        from.take(HEAD_BYTES_MAX as u64).read_line(&mut end)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn round_trip(response: &Response) -> Response {
        let mut bytes = Vec::new();
        response.write(&mut bytes, response.keep_alive).unwrap();
        read_response(&mut BufReader::new(bytes.as_slice())).unwrap()
    }

    #[test]
    fn responses_survive_the_wire_with_length_and_in_chunks() {
        let body = "x".repeat(2_000);
        for response in [Response::json(200, body.clone()), Response::json(503, body.clone()).chunked().closing()] {
            let read = round_trip(&response);
            assert_eq!((read.status, &read.body), (response.status, &body));
            assert_eq!((read.chunked, read.keep_alive), (response.chunked, response.keep_alive));
        }
    }

    #[test]
    fn a_request_is_read_with_its_body_and_the_next_is_left() {
        let bytes = b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.0\r\n\r\n";
        let mut from = BufReader::new(bytes.as_slice());
        let first = read_request(&mut from).unwrap().unwrap();
        assert_eq!(
            (first.method.as_str(), first.path.as_str(), first.body.as_slice()),
            ("POST", "/orders", &b"{}"[..])
        );
        assert!(first.keep_alive);
        let second = read_request(&mut from).unwrap().unwrap();
        assert!(!second.keep_alive);
        assert!(read_request(&mut from).unwrap().is_none());
    }

    #[test]
    fn lengths_over_the_bound_are_refused() {
        let bytes = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
        assert!(read_request(&mut BufReader::new(bytes.as_bytes())).is_err());
    }
}
