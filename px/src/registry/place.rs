//! `HOST/NAME`, `HOST/NAME:TAG`, `HOST/NAME@DIGEST`: places in registries.

use std::fmt;
use std::net::IpAddr;

use plugins_artifact::Digest;

/// Longest name; what registries take.
const NAME_BYTES_MAX: usize = 255;
/// Longest tag, as the specification has it.
const TAG_BYTES_MAX: usize = 128;

/// One repository of a registry, and perhaps one artifact in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As it was written, with the port.
    pub host: String,
    pub name: String,
    pub version: Option<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    Tag(String),
    Digest(Digest),
}

impl Place {
    /// Reads one; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Place, String> {
        let Some((host, rest)) = text.split_once('/') else { return Err("it names no registry".into()) };
        // Docker would take a name without a registry to its own; that is nobody's wish here.
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-' | b'[' | b']');
        if !host.bytes().all(plain) || !host.contains(['.', ':']) && host != "localhost" {
            return Err(format!("`{host}` is no host"));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(|e| e.message)?)),
            None => (rest, None),
        };
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        let part = |part: &str| {
            let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            end(part.bytes().next())
                && end(part.bytes().next_back())
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
        };
        if name.len() > NAME_BYTES_MAX || !name.split('/').all(part) {
            return Err(format!("`{name}` is no name: lower case letters, digits and . _ - / between them"));
        }
        let tag_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if let Some(tag) = tag
            && (tag.is_empty()
                || tag.len() > TAG_BYTES_MAX
                || tag.starts_with(['.', '-'])
                || !tag.bytes().all(tag_byte))
        {
            return Err(format!("`{tag}` is no tag: letters, digits, and . _ - after the first"));
        }
        // With both, the digest is what counts.
        let version = digest.map(Version::Digest).or_else(|| tag.map(|tag| Version::Tag(tag.into())));
        Ok(Place { host: host.into(), name: name.into(), version })
    }

    pub fn at_tag(&self, tag: impl Into<String>) -> Place {
        Place { version: Some(Version::Tag(tag.into())), ..self.clone() }
    }

    pub fn at_digest(&self, digest: &Digest) -> Place {
        Place { version: Some(Version::Digest(digest.clone())), ..self.clone() }
    }

    /// What a manifest is asked for by.
    pub fn reference(&self) -> &str {
        match &self.version {
            Some(Version::Tag(tag)) => tag,
            Some(Version::Digest(digest)) => digest.as_str(),
            None => "latest",
        }
    }

    /// Whether the registry is this machine's own.
    pub fn on_loopback(&self) -> bool {
        let name = match self.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => &self.host,
        };
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)?;
        match &self.version {
            Some(Version::Tag(tag)) => write!(f, ":{tag}"),
            Some(Version::Digest(digest)) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_whole_or_not_at_all() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for right in [
            "localhost/a",
            "localhost:5000/team/slow_posts",
            "host.example/a:7",
            &format!("host.example/a-b/c@{digest}"),
        ] {
            assert_eq!(Place::parse(right).unwrap().to_string(), right);
        }
        let both = Place::parse(&format!("host.example/a:1@{digest}")).unwrap();
        assert_eq!(both.reference(), digest);
        for wrong in [
            "slow_posts",
            "slow_posts:0.1.0",
            "team/slow_posts",
            "host.example/UPPER",
            "host.example/a:b:c",
            "host.example/",
            "host.example/a//b",
            "host.example/a/../b",
            "host.example/a:",
            "host.example/a:.x",
            "host.example/a@sha256:1",
            "host.example/a?n=1",
            "me@host.example/a",
            "/x",
        ] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_this_machine_is_on_loopback() {
        for (host, local) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("localhost.example:5000", false),
            ("127.0.0.1.example", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(Place::parse(&format!("{host}/a")).unwrap().on_loopback(), local, "{host}");
        }
    }
}
