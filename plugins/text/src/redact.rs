//! `redact_pii(text)`: what identifies people is replaced by what it was, as Pixie's function of that name does.

/// Letters and digits of a bank account number (IBAN), and digits of a card's number.
const IBAN_LEN: std::ops::RangeInclusive<usize> = 15..=34;
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// The text without them.
pub fn redact(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let (mut at, mut kept) = (0, 0);
    while at < bytes.len() {
        // Only where a word begins: `v1.2.3.4` is a version and no address.
        let begins = at == 0 || !word(bytes[at - 1]);
        let found = if begins && word(bytes[at]) { find(&bytes[at..]) } else { None };
        match found {
            Some((len, name)) => {
                out.push_str(&text[kept..at]);
                out.push_str(name);
                at += len;
                kept = at;
            }
            None => at += 1,
        }
    }
    out.push_str(&text[kept..]);
    out
}

fn find(bytes: &[u8]) -> Option<(usize, &'static str)> {
    let finders: [(fn(&[u8]) -> Option<usize>, &str); 5] = [
        (email, "<REDACTED_EMAIL>"),
        (mac, "<REDACTED_MAC_ADDR>"),
        (ipv4, "<REDACTED_IPV4>"),
        (iban, "<REDACTED_IBAN>"),
        (card, "<REDACTED_CC_NUMBER>"),
    ];
    finders.into_iter().find_map(|(finder, name)| Some((finder(bytes)?, name)))
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Ends here, and no word goes on.
fn ends(bytes: &[u8], len: usize) -> Option<usize> {
    bytes.get(len).is_none_or(|b| !word(*b)).then_some(len)
}

fn span(bytes: &[u8], of: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|b| of(**b)).count()
}

fn email(bytes: &[u8]) -> Option<usize> {
    let local = span(bytes, |b| b.is_ascii_alphanumeric() || b"._%+-".contains(&b));
    if local == 0 || bytes.get(local) != Some(&b'@') {
        return None;
    }
    let host = span(&bytes[local + 1..], |b| b.is_ascii_alphanumeric() || b".-".contains(&b));
    let name = &bytes[local + 1..local + 1 + host];
    // A full stop behind an address ends the sentence.
    let name = &name[..name.len() - name.iter().rev().take_while(|b| b".-".contains(b)).count()];
    let dot = name.iter().rposition(|b| *b == b'.')?;
    let top = &name[dot + 1..];
    (dot > 0 && top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic)).then_some(local + 1 + name.len())
}

fn ipv4(bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    for part in 0..4 {
        if part > 0 {
            if bytes.get(len) != Some(&b'.') {
                return None;
            }
            len += 1;
        }
        let digits = span(&bytes[len..], |b| b.is_ascii_digit());
        let number = std::str::from_utf8(&bytes[len..len + digits]).ok()?.parse::<u32>().ok()?;
        if digits > 3 || number > 255 {
            return None;
        }
        len += digits;
    }
    let goes_on = bytes.get(len) == Some(&b'.') && bytes.get(len + 1).is_some_and(u8::is_ascii_digit);
    if goes_on { None } else { ends(bytes, len) }
}

fn mac(bytes: &[u8]) -> Option<usize> {
    const LEN: usize = 17;
    let address = bytes.get(..LEN)?;
    let separator = address[2];
    let fits =
        address.iter().enumerate().all(|(i, b)| if i % 3 == 2 { *b == separator } else { b.is_ascii_hexdigit() });
    if fits && (separator == b':' || separator == b'-') { ends(bytes, LEN) } else { None }
}

fn iban(bytes: &[u8]) -> Option<usize> {
    let len = span(bytes, |b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let begins = bytes.get(..2)?.iter().all(u8::is_ascii_uppercase) && bytes.get(2..4)?.iter().all(u8::is_ascii_digit);
    if !begins || !IBAN_LEN.contains(&len) {
        return None;
    }
    // ISO 7064: the first four behind the rest, letters as two digits, modulo 97.
    let rest = bytes[4..len].iter().chain(&bytes[..4]).fold(0u32, |rest, b| match b {
        b'0'..=b'9' => (rest * 10 + u32::from(b - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
    });
    if rest == 1 { ends(bytes, len) } else { None }
}

fn card(bytes: &[u8]) -> Option<usize> {
    let (mut len, mut digits) = (0, Vec::new());
    while let Some(byte) = bytes.get(len) {
        match byte {
            b'0'..=b'9' => digits.push(byte - b'0'),
            // Groups are parted by one of these.
            b' ' | b'-' if bytes.get(len + 1).is_some_and(u8::is_ascii_digit) => {}
            _ => break,
        }
        if digits.len() > *CARD_DIGITS.end() {
            return None;
        }
        len += 1;
    }
    if !CARD_DIGITS.contains(&digits.len()) {
        return None;
    }
    // Luhn's sum.
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, digit)| {
            let weighed = u32::from(*digit) * if i % 2 == 1 { 2 } else { 1 };
            if weighed > 9 { weighed - 9 } else { weighed }
        })
        .sum();
    if sum % 10 == 0 { ends(bytes, len) } else { None }
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn what_identifies_people_is_replaced_and_the_rest_stays() {
        for (text, expected) in [
            ("", ""),
            ("nothing here", "nothing here"),
            ("mail jo.e+x@mail.example.org now.", "mail <REDACTED_EMAIL> now."),
            ("to a@b.co.", "to <REDACTED_EMAIL>."),
            ("from 10.0.0.1:80", "from <REDACTED_IPV4>:80"),
            ("v1.2.3.4 and 1.2.3.4.5 and 1.2.3.400", "v1.2.3.4 and 1.2.3.4.5 and 1.2.3.400"),
            ("mac 00:1a:2B:3c:4d:5e", "mac <REDACTED_MAC_ADDR>"),
            ("card=4111 1111 1111 1111;", "card=<REDACTED_CC_NUMBER>;"),
            ("4111111111111112", "4111111111111112"),
            ("DE89370400440532013000", "<REDACTED_IBAN>"),
            ("DE89370400440532013001", "DE89370400440532013001"),
            ("ünïcödé a@b.org ünï", "ünïcödé <REDACTED_EMAIL> ünï"),
        ] {
            assert_eq!(redact(text), expected, "{text}");
        }
    }
}
