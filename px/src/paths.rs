//! Where things are: sockets and state of a running Pyxis, and what is shipped with the program.

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, geteuid};

/// The socket on which Vizier serves clients, below the runtime directory: in a folder of its own, since it is another user's
/// when root started it.
pub const SOCKET: &str = "vizier/vizier.sock";
/// Where a Pyxis that root started lives.
pub const SYSTEM_RUNTIME: &str = "/run/pyxis";
pub const SYSTEM_DATA: &str = "/var/lib/pyxis";

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn home() -> PathBuf {
    variable("HOME").unwrap_or_else(|| PathBuf::from("/tmp").join(format!("pyxis-{}", geteuid())))
}

/// Sockets, keys and the lock of a Pyxis that this user starts: gone when it ends.
pub fn runtime_dir() -> PathBuf {
    if let Some(dir) = variable("PX_RUNTIME_DIR") {
        return dir;
    }
    if geteuid().is_root() { PathBuf::from(SYSTEM_RUNTIME) } else { user_runtime_dir() }
}

fn user_runtime_dir() -> PathBuf {
    match variable("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("pyxis"),
        None => variable("XDG_STATE_HOME").unwrap_or_else(|| home().join(".local/state")).join("pyxis"),
    }
}

/// What is kept between runs: compiled scripts.
pub fn data_dir() -> PathBuf {
    if let Some(dir) = variable("PX_DATA_DIR") {
        return dir;
    }
    if geteuid().is_root() {
        return PathBuf::from(SYSTEM_DATA);
    }
    variable("XDG_DATA_HOME").unwrap_or_else(|| home().join(".local/share")).join("pyxis")
}

/// What can be made again: compiled guests.
pub fn cache_dir() -> PathBuf {
    variable("PX_CACHE_DIR")
        .unwrap_or_else(|| variable("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache")).join("pyxis"))
}

/// Sockets of Viziers that may run on this machine, the likeliest first.
pub fn sockets() -> Vec<PathBuf> {
    let mut sockets = vec![runtime_dir().join(SOCKET)];
    for dir in [user_runtime_dir(), PathBuf::from(SYSTEM_RUNTIME)] {
        let socket = dir.join(SOCKET);
        if !sockets.contains(&socket) {
            sockets.push(socket);
        }
    }
    sockets
}

/// What ships with the program: kernel objects, scripts, a recording. `None` when it was not installed.
pub fn lib_dir() -> Option<PathBuf> {
    if let Some(dir) = variable("PYXIS_LIB_DIR") {
        return Some(dir);
    }
    let exe = std::env::current_exe().ok()?;
    let dir = exe.parent()?;
    ["../lib/pyxis", "../pyxis"].iter().find_map(|relative| dir.join(relative).canonicalize().ok())
}

/// The recording that ships with the program, when it is there.
pub fn demo_capture() -> Option<PathBuf> {
    lib_dir().map(|dir| dir.join("captures/demo.pxr")).filter(|path| path.is_file())
}

/// The name of a user, or its number.
pub fn user_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

/// Owner of a file.
pub fn owner(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|m| m.uid())
}
