//! `px record`: what the probes see goes to a file, and nowhere else.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::config::{Capture, Config};
use super::ingest::{Ingest, Recorder};
use super::{Error, Shared, capture, watched};
use crate::identity::Identity;
use crate::probes::Helper;
use crate::probes::wire::Token;
use crate::sandbox;

/// How long the helper is waited for: loading and attaching takes a second or two.
const HELPER_PATIENCE: Duration = Duration::from_secs(30);

/// What `record` is told.
#[derive(Clone, Debug)]
pub struct RecordConfig {
    /// Who records.
    pub identity: Identity,
    /// The helper's socket.
    pub socket: PathBuf,
    /// What the helper wants to be shown.
    pub token: Token,
    /// The file, which is replaced.
    pub path: PathBuf,
    /// Privileges are given up like this. None: kept.
    pub sandbox: Option<sandbox::Config>,
}

/// What was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Records of the kernel, samples, ticks.
    pub inputs: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Records of the kernel.
    pub events: u64,
    /// Records that the ring had no room for.
    pub events_lost: u64,
}

/// Gives up privileges, then records until `shutdown`. Must be called while the process has one thread.
pub fn record(config: &RecordConfig, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<Recorded, Error> {
    let file = create(&config.path).map_err(|source| Error::Open { path: config.path.clone(), source })?;
    if let Some(sandbox) = &config.sandbox {
        sandbox::enter(sandbox)?;
    }
    let shared = Arc::new(Shared::new(&Config {
        capture: Capture::Helper { socket: config.socket.clone(), token: config.token.clone() },
        ..Config::new(config.identity.clone())
    }));
    let ingest = Ingest::without_core(Recorder::new(file)?, shared.clone());
    let first = Helper::connect(&config.socket, &config.token, HELPER_PATIENCE)?;
    let (stop, failed) = (CancellationToken::new(), CancellationToken::new());
    let ended = failed.clone();
    let thread = {
        let (socket, token) = (config.socket.clone(), config.token.clone());
        let (identity, stop) = (config.identity.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("pem-ingest".into());
        let work = move || watched(ended, || capture::run(ingest, &socket, &token, Some(first), &identity, &stop));
        thread.spawn(work).map_err(Error::Thread)?
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
    runtime.block_on(async {
        tokio::select! {
            () = shutdown => {}
            () = failed.cancelled() => {}
        }
    });
    stop.cancel();
    let ingest = thread.join().map_err(|_| Error::Ended("ingest"))??;
    let (inputs, bytes) = ingest.finish()?;
    let info = shared.info(&config.identity.id.as_str().into());
    Ok(Recorded { inputs, bytes, events: info.events, events_lost: info.events_lost })
}

/// Recordings hold what programs said to one another: for their owner alone, whatever could be read of the file before.
pub fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let found = file.metadata()?;
    // Made for us by who started us, it may be another's; then it has the right mode, which we could not change.
    if found.is_file() && found.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_could_read_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pxr");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let file = super::create(&path).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!((found.permissions().mode() & 0o777, found.len()), (0o600, 0));
    }
}
