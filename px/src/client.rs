//! The way to Vizier: which address, how to connect, and what a gRPC status means to the person who waits.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use vizier_api::client::VizierClient;

use crate::error::{Code, Error, Result, plain};
use crate::paths;

pub type Client = VizierClient<Channel>;

/// A Vizier on this machine answers in microseconds, one across a slow network within this; longer means that it is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A Vizier that hangs, or a network that swallows packets, is noticed within the sum of both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a Vizier listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp(Uri),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("`{text}` is no address: write it as unix:/path/to.sock or http://host:port");
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(wrong()) } else { Ok(Address::Unix(path.into())) };
        }
        if text.starts_with('/') || text.starts_with("./") {
            return Ok(Address::Unix(text.into()));
        }
        let uri: Uri =
            if text.contains("://") { text.parse() } else { format!("http://{text}").parse() }.map_err(|_| wrong())?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(_)) => Ok(Address::Tcp(uri)),
            (Some("https"), _) => {
                Err("https:// to Vizier is not supported yet: use a Unix socket or an SSH tunnel".into())
            }
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(uri) => write!(f, "{uri}"),
        }
    }
}

/// Connects to the Vizier that was named, or to the one that runs on this machine.
pub async fn connect(address: Option<&Address>) -> Result<Client> {
    match address {
        Some(Address::Unix(path)) => {
            probe(path).map_err(|e| unreachable_socket(path, &e, true))?;
            unix(path).await
        }
        Some(Address::Tcp(uri)) => tcp(uri).await,
        None => unix(&discover()?).await,
    }
}

/// The first socket somebody answers on; otherwise why the likeliest one did not.
pub fn discover() -> Result<PathBuf> {
    let mut refused: Option<(PathBuf, io::Error)> = None;
    for path in paths::sockets() {
        match probe(&path) {
            Ok(()) => return Ok(path),
            Err(e) => {
                // A socket that is there but closed to us says more than one that is missing.
                let better = e.kind() == io::ErrorKind::PermissionDenied;
                if refused.is_none() || better {
                    refused = Some((path, e));
                }
            }
        }
    }
    let (path, error) = refused.unwrap_or_else(|| (paths::runtime_dir(), io::ErrorKind::NotFound.into()));
    Err(unreachable_socket(&path, &error, false))
}

fn probe(path: &Path) -> io::Result<()> {
    StdUnixStream::connect(path).map(drop)
}

fn unreachable_socket(path: &Path, error: &io::Error, named: bool) -> Error {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let hint = match paths::owner(path) {
                Some(uid) => {
                    format!("it belongs to {0}: run px as {0} (sudo -u {0} px …) or as root", paths::user_name(uid))
                }
                None => "run px as the user who started px up, or as root".to_owned(),
            };
            Error::new(Code::Denied, format!("a Vizier is running, but you may not use its socket {shown}")).hint(hint)
        }
        _ if !named => Error::new(Code::Unavailable, "no Vizier is running on this machine")
            .hint("start one with: px up\nor name one elsewhere: px --vizier http://host:port …"),
        io::ErrorKind::NotFound => {
            Error::new(Code::Unavailable, format!("there is no socket at {shown}")).hint("start Pyxis with: px up")
        }
        io::ErrorKind::ConnectionRefused => {
            Error::new(Code::Unavailable, format!("nobody answers at {shown}: the Vizier that made it has ended"))
                .hint("start Pyxis with: px up")
        }
        _ => Error::new(Code::Unavailable, format!("cannot connect to {shown}: {}", plain(error))),
    }
}

async fn unix(path: &Path) -> Result<Client> {
    let owned = path.to_owned();
    let connector = service_fn(move |_: Uri| {
        let path = owned.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = endpoint("http://vizier.local".parse().expect("a constant address"))
        .connect_with_connector(connector)
        .await
        .map_err(|e| Error::new(Code::Unavailable, format!("cannot connect to {}: {}", path.display(), chain(&e))))?;
    Ok(client(channel))
}

async fn tcp(uri: &Uri) -> Result<Client> {
    let channel = endpoint(uri.clone()).connect().await.map_err(|e| {
        Error::new(Code::Unavailable, format!("no Vizier answers at {uri}: {}", chain(&e)))
            .hint("check the address; Vizier listens on TCP only when px up was given --listen")
    })?;
    Ok(client(channel))
}

fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .user_agent(concat!("px/", env!("CARGO_PKG_VERSION")))
        .expect("a constant user agent")
}

fn client(channel: Channel) -> Client {
    VizierClient::new(channel)
        .max_decoding_message_size(vizier_api::RESPONSE_BYTES_MAX)
        .max_encoding_message_size(vizier_api::REQUEST_BYTES_MAX)
}

/// The innermost cause says what happened; the outer ones say "transport error".
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<io::Error>() {
        Some(source) => plain(source),
        None => innermost.to_string(),
    }
}

/// What a gRPC status means here; `pyxis-hint-bin` carries what to do.
pub fn status(status: Status) -> Error {
    use tonic::Code as Grpc;
    let code = match status.code() {
        Grpc::InvalidArgument | Grpc::FailedPrecondition | Grpc::OutOfRange | Grpc::AlreadyExists => Code::Invalid,
        Grpc::NotFound => Code::NotFound,
        Grpc::PermissionDenied | Grpc::Unauthenticated => Code::Denied,
        Grpc::ResourceExhausted => Code::Exhausted,
        Grpc::DeadlineExceeded => Code::TimedOut,
        Grpc::Cancelled | Grpc::Aborted => Code::Cancelled,
        Grpc::Unavailable => Code::Unavailable,
        Grpc::Unimplemented => {
            return Error::new(Code::Invalid, "this Vizier does not know that request")
                .hint("px and Vizier are of different versions: compare px version with px agents");
        }
        _ => Code::Internal,
    };
    let hint = status.metadata().get_bin(vizier_api::HINT_KEY).and_then(|value| value.to_bytes().ok());
    let hint = hint.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.is_empty());
    let lost = std::error::Error::source(&status).map(|_| chain(&status));
    let message = match (status.message(), lost) {
        // What hyper and h2 say about a broken connection means little to a person.
        (_, Some(why)) if matches!(code, Code::Unavailable | Code::Internal) => {
            return Error::new(Code::Unavailable, format!("the connection to Vizier was lost: {why}"))
                .hint("px agents tells whether it is back");
        }
        ("", _) => format!("{:?}", status.code()).to_lowercase(),
        (message, _) => message.to_owned(),
    };
    Error::new(code, message).hint_some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_typed() {
        let ok = |text: &str| text.parse::<Address>().map(|a| a.to_string());
        assert_eq!(ok("unix:/run/x.sock").unwrap(), "unix:/run/x.sock");
        assert_eq!(ok("unix:///run/x.sock").unwrap(), "unix:/run/x.sock");
        assert_eq!(ok("/run/x.sock").unwrap(), "unix:/run/x.sock");
        assert_eq!(ok("http://host:1234").unwrap(), "http://host:1234/");
        assert_eq!(ok("127.0.0.1:1234").unwrap(), "http://127.0.0.1:1234/");
        for wrong in ["", "unix:", "ftp://x", "https://x", "http://"] {
            assert!(ok(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_status_keeps_its_hint_and_decides_the_exit_code() {
        let mut denied = Status::permission_denied("no");
        denied.metadata_mut().insert_bin(vizier_api::HINT_KEY, tonic::metadata::MetadataValue::from_bytes(b"ask"));
        let error = status(denied);
        assert_eq!((error.hint.as_deref(), error.exit().code()), (Some("ask"), 4));
        assert_eq!(status(Status::deadline_exceeded("late")).exit().code(), 124);
        assert_eq!(status(Status::not_found("x")).exit().code(), 1);
    }
}
