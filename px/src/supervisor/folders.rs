//! The folders of a running system: made at its start, locked while it runs, gone at its end.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Code, Error, Result};
use crate::paths;

use super::roles::User;
use super::users::Users;

/// `sun_path` holds 108 bytes, the last of them 0.
const SOCKET_PATH_MAX: usize = 107;

/// Made and locked. Dropped, it is removed.
#[derive(Debug)]
pub struct Folders {
    runtime: PathBuf,
    users: Users,
    /// Held as long as the system runs.
    _lock: Flock<File>,
}

impl Folders {
    /// Takes the runtime folder. An error names the process that has it.
    pub fn take(runtime: &Path, users: Users) -> Result<Folders> {
        let longest = runtime.join(paths::SOCKET);
        if longest.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(Error::usage(format!("{} is too long for a socket", longest.display()))
                .hint("set PX_RUNTIME_DIR to a shorter path"));
        }
        let existed = ours(runtime)?;
        // Root's own, yet others must get through to the socket that is theirs.
        let mode = if users.root { 0o755 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(runtime).map_err(|e| {
            Error::io(format!("make {}", runtime.display()), &e).hint("PX_RUNTIME_DIR names another place")
        })?;
        if !existed {
            let _ = fs::set_permissions(runtime, Permissions::from_mode(mode));
        }
        let lock = lock(&runtime.join("lock"))?;
        let folders = Folders { runtime: runtime.to_owned(), users, _lock: lock };
        // What a predecessor that was killed left.
        folders.clear();
        folders.make(&folders.vizier(), 0o755)?;
        Ok(folders)
    }

    /// A folder that belongs to the unprivileged user.
    fn make(&self, path: &Path, mode: u32) -> Result<()> {
        let failed = |e| Error::io(format!("make {}", path.display()), &e);
        DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed)?;
        if let Some(User { uid, gid }) = self.users.become_user() {
            chown(path, Some(uid), Some(gid)).map_err(failed)?;
        }
        Ok(())
    }

    /// Vizier's: its sockets, and where agents find it.
    fn vizier(&self) -> PathBuf {
        self.runtime.join(paths::SOCKET).parent().expect("the socket lies in a folder").to_owned()
    }

    pub fn socket(&self) -> PathBuf {
        self.runtime.join(paths::SOCKET)
    }

    pub fn address_file(&self) -> PathBuf {
        self.vizier().join("agents.address")
    }

    pub fn pki(&self) -> PathBuf {
        self.runtime.join("pki")
    }

    pub fn helper_socket(&self) -> PathBuf {
        self.runtime.join("helper.sock")
    }

    /// Where compiled scripts are kept from run to run: the user's own, since whoever writes there decides what code Vizier
    /// loads.
    pub fn cache(&self, data: &Path) -> Result<PathBuf> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(data)
            .map_err(|e| Error::io(format!("make {}", data.display()), &e).hint("--data-dir names another place"))?;
        let cache = data.join(format!("compiled-{}", self.users.user.uid));
        self.make(&cache, 0o700)?;
        Ok(cache)
    }

    /// Where Vizier keeps what must outlive it: installed plugins.
    pub fn state(&self, data: &Path) -> Result<PathBuf> {
        let state = data.join(format!("vizier-{}", self.users.user.uid));
        self.make(&state, 0o700)?;
        Ok(state)
    }

    /// The folder as the unprivileged user can read it: itself where it can, else a copy that lasts as long as this run.
    pub fn readable(&self, folder: &Path) -> Result<PathBuf> {
        let Some(user) = self.users.become_user() else { return Ok(folder.to_owned()) };
        if readable_by(folder, user) {
            return Ok(folder.to_owned());
        }
        let name = folder.file_name().unwrap_or_default();
        let copy = self.runtime.join("lib").join(name);
        let failed = |e| Error::io(format!("copy {}", folder.display()), &e);
        DirBuilder::new().recursive(true).mode(0o755).create(&copy).map_err(failed)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.path().is_file() {
                let to = copy.join(entry.file_name());
                fs::copy(entry.path(), &to).map_err(failed)?;
                fs::set_permissions(&to, Permissions::from_mode(0o644)).map_err(failed)?;
            }
        }
        Ok(copy)
    }

    fn clear(&self) {
        for name in ["vizier", "pki", "lib"] {
            let _ = fs::remove_dir_all(self.runtime.join(name));
        }
        let _ = fs::remove_file(self.helper_socket());
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        self.clear();
        let _ = fs::remove_file(self.runtime.join("lock"));
        // Stays when somebody else put something there.
        let _ = fs::remove_dir(&self.runtime);
    }
}

/// Whether the folder is there. Where everybody may make folders, one may wait for us that is another's: he could take our
/// sockets and keys away and put his own there.
fn ours(runtime: &Path) -> Result<bool> {
    let found = match fs::symlink_metadata(runtime) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io(format!("look at {}", runtime.display()), &error)),
    };
    let why = match found {
        _ if !found.is_dir() => "is no folder",
        _ if found.uid() != nix::unistd::geteuid().as_raw() => "belongs to another user",
        _ if found.mode() & 0o022 != 0 => "can be written by others",
        _ => return Ok(true),
    };
    Err(Error::new(Code::Denied, format!("{} {why}, so its sockets and keys would be theirs", runtime.display()))
        .hint("remove it, or name another place with PX_RUNTIME_DIR"))
}

/// Whether a user gets through to a folder and can read what is in it.
fn readable_by(folder: &Path, user: User) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    let allows = |path: &Path, bits: u32| {
        let Ok(found) = fs::metadata(path) else { return false };
        let shift = match found {
            _ if found.uid() == user.uid => 6,
            _ if found.gid() == user.gid => 3,
            _ => 0,
        };
        found.mode() >> shift & bits == bits
    };
    let through = folder.ancestors().skip(1).all(|dir| allows(dir, 0o1));
    let files = fs::read_dir(&folder).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| !entry.path().is_file() || allows(&entry.path(), 0o4)))
    });
    through && allows(&folder, 0o5) && files
}

fn lock(path: &Path) -> Result<Flock<File>> {
    loop {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(|e| Error::io(format!("open {}", path.display()), &e))?;
        match Flock::lock(file.try_clone().map_err(|e| Error::io("lock", &e))?, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                // A predecessor may have removed the file between our opening and our locking: then this lock guards nothing.
                let same = fs::metadata(path).is_ok_and(|there| {
                    lock.metadata().is_ok_and(|ours| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
                });
                if !same {
                    continue;
                }
                let failed = |e| Error::io(format!("write {}", path.display()), &e);
                lock.set_len(0).map_err(failed)?;
                lock.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
                return Ok(lock);
            }
            Err(_) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let pid = pid.trim();
                let running = Error::new(Code::Invalid, format!("Pyxis is running already (process {pid})"));
                return Err(
                    running.hint(format!("ask it with px run; stop it with Ctrl-C in its terminal, or: kill {pid}"))
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Users { root: false, user: User { uid, gid } }
    }

    #[test]
    fn a_second_one_is_told_who_runs() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().join("run");
        let first = Folders::take(&runtime, users()).unwrap();
        let second = Folders::take(&runtime, users()).unwrap_err();
        let pid = std::process::id();
        assert_eq!(second.message, format!("Pyxis is running already (process {pid})"));
        assert!(second.hint.unwrap().contains(&format!("kill {pid}")));
        assert!(first.socket().parent().unwrap().is_dir());
        drop(first);
        assert!(!runtime.exists(), "nothing is left behind");
        drop(Folders::take(&runtime, users()).unwrap());
    }

    #[test]
    fn what_a_killed_predecessor_left_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("vizier")).unwrap();
        fs::write(dir.path().join("vizier/vizier.sock"), "").unwrap();
        fs::write(dir.path().join("lock"), "99999999\n").unwrap();
        let folders = Folders::take(dir.path(), users()).unwrap();
        assert!(!folders.socket().exists());
    }

    #[test]
    fn a_folder_that_others_can_write_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().join("run");
        fs::create_dir(&runtime).unwrap();
        fs::set_permissions(&runtime, Permissions::from_mode(0o777)).unwrap();
        let error = Folders::take(&runtime, users()).unwrap_err();
        assert!(error.message.contains("can be written by others"), "{}", error.message);
        assert!(error.hint.unwrap().contains("PX_RUNTIME_DIR"));
        fs::set_permissions(&runtime, Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(&runtime, dir.path().join("link")).unwrap();
        assert!(Folders::take(&dir.path().join("link"), users()).unwrap_err().message.contains("is no folder"));
        drop(Folders::take(&runtime, users()).unwrap());
        if nix::unistd::geteuid().is_root() {
            fs::create_dir(&runtime).unwrap();
            chown(&runtime, Some(65_534), None).unwrap();
            assert!(Folders::take(&runtime, users()).unwrap_err().message.contains("another user"));
        }
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let error = Folders::take(&dir.path().join("x".repeat(100)), users()).unwrap_err();
        assert!(error.hint.unwrap().contains("PX_RUNTIME_DIR"));
    }

    #[test]
    fn what_another_user_cannot_read_is_copied() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let hidden = dir.path().join("hidden/plugins");
        fs::create_dir_all(&hidden).unwrap();
        fs::write(hidden.join("a.wasm"), "x").unwrap();
        let users = Users { root: true, user: User { uid: 65_534, gid: 65_534 } };
        let folders = Folders::take(&dir.path().join("run"), users).unwrap();
        assert_eq!(folders.readable(&hidden).unwrap(), hidden);
        fs::set_permissions(dir.path().join("hidden"), Permissions::from_mode(0o700)).unwrap();
        let copy = folders.readable(&hidden).unwrap();
        assert_ne!(copy, hidden);
        assert!(readable_by(&copy, users.user) && copy.join("a.wasm").is_file());
    }
}
