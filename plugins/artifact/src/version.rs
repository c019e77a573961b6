//! Versions of plugins, ordered as semantic versioning has it.

use std::cmp::Ordering;
use std::fmt;

use crate::error::Error;
use crate::oci::shown;

/// `1.2.3`, `1.2.3-rc.1`. What follows a `+` does not count.
#[derive(Clone, Debug)]
pub struct Version {
    numbers: [u64; 3],
    pre: Vec<Part>,
    text: String,
}

/// Numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl Version {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::invalid(format!("the version `{}` is none", shown(text)))
                .hint("write version = \"1.2.3\" in plugin.toml: three numbers, as semantic versioning has it")
        };
        let plain = |part: &str| {
            !part.is_empty() && part.len() <= 64 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let number = |part: &str| {
            let good = part == "0" || !part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit());
            if good { part.parse::<u64>().map_err(|_| wrong()) } else { Err(wrong()) }
        };
        let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
        if text.len() > 128 || build.is_some_and(|build| !build.split('.').all(plain)) {
            return Err(wrong());
        }
        let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
        let numbers = core.split('.').map(number).collect::<Result<Vec<_>, _>>()?;
        let numbers: [u64; 3] = numbers.try_into().map_err(|_| wrong())?;
        let mut parts = Vec::new();
        for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
            parts.push(match part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty() {
                true => Part::Number(number(part)?),
                false if plain(part) => Part::Word(part.to_owned()),
                false => return Err(wrong()),
            });
        }
        Ok(Self { numbers, pre: parts, text: text.to_owned() })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        // What is before a release is less than it.
        let released = |version: &Self| version.pre.is_empty();
        let numbers = self.numbers.cmp(&other.numbers);
        numbers.then_with(|| released(self).cmp(&released(other))).then_with(|| self.pre.cmp(&other.pre))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_semantic_versioning() {
        let ordered = [
            "0.9.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.10.0",
            "2.0.0",
        ];
        let versions: Vec<Version> = ordered.iter().map(|text| Version::parse(text).unwrap()).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        assert_eq!(Version::parse("1.0.0+a").unwrap(), Version::parse("1.0.0+b").unwrap());
        for wrong in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "1.2.-3"]
        {
            assert!(Version::parse(wrong).is_err(), "{wrong}");
        }
    }
}
