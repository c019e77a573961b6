//! Who we are to a registry: the environment's word, or what `docker login` and its like left.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;

use crate::error::{Code, Error, Result};

/// Longest credentials file: a few hundred registries.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A name and its password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Those for a registry, if there are any.
    pub fn find(host: &str) -> Result<Option<Credentials>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let (Some(user), Some(password)) = (variable("PX_REGISTRY_USER"), variable("PX_REGISTRY_PASSWORD")) {
            return Ok(Some(Credentials { user, password }));
        }
        let docker = variable("DOCKER_CONFIG").map(PathBuf::from);
        let docker = docker.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".docker")));
        let path = variable("REGISTRY_AUTH_FILE").map(PathBuf::from).or(docker.map(|dir| dir.join("config.json")));
        let Some(path) = path else { return Ok(None) };
        let Ok(found) = std::fs::metadata(&path) else { return Ok(None) };
        if found.len() > FILE_BYTES_MAX {
            let what = path.display();
            return Err(Error::new(Code::Invalid, format!("{what} is too large for a file of credentials")));
        }
        let text = std::fs::read(&path).map_err(|e| Error::io(format!("read {}", path.display()), &e))?;
        from_file(&text, host).map_err(|why| Error::new(Code::Invalid, format!("{}: {why}", path.display())))
    }

    /// The header that says so.
    pub fn header(&self) -> HeaderValue {
        let word = STANDARD.encode(format!("{}:{}", self.user, self.password));
        let mut header = HeaderValue::try_from(format!("Basic {word}")).expect("base64 is ASCII");
        header.set_sensitive(true);
        header
    }
}

fn from_file(text: &[u8], host: &str) -> std::result::Result<Option<Credentials>, String> {
    #[derive(Deserialize, Default)]
    struct File {
        #[serde(default)]
        auths: BTreeMap<String, Auth>,
    }
    #[derive(Deserialize, Default)]
    struct Auth {
        #[serde(default)]
        auth: String,
    }
    let file: File = serde_json::from_slice(text).map_err(|e| format!("malformed: {e}"))?;
    // Docker's own registry has another name in that file.
    let host = if host == "docker.io" { "index.docker.io" } else { host };
    let entry = file.auths.iter().find(|(name, _)| {
        let name = name.trim_start_matches("https://").trim_start_matches("http://");
        name.split('/').next() == Some(host)
    });
    let Some(auth) = entry.map(|(_, entry)| &entry.auth).filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let decoded = STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => {
            Ok(Some(Credentials { user: user.into(), password: password.trim_end_matches('\0').into() }))
        }
        None => Err(format!("the entry for {host} is damaged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_of_the_host() {
        let file = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"eDp5"},"host.example:5000":{"auth":"bWU6c2VjcmV0"}},"credsStore":"x"}"#;
        let found = |host: &str| from_file(file, host).unwrap().map(|c| (c.user, c.password));
        assert_eq!(found("host.example:5000"), Some(("me".into(), "secret".into())));
        assert_eq!(found("docker.io"), Some(("x".into(), "y".into())));
        assert_eq!(found("host.example"), None);
        assert!(from_file(b"{", "x").is_err());
        assert!(from_file(br#"{"auths":{"x":{"auth":"%"}}}"#, "x").unwrap_err().contains("damaged"));
    }

    #[test]
    fn a_password_is_not_shown() {
        let credentials = Credentials { user: "me".into(), password: "secret".into() };
        assert_eq!(credentials.header(), "Basic bWU6c2VjcmV0");
        assert!(!format!("{credentials:?} {:?}", credentials.header()).contains("bWU6"));
    }
}
