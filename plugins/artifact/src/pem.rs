//! The text form of keys (RFC 7468): base64 between two lines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::Error;

/// Longest file that can hold a key of a kind known here; these take 120 to 250 bytes.
pub const BYTES_MAX: usize = 16 << 10;
const LINE_LEN: usize = 64;

pub fn encode(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(LINE_LEN) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// The first block of `text`: its label and content.
pub fn decode(text: &str) -> Result<(&str, Vec<u8>), Error> {
    let no_key = || Error::invalid("this is no key: it has no PEM block").hint("px plugin keygen makes a pair of keys");
    if text.len() > BYTES_MAX {
        return Err(Error::invalid(format!("a key of {} bytes is none", text.len())));
    }
    let rest = text.split_once("-----BEGIN ").ok_or_else(no_key)?.1;
    let (label, rest) = rest.split_once("-----").ok_or_else(no_key)?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----")).ok_or_else(no_key)?;
    let base64: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(base64).map_err(|e| Error::invalid(format!("the key is damaged: {e}")))?;
    Ok((label, der))
}
