//! `path_pattern(path)`: what requests of one kind have in common.

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::dictionary;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PathPattern {
    signature: Signature,
}

impl Default for PathPattern {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for PathPattern {
    fn name(&self) -> &str {
        "path_pattern"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        dictionary::returns(self.name(), &arguments[0])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        dictionary::map(self.name(), &args.args[0], &pattern)
    }
}

/// Segments longer than this are ids of some kind: words are shorter.
const WORD_CHARS_MAX: usize = 32;
/// Hex strings from this length on are ids; shorter ones may be words (`cafe`, `feed`, `add`).
const HEX_CHARS_MIN: usize = 8;
/// From this length on, letters mixed with this many digits are a token (`a1b2c3d4e5`, `user1234567`).
const TOKEN_CHARS_MIN: usize = 10;
const TOKEN_DIGITS_MIN: usize = 3;

fn pattern(path: &str, out: &mut String) {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    for (i, segment) in path.split('/').enumerate() {
        if i > 0 {
            out.push('/');
        }
        out.push_str(if identifies(segment) { "*" } else { segment });
    }
}

/// Whether a segment names one thing rather than a kind of thing.
fn identifies(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    if bytes.is_empty() {
        return false;
    }
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let punctuation = |b: &u8| matches!(b, b'-' | b'_' | b'.' | b':' | b',' | b'+' | b'~' | b'%');
    // 17, -3, 1.2.3, 2024-05-01, 10.0.0.1:80
    if digits > 0 && bytes.iter().all(|b| b.is_ascii_digit() || punctuation(b)) {
        return true;
    }
    // uuids and other ids in hex, with or without dashes
    let hex = bytes.iter().filter(|b| b.is_ascii_hexdigit()).count();
    let dashes = bytes.iter().filter(|b| **b == b'-').count();
    if hex + dashes == bytes.len() && hex >= HEX_CHARS_MIN && digits > 0 {
        return true;
    }
    if segment.chars().count() > WORD_CHARS_MAX && !segment.contains(['-', '_', '.']) {
        return true;
    }
    // Long and with many digits; a file name's extension and version (`app.4f2a.js`, `v2`) do not count.
    let plain = bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'='));
    plain && bytes.len() >= TOKEN_CHARS_MIN && digits >= TOKEN_DIGITS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_stars_and_words_stay() {
        for (path, expected) in [
            ("/", "/"),
            ("", ""),
            ("/api/v1/items/17", "/api/v1/items/*"),
            ("/api/v1/items/17/", "/api/v1/items/*/"),
            ("/orders/550e8400-e29b-41d4-a716-446655440000/lines?page=3", "/orders/*/lines"),
            ("/blob/deadbeefcafe0123", "/blob/*"),
            ("/feed/cafe/add", "/feed/cafe/add"),
            ("/reports/2024-05-01", "/reports/*"),
            ("/u/a1b2c3d4e5f6g7", "/u/*"),
            ("/static/app.js#top", "/static/app.js"),
            ("/product-categories/garden-furniture", "/product-categories/garden-furniture"),
            ("/t/eyJhbGciOiJIUzI1NiJ9eyJzdWIiOiIxMjM0NTY3ODkwIn0", "/t/*"),
            ("/users/ünïcödé", "/users/ünïcödé"),
            ("*", "*"),
        ] {
            let mut out = String::new();
            pattern(path, &mut out);
            assert_eq!(out, expected, "{path}");
        }
    }
}
