//! Heads of messages: the start line, the headers, and what they say about the body.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Status};

/// Headers of a head that are read. Servers stop at 100 (Apache, Go's default is by bytes); a head with more is refused.
pub const HEADERS_MAX: usize = 128;

/// Bytes of a head, kept until it is whole. Node refuses at 16 KiB, nginx at 32 KiB, Tomcat may be set higher.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// Which half of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// First line of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'b> {
    Request { method: &'b str, path: &'b str },
    Response { status: u16, reason: &'b str },
}

/// A whole head.
#[derive(Debug)]
pub struct Head<'h, 'b> {
    pub start: Start<'b>,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor: u8,
    pub headers: &'h [Header<'b>],
    pub fields: Fields<'b>,
}

/// The headers that matter to us, found in one pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'b> {
    pub content_length: Option<u64>,
    /// The last transfer coding is `chunked`.
    pub chunked: bool,
    /// There is a transfer coding that is not `chunked` at the end.
    pub other_coding: bool,
    pub content_type: Option<&'b [u8]>,
    pub content_encoding: Option<&'b [u8]>,
    /// Content-Length contradicts itself or is no number.
    pub length_invalid: bool,
}

/// How the body of a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Result of a look at bytes that should begin with a head.
pub enum Parsed<T> {
    /// A head of so many bytes, and what was made of it.
    Whole(usize, T),
    /// More is needed.
    Partial,
    /// No head.
    Not,
}

/// Parses the head at the start of `bytes` and hands it to `then`.
pub fn parse<T>(side: Side, bytes: &[u8], then: impl FnOnce(&Head<'_, '_>) -> T) -> Parsed<T> {
    match side {
        Side::Request => parse_request(bytes, then),
        Side::Response => parse_response(bytes, then),
    }
}

fn parse_request<T>(bytes: &[u8], then: impl FnOnce(&Head<'_, '_>) -> T) -> Parsed<T> {
    let mut config = ParserConfig::default();
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    // Strict first, since nearly all requests are well-formed. What is not gets a second look: httparse would drop a
    // folded line of a request as invalid, but obsolete clients deserve better.
    let mut then = Some(then);
    let mut run = |config: &ParserConfig, bytes: &[u8]| {
        let parsed = request_with(config, bytes, |head| then.take().map(|then| then(head)));
        match parsed {
            Parsed::Whole(len, Some(made)) => Parsed::Whole(len, made),
            Parsed::Partial => Parsed::Partial,
            Parsed::Whole(_, None) | Parsed::Not => Parsed::Not,
        }
    };
    match run(&config, bytes) {
        Parsed::Not => {
            config.ignore_invalid_headers_in_requests(true);
            run(&config, &mend(bytes))
        }
        parsed => parsed,
    }
}

fn request_with<T>(config: &ParserConfig, bytes: &[u8], then: impl FnOnce(&Head<'_, '_>) -> T) -> Parsed<T> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match config.parse_request_with_uninit_headers(&mut request, bytes, &mut headers) {
        Ok(Status::Complete(len)) => {
            let (Some(method), Some(path), Some(minor)) = (request.method, request.path, request.version) else {
                return Parsed::Not;
            };
            let fields = Fields::read(request.headers);
            let start = Start::Request { method, path };
            Parsed::Whole(len, then(&Head { start, minor, headers: request.headers, fields }))
        }
        Ok(Status::Partial) => Parsed::Partial,
        Err(_) => Parsed::Not,
    }
}

fn parse_response<T>(bytes: &[u8], then: impl FnOnce(&Head<'_, '_>) -> T) -> Parsed<T> {
    let mut config = ParserConfig::default();
    config
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    match config.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
        Ok(Status::Complete(len)) => {
            let (Some(status), Some(minor)) = (response.code, response.version) else { return Parsed::Not };
            let fields = Fields::read(response.headers);
            let start = Start::Response { status, reason: response.reason.unwrap_or("") };
            Parsed::Whole(len, then(&Head { start, minor, headers: response.headers, fields }))
        }
        Ok(Status::Partial) => Parsed::Partial,
        Err(_) => Parsed::Not,
    }
}

/// The same number of bytes with folded lines joined by blanks, and with `?` for what is no UTF-8 in the request line.
fn mend(bytes: &[u8]) -> Vec<u8> {
    let mut plain = bytes.to_vec();
    let stop = end(bytes, 0).unwrap_or(bytes.len());
    let first = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    let line = first + memchr::memchr(b'\n', bytes.get(first..).unwrap_or(&[])).unwrap_or(0);
    if let Some(line) = plain.get_mut(first..line)
        && std::str::from_utf8(line).is_err()
    {
        line.iter_mut().filter(|b| !b.is_ascii()).for_each(|b| *b = b'?');
    }
    for at in line..stop.saturating_sub(1) {
        if plain.get(at) == Some(&b'\n') && matches!(plain.get(at + 1), Some(b' ' | b'\t')) {
            if let Some(byte) = plain.get_mut(at) {
                *byte = b' ';
            }
            if let Some(byte) = at.checked_sub(1).and_then(|before| plain.get_mut(before))
                && *byte == b'\r'
            {
                *byte = b' ';
            }
        }
    }
    plain
}

/// Where the head that begins `bytes` ends, looking from `from` on. Blank lines before the start line do not end it.
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let first = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
    let from = from.max(first);
    let rest = bytes.get(from..)?;
    for at in memchr::memchr_iter(b'\n', rest) {
        match (rest.get(at + 1), rest.get(at + 2)) {
            (Some(b'\n'), _) => return Some(from + at + 2),
            (Some(b'\r'), Some(b'\n')) => return Some(from + at + 3),
            _ => {}
        }
    }
    None
}

/// Whether bytes can be the beginning of a head of this side. Short bytes get the benefit of the doubt.
pub fn plausible(side: Side, bytes: &[u8]) -> bool {
    let Some(first) = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')) else { return !bytes.is_empty() };
    let bytes = bytes.get(first..).unwrap_or(&[]);
    match side {
        Side::Response => {
            let prefix = b"HTTP/1.";
            let common = bytes.len().min(prefix.len());
            bytes.get(..common) == prefix.get(..common)
        }
        Side::Request => METHODS.iter().any(|method| {
            let common = bytes.len().min(method.len());
            bytes.get(..common).is_some_and(|b| method.get(..common).is_some_and(|m| b.eq_ignore_ascii_case(m)))
        }),
    }
}

/// Methods that begin a request for [`plausible`], with their blank: IANA's list as far as it is seen in the wild. Once
/// a connection is in step any token is taken.
const METHODS: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"PATCH ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PROPFIND ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"UNLOCK ",
    b"REPORT ",
    b"SEARCH ",
    b"PURGE ",
    b"LINK ",
    b"UNLINK ",
    b"QUERY ",
];

/// First bytes of an HTTP/2 connection that did not negotiate.
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

impl<'b> Fields<'b> {
    fn read(headers: &[Header<'b>]) -> Self {
        let mut fields = Self::default();
        for header in headers {
            let name = header.name;
            // The length sorts out nearly all before any byte is compared.
            match name.len() {
                12 if name.eq_ignore_ascii_case("content-type") => fields.content_type = Some(header.value),
                14 if name.eq_ignore_ascii_case("content-length") => fields.length(header.value),
                16 if name.eq_ignore_ascii_case("content-encoding") => fields.content_encoding = Some(header.value),
                17 if name.eq_ignore_ascii_case("transfer-encoding") => fields.coding(header.value),
                _ => {}
            }
        }
        fields
    }

    fn length(&mut self, value: &[u8]) {
        for part in value.split(|&b| b == b',') {
            let digits = part.trim_ascii();
            let number = std::str::from_utf8(digits).ok().and_then(|text| {
                let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                if plain { text.parse::<u64>().ok() } else { None }
            });
            match (number, self.content_length) {
                (Some(n), None) => self.content_length = Some(n),
                (Some(n), Some(before)) if n == before => {}
                _ => self.length_invalid = true,
            }
        }
    }

    fn coding(&mut self, value: &[u8]) {
        let last = value.rsplit(|&b| b == b',').next().unwrap_or(value).trim_ascii();
        self.chunked = last.eq_ignore_ascii_case(b"chunked");
        self.other_coding = !self.chunked && !last.eq_ignore_ascii_case(b"identity");
    }

    /// RFC 9112 §6.3 for a request.
    pub fn request_framing(&self) -> Framing {
        match self.content_length {
            _ if self.chunked => Framing::Chunked,
            Some(n) if n > 0 && !self.length_invalid => Framing::Length(n),
            _ => Framing::None,
        }
    }

    /// RFC 9112 §6.3 for a response to a request of this method (empty = not known).
    pub fn response_framing(&self, status: u16, method: &str) -> Framing {
        let bodiless = method.eq_ignore_ascii_case("HEAD")
            || matches!(status, 100..=199 | 204 | 304)
            || (method.eq_ignore_ascii_case("CONNECT") && matches!(status, 200..=299));
        match self.content_length {
            _ if bodiless => Framing::None,
            _ if self.chunked => Framing::Chunked,
            _ if self.other_coding => Framing::UntilClose,
            Some(0) => Framing::None,
            Some(n) if !self.length_invalid => Framing::Length(n),
            _ => Framing::UntilClose,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(text: &str) -> Framing {
        match parse(Side::Response, text.as_bytes(), |head| {
            let Start::Response { status, .. } = head.start else { unreachable!() };
            head.fields.response_framing(status, "GET")
        }) {
            Parsed::Whole(_, framing) => framing,
            _ => panic!("no head: {text:?}"),
        }
    }

    #[test]
    fn framing_follows_the_rfc() {
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Framing::Length(5));
        assert_eq!(framing("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n"), Framing::Length(5));
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), Framing::UntilClose);
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), Framing::UntilClose);
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n"),
            Framing::Chunked
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"),
            Framing::UntilClose
        );
        assert_eq!(framing("HTTP/1.1 204 No Content\r\n\r\n"), Framing::None);
        assert_eq!(framing("HTTP/1.0 200\r\n\r\n"), Framing::UntilClose);
    }

    #[test]
    fn folded_lines_are_joined_on_both_sides() {
        let text = b"GET / HTTP/1.1\r\nX-Long: a\r\n  b\r\nHost: h\r\n\r\nrest";
        let Parsed::Whole(len, seen) = parse(Side::Request, text, |head| {
            head.headers
                .iter()
                .map(|h| (h.name.to_string(), String::from_utf8_lossy(h.value).into_owned()))
                .collect::<Vec<_>>()
        }) else {
            panic!("no head");
        };
        assert_eq!(len, text.len() - 4);
        assert_eq!(seen[0].0, "X-Long");
        assert_eq!(seen[0].1.split_whitespace().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(seen[1], ("Host".into(), "h".into()));
        let response = b"HTTP/1.1 200 OK\r\nX-Long: a\r\n\tb\r\n\r\n";
        assert!(matches!(parse(Side::Response, response, |_| ()), Parsed::Whole(n, ()) if n == response.len()));
    }

    #[test]
    fn the_end_is_found_whatever_the_line_ends() {
        assert_eq!(end(b"GET / HTTP/1.1\r\n\r\nx", 0), Some(18));
        assert_eq!(end(b"\r\n\r\nGET / HTTP/1.1\n\nx", 0), Some(20));
        assert_eq!(end(b"GET / HTTP/1.1\r\n\r", 0), None);
        assert_eq!(end(b"\r\n", 0), None);
    }

    #[test]
    fn plausible_starts() {
        assert!(plausible(Side::Request, b"\r\nget /"));
        assert!(plausible(Side::Request, b"PO"));
        assert!(!plausible(Side::Request, b"ost: x"));
        assert!(plausible(Side::Response, b"HTTP/1.0 200"));
        assert!(!plausible(Side::Response, b"HTTP/2 200"));
    }
}
