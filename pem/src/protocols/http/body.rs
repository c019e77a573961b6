//! Bodies: how many bytes they had, and the beginning of those that are text.

use std::io::Read;

use super::text;

/// Compressed bytes kept beyond the text's own cap: room for the tables of a coding that precede the text.
const CODED_SLACK_BYTES: usize = 1024;

/// A coding's window: what RFC 8878 and RFC 9659 let an HTTP sender ask of a receiver.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// What is to be kept of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keep {
    /// Its type says text, or will be judged by its bytes.
    #[default]
    Beginning,
    /// Its type says that it is none.
    Nothing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    Identity,
    Gzip,
    Deflate,
    Brotli,
    Zstd,
    Unknown,
}

/// A body as it passes.
#[derive(Debug, Default)]
pub struct Body {
    /// Bytes of it, with chunk framing removed and any content coding still on. True even when they were not seen.
    pub size: u64,
    prefix: Vec<u8>,
    keep: Keep,
    coding: Coding,
    /// Its type is known to be text, so that its bytes need not be judged.
    texty: bool,
    /// A byte was not seen or not kept, so the prefix ends there.
    cut: bool,
}

impl Body {
    /// Gets ready for a body with these headers.
    pub fn begin(&mut self, content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) {
        self.size = 0;
        self.prefix.clear();
        self.cut = false;
        self.coding = content_encoding.map_or(Coding::Identity, coding);
        (self.keep, self.texty) = match content_type.map(classify) {
            None => (Keep::Beginning, false),
            Some(true) => (Keep::Beginning, true),
            Some(false) => (Keep::Nothing, false),
        };
        if self.coding == Coding::Unknown {
            self.keep = Keep::Nothing;
        }
    }

    /// More of it.
    pub fn push(&mut self, bytes: &[u8], text_bytes_max: usize) {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.keep == Keep::Nothing || self.cut {
            return;
        }
        let slack = if self.coding == Coding::Identity { 0 } else { CODED_SLACK_BYTES };
        let room = (text_bytes_max + slack).saturating_sub(self.prefix.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.prefix.extend_from_slice(kept);
        self.cut = kept.len() < bytes.len();
    }

    /// Bytes of it that nobody saw.
    pub fn skip(&mut self, bytes: u64) {
        self.size = self.size.saturating_add(bytes);
        self.cut |= bytes > 0;
    }

    /// Memory held.
    pub fn bytes_held(&self) -> usize {
        self.prefix.capacity()
    }

    /// Appends the text for the table: the beginning of it, or a note why there is none.
    pub fn render(&self, out: &mut String, text_bytes_max: usize, content_type: &str) {
        if self.size == 0 {
            return;
        }
        if self.keep == Keep::Nothing {
            let what = if self.coding == Coding::Unknown { "unknown content coding" } else { media_type(content_type) };
            note(out, what);
            return;
        }
        if self.coding == Coding::Identity {
            return self.render_plain(out, &self.prefix, text_bytes_max, self.cut);
        }
        let mut plain = Vec::new();
        let whole = inflate(self.coding, &self.prefix, text_bytes_max, &mut plain);
        match whole {
            _ if !plain.is_empty() => self.render_plain(out, &plain, text_bytes_max, self.cut || !whole),
            true => {}
            false => note(out, "content coding not readable"),
        }
    }

    fn render_plain(&self, out: &mut String, bytes: &[u8], max: usize, more: bool) {
        if bytes.is_empty() {
            note(out, "bytes not captured");
        } else if self.texty || text::textual(bytes) {
            text::lossy(out, bytes, max, more);
        } else {
            note(out, "binary");
        }
    }
}

fn note(out: &mut String, what: &str) {
    out.push_str("[body not kept: ");
    out.push_str(what);
    out.push(']');
}

/// The type without its parameters, cut to a length that no real type reaches.
fn media_type(content_type: &str) -> &str {
    let bare = content_type.split(';').next().unwrap_or("").trim();
    bare.char_indices().nth(80).and_then(|(at, _)| bare.get(..at)).unwrap_or(bare)
}

/// Whether a content type means text.
fn classify(content_type: &[u8]) -> bool {
    let bare = content_type.split(|&b| b == b';').next().unwrap_or(content_type).trim_ascii();
    let starts = |prefix: &[u8]| bare.get(..prefix.len()).is_some_and(|b| b.eq_ignore_ascii_case(prefix));
    let contains = |part: &[u8]| bare.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part));
    // The two that nearly all have, before the search.
    starts(b"application/json")
        || starts(b"text/")
        || (starts(b"application/")
            && [&b"json"[..], b"xml", b"javascript", b"x-www-form-urlencoded", b"graphql", b"yaml", b"csv", b"sql"]
                .iter()
                .any(|part| contains(part)))
}

fn coding(value: &[u8]) -> Coding {
    let value = value.trim_ascii();
    let is = |name: &[u8]| value.eq_ignore_ascii_case(name);
    match () {
        _ if value.is_empty() || is(b"identity") => Coding::Identity,
        _ if is(b"gzip") || is(b"x-gzip") => Coding::Gzip,
        _ if is(b"deflate") => Coding::Deflate,
        _ if is(b"br") => Coding::Brotli,
        _ if is(b"zstd") => Coding::Zstd,
        _ => Coding::Unknown,
    }
}

/// Inflates at most `max` bytes into `out`; true when the end of the data was reached. Work and memory are bounded by
/// `max` and the window of the coding, so a bomb costs no more than an honest body.
fn inflate(coding: Coding, bytes: &[u8], max: usize, out: &mut Vec<u8>) -> bool {
    match coding {
        Coding::Gzip => read_some(flate2::read::MultiGzDecoder::new(bytes), max, out),
        Coding::Deflate => {
            // RFC 9110 means zlib, but raw deflate is sent under this name too.
            let whole = read_some(flate2::read::ZlibDecoder::new(bytes), max, out);
            if out.is_empty() { read_some(flate2::read::DeflateDecoder::new(bytes), max, out) } else { whole }
        }
        Coding::Brotli => {
            // The one decoder here whose every index is not ours to vouch for: should it panic, the body is unreadable.
            let Some((first, rest)) = bytes.split_first() else { return false };
            let first = [if max < BROTLI_NARROW_BYTES { narrow_brotli(*first) } else { *first }];
            let read = std::panic::AssertUnwindSafe(|| {
                read_some(brotli_decompressor::Decompressor::new(first.chain(rest), 4096), max, out)
            });
            std::panic::catch_unwind(read).unwrap_or(false)
        }
        Coding::Zstd => {
            let Ok(mut decoder) = zstd::stream::read::Decoder::new(bytes) else { return false };
            if decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).is_err() {
                return false;
            }
            read_some(decoder, max, out)
        }
        Coding::Identity | Coding::Unknown => false,
    }
}

/// The window that [`narrow_brotli`] sets, less what the format keeps for itself.
const BROTLI_NARROW_BYTES: usize = (256 << 10) - 16;

/// The first byte of a brotli stream with a window of 256 KiB in place of a larger one. A decoder makes room for the whole
/// window at once, up to 16 MiB, which would cost milliseconds for each body; but nothing in the few KiB that are read
/// can reach back further than to the beginning, which any window holds. (RFC 7932 §9.1: bit 0 set and bits 1-3 not all
/// zero means a window of 2^(17 + those bits).)
fn narrow_brotli(first: u8) -> u8 {
    if first & 1 == 1 && first & 0b1110 != 0 { first & !0b1110 | 0b0010 } else { first }
}

fn read_some(mut from: impl Read, max: usize, out: &mut Vec<u8>) -> bool {
    out.resize(max, 0);
    let mut filled = 0;
    let whole = loop {
        let Some(room) = out.get_mut(filled..).filter(|room| !room.is_empty()) else {
            // Full: one more byte tells whether that was all.
            break matches!(from.read(&mut [0]), Ok(0));
        };
        match from.read(room) {
            Ok(0) => break true,
            Ok(n) => filled += n,
            Err(_) => break false,
        }
    };
    out.truncate(filled);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn rendered(content_type: &str, encoding: Option<&str>, bytes: &[u8], max: usize) -> String {
        let mut body = Body::default();
        body.begin(Some(content_type.as_bytes()).filter(|t| !t.is_empty()), encoding.map(str::as_bytes));
        for piece in bytes.chunks(7) {
            body.push(piece, max);
        }
        assert_eq!(body.size, bytes.len() as u64);
        assert!(body.bytes_held() <= 2 * (max + CODED_SLACK_BYTES));
        let mut out = String::new();
        body.render(&mut out, max, content_type);
        out
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn text_is_kept_up_to_the_cap() {
        assert_eq!(rendered("text/plain", None, b"hello", 10), "hello");
        assert_eq!(rendered("text/plain", None, b"hello world", 5), "hello... [TRUNCATED]");
        assert_eq!(rendered("application/problem+json; charset=utf-8", None, b"{}", 10), "{}");
        assert_eq!(rendered("", None, b"guess", 10), "guess");
    }

    #[test]
    fn binary_is_replaced_by_a_note() {
        assert_eq!(rendered("image/png; x=y", None, b"\x89PNG", 10), "[body not kept: image/png]");
        assert_eq!(rendered("", None, b"\x00\x01", 10), "[body not kept: binary]");
        assert_eq!(rendered("text/plain", Some("exotic"), b"abc", 10), "[body not kept: unknown content coding]");
    }

    #[test]
    fn every_coding_is_inflated() {
        let plain = b"{\"message\": \"hello hello hello hello\"}";
        assert_eq!(rendered("application/json", Some("gzip"), &gzip(plain), 100).as_bytes(), plain);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(plain).unwrap();
        assert_eq!(rendered("application/json", Some("deflate"), &zlib.finish().unwrap(), 100).as_bytes(), plain);
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        raw.write_all(plain).unwrap();
        assert_eq!(rendered("application/json", Some("deflate"), &raw.finish().unwrap(), 100).as_bytes(), plain);
        let zstd = zstd::bulk::compress(plain, 1).unwrap();
        assert_eq!(rendered("application/json", Some("zstd"), &zstd, 100).as_bytes(), plain);
        // Made with `brotli -q 5`-like settings of another tool: "hello" as one uncompressed meta-block.
        let brotli = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(rendered("text/plain", Some("br"), &brotli, 100), "hello");
        assert_eq!(
            rendered("text/plain", Some("br"), b"\xff\xff\xff\xff", 100),
            "[body not kept: content coding not readable]"
        );
    }

    #[test]
    fn a_bomb_ends_at_the_cap() {
        let bomb = gzip(&vec![b'a'; 50 << 20]);
        let text = rendered("text/plain", Some("gzip"), &bomb, 1024);
        assert_eq!(text.len(), 1024 + text::CUT_MARK.len());
    }

    #[test]
    fn a_gap_ends_the_text_but_not_the_size() {
        let mut body = Body::default();
        body.begin(Some(b"text/plain"), None);
        body.push(b"abc", 100);
        body.skip(1000);
        body.push(b"xyz", 100);
        let mut out = String::new();
        body.render(&mut out, 100, "text/plain");
        assert_eq!((body.size, out.as_str()), (1006, "abc... [TRUNCATED]"));
    }
}
