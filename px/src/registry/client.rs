//! The HTTP below: who we are, where answers really lie, and how much of them is read.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tokio::time::timeout;

use super::challenge::Challenge;
use super::credentials::Credentials;
use super::place::Place;
use crate::error::{Code, Error, Result};
use crate::output::text::sanitize;

/// A registry that is there takes the connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A registry may store a blob before it answers; one that says nothing for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes of an upload for each further second: a quarter of a Mbit/s, slower than what anybody would wait for.
const UPLOAD_BYTES_PER_S: u64 = 32 << 10;
/// Registries send on to where their blobs lie, and that perhaps to a mirror.
const REDIRECTS_MAX: usize = 5;
/// What is read of an error or a token. They have some KiB.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// What is told of an error that is no JSON.
const TOLD_CHARS: usize = 200;

/// A question.
pub struct Ask<'a> {
    pub method: Method,
    /// A path, or what an answer named.
    pub uri: Uri,
    pub accept: &'a str,
    /// Type and bytes of what is sent.
    pub content: Option<(&'a str, Bytes)>,
    /// Most that is read of a good answer.
    pub bytes_max: usize,
}

impl Ask<'_> {
    pub fn of(method: Method, uri: Uri) -> Self {
        Ask { method, uri, accept: "*/*", content: None, bytes_max: SMALL_BYTES_MAX }
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Where it came from.
    pub uri: Uri,
}

/// What registries answer when they refuse.
#[derive(Deserialize)]
struct Refusal {
    errors: Vec<RefusalEntry>,
}

#[derive(Deserialize)]
struct RefusalEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// One registry, spoken to about one repository.
pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    host: String,
    name: String,
    scheme: Scheme,
    authority: Authority,
    credentials: Option<Credentials>,
    /// What the registry took last.
    authorization: Mutex<Option<HeaderValue>>,
    /// A token for writing is wanted, whatever the question says.
    writes: AtomicBool,
}

impl Client {
    pub fn new(place: &Place, plain: bool) -> Result<Client> {
        // The one set of ciphers that this program has. Set already is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.enforce_http(false);
        let tls = if plain {
            // Needs no certificates, and a machine may have none.
            let roots = rustls::RootCertStore::empty();
            rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
        } else {
            let found = rustls_native_certs::load_native_certs();
            let mut roots = rustls::RootCertStore::empty();
            if roots.add_parsable_certificates(found.certs).0 == 0 {
                return Err(Error::new(Code::NotFound, "this machine has no certificates to check registries with")
                    .hint("install ca-certificates, or set SSL_CERT_FILE to a file of them"));
            }
            rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
        };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
        // Docker's own registry listens under another name than people write.
        let authority = if place.host == "docker.io" { "registry-1.docker.io" } else { &place.host };
        let authority = authority.parse().map_err(|_| Error::usage(format!("`{}` is no host and port", place.host)))?;
        Ok(Client {
            http: legacy::Client::builder(TokioExecutor::new()).build(connector),
            host: place.host.clone(),
            name: place.name.clone(),
            scheme: if plain { Scheme::HTTP } else { Scheme::HTTPS },
            authority,
            credentials: Credentials::find(&place.host)?,
            authorization: Mutex::default(),
            writes: AtomicBool::new(false),
        })
    }

    /// From now on things are written.
    pub fn will_write(&self) {
        self.writes.store(true, Ordering::Relaxed);
    }

    /// `/v2/NAME/…`
    pub fn path(&self, rest: &str) -> Uri {
        let path = format!("{}://{}/v2/{}/{rest}", self.scheme, self.authority, self.name);
        path.parse().expect("names, tags and digests hold only what a path may")
    }

    /// Where an answer points to.
    pub fn location(&self, answer: &Answer) -> Result<Uri> {
        let text = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let wrong = || {
            let shown: String = text.chars().take(TOLD_CHARS).collect();
            Error::new(Code::Invalid, format!("the registry {} points to nowhere: `{}`", self.host, sanitize(&shown)))
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let uri = match (uri.authority(), answer.uri.scheme(), answer.uri.authority()) {
            (Some(_), ..) => uri,
            (None, Some(scheme), Some(authority)) if text.starts_with('/') => {
                format!("{scheme}://{authority}{text}").parse().map_err(|_| wrong())?
            }
            _ => return Err(wrong()),
        };
        self.allowed(&uri).then_some(uri).ok_or_else(wrong)
    }

    /// What began encrypted stays so.
    fn allowed(&self, uri: &Uri) -> bool {
        uri.scheme() == Some(&Scheme::HTTPS) || uri.scheme() == Some(&Scheme::HTTP) && self.scheme == Scheme::HTTP
    }

    fn own(&self, uri: &Uri) -> bool {
        uri.scheme() == Some(&self.scheme) && uri.authority() == Some(&self.authority)
    }

    /// Asks, as whom the registry wants, wherever it sends us.
    pub async fn send(&self, mut ask: Ask<'_>) -> Result<Answer> {
        let (mut authorized, mut redirects) = (false, 0);
        loop {
            let authorization = match self.own(&ask.uri) {
                true => self.authorization.lock().expect("no panic while it is held").clone(),
                // Passwords and tokens are for the registry alone.
                false => None,
            };
            let answer = self.once(&ask, authorization).await?;
            if answer.status == StatusCode::UNAUTHORIZED && !authorized && self.own(&ask.uri) {
                authorized = true;
                if self.authorize(&answer.headers).await? {
                    continue;
                }
            }
            let asks_only = ask.method == Method::GET || ask.method == Method::HEAD;
            if answer.status.is_redirection() && asks_only && answer.headers.contains_key(LOCATION) {
                redirects += 1;
                if redirects > REDIRECTS_MAX {
                    return Err(Error::new(Code::Invalid, format!("the registry {} sends us in circles", self.host)));
                }
                ask.uri = self.location(&answer)?;
                continue;
            }
            return Ok(answer);
        }
    }

    /// Becomes somebody whom the registry may know. False: there is nobody to become.
    async fn authorize(&self, headers: &HeaderMap) -> Result<bool> {
        let header = match Challenge::find(headers) {
            None => return Ok(false),
            Some(Challenge::Basic) => self.credentials.as_ref().map(Credentials::header),
            Some(Challenge::Bearer { realm, service, scope }) => self.token(&realm, service, scope).await?,
        };
        let known = header.is_some();
        *self.authorization.lock().expect("no panic while it is held") = header;
        Ok(known)
    }

    async fn token(&self, realm: &str, service: Option<String>, scope: Option<String>) -> Result<Option<HeaderValue>> {
        let wrong = |why: &str| {
            Error::new(Code::Invalid, format!("the registry {} wants a token that cannot be had: {why}", self.host))
        };
        let scope = match self.writes.load(Ordering::Relaxed) {
            true => Some(format!("repository:{}:pull,push", self.name)),
            false => scope,
        };
        let mut text = realm.to_owned();
        for (name, value) in [("service", service), ("scope", scope)] {
            if let Some(value) = value {
                text.push(if text.contains('?') { '&' } else { '?' });
                text.push_str(name);
                text.push('=');
                text.push_str(&escaped(&value));
            }
        }
        let uri: Uri = text.parse().map_err(|_| wrong("its place is malformed"))?;
        if !self.allowed(&uri) || uri.authority().is_none() {
            return Err(wrong("the password would be sent in the clear"));
        }
        let answer = self.once(&Ask::of(Method::GET, uri), self.credentials.as_ref().map(Credentials::header)).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
            status => return Err(wrong(&format!("its server says {status}"))),
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let token: Token = serde_json::from_slice(&answer.body).map_err(|_| wrong("its server gives no JSON"))?;
        let token = token.token.or(token.access_token).ok_or_else(|| wrong("its server gives none"))?;
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let mut header = header.map_err(|_| wrong("its server gives no text"))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    async fn once(&self, ask: &Ask<'_>, authorization: Option<HeaderValue>) -> Result<Answer> {
        let mut request = Request::builder().method(&ask.method).uri(&ask.uri).header(ACCEPT, ask.accept);
        request = request.header(USER_AGENT, concat!("px/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let mut body = Bytes::new();
        if let Some((media_type, bytes)) = &ask.content {
            request = request.header(CONTENT_TYPE, *media_type);
            body = bytes.clone();
        }
        if ask.method != Method::GET && ask.method != Method::HEAD {
            request = request.header(CONTENT_LENGTH, body.len());
        }
        let patience = SILENCE_MAX + Duration::from_secs(body.len() as u64 / UPLOAD_BYTES_PER_S);
        let request = request.body(Full::new(body)).map_err(|e| Error::internal(format!("no request: {e}")))?;
        let answered = timeout(patience, self.http.request(request)).await.map_err(|_| self.silent())?;
        let (head, mut body) = answered.map_err(|e| self.unreachable(&ask.uri, &e))?.into_parts();
        let good = head.status.is_success();
        let bytes_max = if good { ask.bytes_max } else { SMALL_BYTES_MAX };
        let mut bytes = BytesMut::new();
        while let Some(frame) = timeout(SILENCE_MAX, body.frame()).await.map_err(|_| self.silent())? {
            let frame = frame.map_err(|e| {
                Error::new(Code::Unavailable, format!("the registry {} broke off: {}", self.host, innermost(&e)))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > bytes_max {
                if !good {
                    break;
                }
                let what = format!("the registry {} sends more than the {bytes_max} bytes there may be", self.host);
                return Err(Error::new(Code::Invalid, what));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Answer { status: head.status, headers: head.headers, body: bytes.freeze(), uri: ask.uri.clone() })
    }

    fn silent(&self) -> Error {
        Error::new(Code::Unavailable, format!("the registry {} says nothing", self.host))
            .hint("check the network between, and whether the registry is well")
    }

    fn unreachable(&self, uri: &Uri, error: &legacy::Error) -> Error {
        let host = uri.authority().filter(|_| !self.own(uri)).map_or(self.host.as_str(), Authority::as_str);
        let why = innermost(error);
        if !error.is_connect() {
            return Error::new(Code::Unavailable, format!("the registry {host} broke off: {why}"));
        }
        let hint = if why.contains("InvalidContentType") || why.contains("corrupt message") {
            "it speaks http: add --plain-http if that is what you want"
        } else if why.contains("certificate") {
            "for a registry with a certificate of your own, set SSL_CERT_FILE to who signed it"
        } else {
            "check the host and port, and whether the registry runs"
        };
        Error::new(Code::Unavailable, format!("no registry answers at {host}: {why}")).hint(hint)
    }

    /// What a refusal means. `what` is what it was about.
    pub fn refused(&self, what: &Place, answer: &Answer) -> Error {
        let host = &self.host;
        let told = serde_json::from_slice::<Refusal>(&answer.body).ok().and_then(|r| r.errors.into_iter().next());
        let code = told.as_ref().map(|entry| entry.code.as_str()).unwrap_or_default();
        match (answer.status, code) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) | (_, "UNAUTHORIZED" | "DENIED") => {
                let who = if self.credentials.is_none() { "without credentials" } else { "with these credentials" };
                Error::new(Code::Denied, format!("the registry {host} does not allow it {who}")).hint(format!(
                    "set PX_REGISTRY_USER and PX_REGISTRY_PASSWORD, or sign in with a tool that writes \
                     ~/.docker/config.json:\ndocker login {host}"
                ))
            }
            (StatusCode::NOT_FOUND, _) => Error::new(Code::NotFound, format!("{what} is not in the registry"))
                .hint("check the name and the tag; px plugin push puts it there"),
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                Error::new(Code::Unavailable, format!("the registry {host} was asked too often; wait a while"))
            }
            (status, _) => {
                let told = match told {
                    Some(entry) => format!("{} {}", entry.code, entry.message),
                    None => String::from_utf8_lossy(&answer.body).into_owned(),
                };
                let told: String = told.chars().take(TOLD_CHARS).collect();
                let code = if status.is_server_error() { Code::Unavailable } else { Code::Invalid };
                Error::new(code, format!("the registry {host} says {status}: {}", sanitize(told.trim())))
            }
        }
    }
}

/// A value of a query.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b',' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<io::Error>() {
        Some(source) => crate::error::plain(source),
        None => innermost.to_string(),
    }
}
