//! Where clients reach Vizier: a Unix socket with a mode, or TCP. Says what to do when the place is taken.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Longest path a Unix socket address holds (`sun_path` without its terminating zero).
const PATH_BYTES_MAX: usize = 107;
/// A listener answers a local connect at once; one that does not within this is stuck, but alive.
const PROBE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// Taking a socket takes as long as [`PROBE_TIMEOUT`] at most; one of several waits for the others.
const LOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Why nobody can be listened to.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process answers there.
    #[error("another Vizier already answers on {}; stop it, or choose another path with --socket", .0.display())]
    Answered(PathBuf),
    /// Another process holds the folder's lock and does not give it back.
    #[error("the folder of {} is locked by another process; wait for it, or choose another path with --socket", .0.display())]
    Locked(PathBuf),
    /// Something that is not a socket.
    #[error("{} exists and is no socket; remove it, or choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
    /// Longer than the kernel takes.
    #[error("the socket path {} has {} bytes, the kernel takes at most {PATH_BYTES_MAX}; choose a shorter one with --socket", .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// Not ours to write.
    #[error("cannot make the socket {}; its folder must exist and be writable for this user", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The port is in use.
    #[error("port {} on {} is taken; stop what listens there (`ss -ltnp 'sport = :{}'` names it) or choose another", .0.port(), .0.ip(), .0.port())]
    PortTaken(SocketAddr),
    /// Some other failure of TCP.
    #[error("cannot listen on {addr}")]
    Tcp {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A Unix socket and the path it will be removed from.
#[derive(Debug)]
pub struct Unix {
    listener: UnixListener,
    path: RemoveOnDrop,
}

impl Unix {
    /// What accepts clients, and what removes the path when it is dropped.
    pub fn into_parts(self) -> (UnixListener, RemoveOnDrop) {
        (self.listener, self.path)
    }
}

/// Listens on a Unix socket that only its owner (and `group`, if given) may connect to. A path left over from a process that
/// died is taken over; one that somebody answers on is not.
pub async fn unix(path: &Path, group: Option<u32>) -> Result<Unix, Error> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(Error::TooLong(path.to_owned()));
    }
    // Two that start at the same moment would both find a socket that nobody answers on, and the second would remove the first's.
    let _alone = alone(path).await?;
    clear_stale(path).await?;
    let bind = |source| Error::Bind { path: path.to_owned(), source };
    // Made under another name and given its mode there, so that there is no moment at which others may connect.
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}", std::process::id()));
    // The longer name may not fit; then the mode is set a moment after the bind, in the folder the user chose.
    let first = if hidden.len() <= PATH_BYTES_MAX { PathBuf::from(&hidden) } else { path.to_owned() };
    let _ = fs::remove_file(&first);
    let listener = UnixListener::bind(&first).map_err(bind)?;
    let guard = RemoveOnDrop(first.clone());
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(&first, fs::Permissions::from_mode(mode)).map_err(bind)?;
    if let Some(gid) = group {
        std::os::unix::fs::chown(&first, None, Some(gid)).map_err(bind)?;
    }
    if first != path {
        fs::rename(&first, path).map_err(bind)?;
    }
    guard.forget();
    Ok(Unix { listener, path: RemoveOnDrop(path.to_owned()) })
}

/// The folder's lock, held while a socket in it is looked at and taken. Nothing is left of it.
async fn alone(path: &Path) -> Result<fs::File, Error> {
    let bind = |source| Error::Bind { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs::File::open(folder).map_err(bind)?;
    let until = tokio::time::Instant::now() + LOCK_TIMEOUT;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(fs::TryLockError::WouldBlock) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(fs::TryLockError::WouldBlock) => return Err(Error::Locked(path.to_owned())),
            Err(fs::TryLockError::Error(e)) => return Err(bind(e)),
        }
    }
}

async fn clear_stale(path: &Path) -> Result<(), Error> {
    let bind = |source| Error::Bind { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(bind(e)),
        Ok(found) if !found.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match tokio::time::timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(bind),
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(e)) => Err(bind(e)),
        Ok(Ok(_)) | Err(_) => Err(Error::Answered(path.to_owned())),
    }
}

/// Listens on TCP.
pub async fn tcp(addr: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortTaken(addr),
        _ => Error::Tcp { addr, source },
    })
}

/// A path of ours that goes with us.
#[derive(Debug)]
pub struct RemoveOnDrop(PathBuf);

impl RemoveOnDrop {
    fn forget(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_taken_over_and_a_live_one_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("vizier.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = unix(&path, None).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let error = unix(&path, None).await.unwrap_err();
        assert!(matches!(error, Error::Answered(_)), "{error}");
        drop(live);
        assert!(!path.exists(), "the path goes with the listener");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_that_start_at_the_same_moment_one_has_the_socket() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("vizier.sock");
        for _ in 0..20 {
            // Left by one that died: each of them would remove it.
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let start = std::sync::Arc::new(tokio::sync::Barrier::new(4));
            let starting: Vec<_> = (0..4)
                .map(|_| {
                    let (path, start) = (path.clone(), start.clone());
                    tokio::spawn(async move {
                        start.wait().await;
                        unix(&path, None).await
                    })
                })
                .collect();
            let mut held = Vec::new();
            for one in starting {
                match one.await.unwrap() {
                    Ok(socket) => held.push(socket),
                    Err(error) => assert!(matches!(error, Error::Answered(_)), "{error}"),
                }
            }
            assert_eq!(held.len(), 1);
            // It is the one that is reached.
            let (listener, _path) = held.remove(0).into_parts();
            let (reached, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
            assert!(reached.is_ok() && accepted.is_ok());
        }
    }

    #[tokio::test]
    async fn files_long_paths_and_missing_folders_are_told_apart() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(unix(&file, None).await.unwrap_err(), Error::NotASocket(_)));
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        let long = temp.path().join("x".repeat(120));
        assert!(matches!(unix(&long, None).await.unwrap_err(), Error::TooLong(_)));
        let nowhere = temp.path().join("no/where");
        assert!(matches!(unix(&nowhere, None).await.unwrap_err(), Error::Bind { .. }));
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = first.local_addr().unwrap();
        let error = tcp(addr).await.unwrap_err();
        assert!(error.to_string().contains(&addr.port().to_string()), "{error}");
    }
}
