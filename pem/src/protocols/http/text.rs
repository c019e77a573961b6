//! Text for the tables: headers as JSON, bytes made valid and cut.

use std::fmt::Write;

use httparse::Header;

/// Bytes of one JSON object of headers. Pixie's limit; a browser's cookies fit.
pub const HEADERS_BYTES_MAX: usize = 8192;

/// Appended to a text that was cut, as Pixie's scripts know it.
pub const CUT_MARK: &str = "... [TRUNCATED]";

/// Appends the headers as a JSON object: names as on the wire, sorted without regard to case, values of repeated names
/// joined by `, ` under the first spelling. What does not fit is left out and counted under the name `...`.
pub fn headers_json(out: &mut String, headers: &[Header<'_>]) {
    let mut few = [(0, 0); HEADERS_FEW];
    let mut many = Vec::new();
    let order = match few.get_mut(..headers.len()) {
        Some(order) => order,
        None => {
            many.resize(headers.len(), (0, 0));
            &mut many[..]
        }
    };
    for ((place, header), index) in order.iter_mut().zip(headers).zip(0..) {
        *place = (first_letters(header.name), index);
    }
    let name = |index: u16| headers.get(index as usize).map_or("", |h| h.name);
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| compare_names(name(a.1), name(b.1))).then(a.1.cmp(&b.1)));

    let begin = out.len();
    out.push('{');
    let mut last = "";
    let mut left_out = 0u32;
    for &mut (_, index) in order.iter_mut() {
        let Some(header) = headers.get(index as usize) else { continue };
        if header.name.is_empty() {
            continue;
        }
        if out.len() - begin + header.name.len() + header.value.len() + 8 > HEADERS_BYTES_MAX {
            left_out += 1;
            continue;
        }
        if !last.is_empty() && last.eq_ignore_ascii_case(header.name) {
            out.pop();
            out.push_str(", ");
        } else {
            out.push_str(if out.len() - begin > 1 { ",\"" } else { "\"" });
            // A token: nothing in it needs an escape.
            out.push_str(header.name);
            out.push_str("\":\"");
        }
        escape(out, header.value);
        out.push('"');
        last = header.name;
    }
    if left_out > 0 {
        let comma = if out.len() - begin > 1 { "," } else { "" };
        let _ = write!(out, "{comma}\"...\":\"{left_out} more\"");
    }
    out.push('}');
}

/// Headers that are sorted without an allocation: browsers send 10-20.
const HEADERS_FEW: usize = 32;

/// The first eight letters as a number that sorts as they do, without regard to case. They decide between nearly all
/// names. (Setting the case bit folds two rare pairs of signs as well, which the second comparison tells apart.)
fn first_letters(name: &str) -> u64 {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(name.as_bytes()) {
        *to = *from;
    }
    u64::from_be_bytes(first) | 0x2020_2020_2020_2020
}

fn compare_names(a: &str, b: &str) -> std::cmp::Ordering {
    a.bytes().map(|b| b.to_ascii_lowercase()).cmp(b.bytes().map(|b| b.to_ascii_lowercase()))
}

/// Appends bytes as the inside of a JSON string.
fn escape(out: &mut String, bytes: &[u8]) {
    let plain = bytes.iter().fold(true, |ok, &b| ok & (b >= 0x20) & (b < 0x7f) & (b != b'"') & (b != b'\\'));
    if plain && let Ok(text) = std::str::from_utf8(bytes) {
        out.push_str(text);
        return;
    }
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
}

/// Appends bytes as valid text, at most `max` bytes of it, with [`CUT_MARK`] when there was more.
pub fn lossy(out: &mut String, bytes: &[u8], max: usize, more: bool) {
    let kept = bytes.get(..max).unwrap_or(bytes);
    let cut = more || kept.len() < bytes.len();
    match std::str::from_utf8(kept) {
        Ok(text) => out.push_str(text),
        Err(error) => {
            // A character that the cut went through is dropped, not replaced.
            let whole = if cut && error.error_len().is_none() { error.valid_up_to() } else { kept.len() };
            out.push_str(&String::from_utf8_lossy(kept.get(..whole).unwrap_or(kept)));
        }
    }
    if cut {
        out.push_str(CUT_MARK);
    }
}

/// Whether bytes look like text: valid but for a cut at the end, and no control characters.
pub fn textual(bytes: &[u8]) -> bool {
    let valid = match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    valid && !bytes.iter().any(|&b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(headers: &[(&'static str, &'static [u8])]) -> String {
        let headers: Vec<_> = headers.iter().map(|&(name, value)| Header { name, value }).collect();
        let mut out = String::new();
        headers_json(&mut out, &headers);
        out
    }

    #[test]
    fn headers_are_sorted_and_repeats_are_joined() {
        assert_eq!(json(&[]), "{}");
        assert_eq!(
            json(&[("Host", b"a"), ("accept", b"x"), ("Set-Cookie", b"1"), ("ACCEPT", b"y"), ("set-cookie", b"2")]),
            r#"{"accept":"x, y","Host":"a","Set-Cookie":"1, 2"}"#
        );
    }

    #[test]
    fn headers_stay_valid_json_whatever_the_values() {
        let text = json(&[("A", b"q\"b\\c\x01\t"), ("B", &[0xff, b'x']), ("C", "h\u{e9}".as_bytes())]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["A"], "q\"b\\c\u{1}\t");
        assert_eq!(value["B"], "\u{fffd}x");
        assert_eq!(value["C"], "h\u{e9}");
    }

    #[test]
    fn headers_beyond_the_bound_are_counted() {
        let long: &'static [u8] = Box::leak(vec![b'x'; 6000].into_boxed_slice());
        let text = json(&[("a", long), ("b", long), ("c", b"1")]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["c"], "1");
        assert_eq!(value["..."], "1 more");
        assert!(text.len() <= HEADERS_BYTES_MAX + 32);
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        let mut out = String::new();
        lossy(&mut out, "aé".as_bytes(), 2, false);
        assert_eq!(out, "a... [TRUNCATED]");
        out.clear();
        lossy(&mut out, b"a\xffb", 10, false);
        assert_eq!(out, "a\u{fffd}b");
    }
}
