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
use super::{Error, Shared, capture};
use crate::identity::Identity;
use crate::probes::Helper;
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
        capture: Capture::Helper { socket: config.socket.clone() },
        ..Config::new(config.identity.clone())
    }));
    let ingest = Ingest::without_core(Recorder::new(file)?, shared.clone());
    let first = Helper::connect(&config.socket, HELPER_PATIENCE)?;
    let stop = CancellationToken::new();
    let thread = {
        let (socket, identity, stop) = (config.socket.clone(), config.identity.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("pem-ingest".into());
        thread
            .spawn(move || capture::run(ingest, &socket, Some(first), None, &identity, &stop))
            .map_err(Error::Thread)?
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
    runtime.block_on(shutdown);
    stop.cancel();
    let ingest = thread.join().map_err(|_| Error::Thread(io::Error::other("the ingest thread ended badly")))?;
    let (inputs, bytes) = ingest.finish()?;
    let info = shared.info(&config.identity.id.as_str().into());
    Ok(Recorded { inputs, bytes, events: info.events, events_lost: info.events_lost })
}

/// Recordings hold what programs said to one another: for their owner alone.
pub fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}
