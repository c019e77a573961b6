//! Compiled components on disk.
//!
//! A file holds native code that will run in this process, so a file is used only if this user wrote it and nobody could have
//! changed it since: folder 0700 and file 0600, both this user's, no symbolic link, and a keyed hash over all of it. What
//! fails any of this is recompiled and replaced.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Bytes of the key and of a hash.
const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;

/// Most bytes of compiled code kept; the oldest go first. The bundled scripts take about 1 MiB together, a Python one 33.
const CACHE_BYTES_MAX: u64 = 512 << 20;

/// Largest file read: four times what the largest component seen compiled to.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// Starts every file; changes when the layout does.
const MAGIC: &[u8; 8] = b"pyxaot1\n";

/// The folder.
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
    engine: u64,
}

/// Why a file was not used. Told in the log; the remedy is always to compile again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("there is none")]
    Absent,
    #[error("{0}")]
    Unsafe(&'static str),
    #[error("its keyed hash is wrong")]
    Forged,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Incompatible(String),
}

impl Cache {
    /// Opens the folder, makes it and its key when there is none. A folder that others can write to is refused.
    pub(crate) fn open(dir: &Path, engine: &Engine) -> Result<Self, Refused> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let metadata = std::fs::symlink_metadata(dir)?;
        if !metadata.is_dir() || metadata.uid() != me() || metadata.mode() & 0o077 != 0 {
            return Err(Refused::Unsafe("the folder must belong to this user and have mode 0700"));
        }
        let key = key(&dir.join("key"))?;
        // Only equal engines can read each other's code. The hash need only differ between engines; one that changes with the
        // Rust version costs a recompile.
        #[allow(deprecated, reason = "a fixed SipHash without a seed is what a file name needs")]
        let mut hasher = std::hash::SipHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { dir: dir.to_owned(), key, engine: hasher.finish() })
    }

    /// The compiled form of the component with this digest.
    pub(crate) fn load(&self, engine: &Engine, digest: &str) -> Result<Component, Refused> {
        let path = self.path(digest);
        let bytes = read(&path, FILE_BYTES_MAX)?;
        let code = self.verified(digest, &bytes)?;
        deserialize(engine, code).map_err(|e| Refused::Incompatible(format!("{e:#}")))
    }

    /// Keeps it. Whole or not at all: written beside, then renamed.
    pub(crate) fn store(&self, digest: &str, code: &[u8]) -> Result<(), Refused> {
        let path = self.path(digest);
        // Two processes may store the same: each has a file of its own until the rename.
        let staged = path.with_extension(format!("{}.tmp", std::process::id()));
        let _ = std::fs::remove_file(&staged);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
            file.write_all(MAGIC)?;
            file.write_all(&self.mac(digest, code).finalize().into_bytes())?;
            file.write_all(code)?;
            std::fs::rename(&staged, &path)
        })();
        if let Err(e) = written {
            let _ = std::fs::remove_file(&staged);
            return Err(e.into());
        }
        self.shrink();
        Ok(())
    }

    fn path(&self, digest: &str) -> PathBuf {
        let name = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.dir.join(format!("{name}-{:016x}.cwasm", self.engine))
    }

    fn mac(&self, digest: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        // The digest too, so that one script's code cannot be put in the place of another's.
        mac.update(digest.as_bytes());
        mac.update(&[0]);
        mac.update(code);
        mac
    }

    fn verified<'a>(&self, digest: &str, file: &'a [u8]) -> Result<&'a [u8], Refused> {
        let rest = file.strip_prefix(MAGIC.as_slice()).ok_or(Refused::Forged)?;
        let (mac, code) = rest.split_at_checked(MAC_BYTES).ok_or(Refused::Forged)?;
        // Compares in constant time.
        self.mac(digest, code).verify_slice(mac).map_err(|_| Refused::Forged)?;
        Ok(code)
    }

    /// Removes the oldest files until the rest fits.
    fn shrink(&self) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|x| x == "cwasm"))
            .filter_map(|e| e.metadata().ok().and_then(|m| Some((m.modified().ok()?, m.len(), e.path()))))
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|f| f.1).sum();
        for (_, len, path) in files {
            if total <= CACHE_BYTES_MAX {
                break;
            }
            if std::fs::remove_file(&path).is_ok() {
                total -= len;
            }
        }
    }
}

/// The user this process acts as.
fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn key(path: &Path) -> Result<[u8; KEY_BYTES], Refused> {
    match read(path, KEY_BYTES as u64 + 1) {
        Ok(bytes) => match bytes.try_into() {
            Ok(key) => return Ok(key),
            Err(_) => return Err(Refused::Unsafe("the key file has the wrong length; remove it")),
        },
        Err(Refused::Absent) => {}
        Err(refused) => return Err(refused),
    }
    let key: [u8; KEY_BYTES] = rand::random();
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(&key)?;
            file.sync_all()?;
            Ok(key)
        }
        // Another process was faster: its key holds.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let bytes = read(path, KEY_BYTES as u64 + 1)?;
            bytes.try_into().map_err(|_| Refused::Unsafe("the key file has the wrong length; remove it"))
        }
        Err(e) => Err(e.into()),
    }
}

/// Reads a file that is this user's alone. Owner and mode are asked of the open file, so that it cannot be changed in between.
fn read(path: &Path, most: u64) -> Result<Vec<u8>, Refused> {
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path);
    let file: File = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Refused::Absent),
        Err(e) => return Err(e.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Refused::Unsafe("it is no regular file"));
    }
    if metadata.uid() != me() {
        return Err(Refused::Unsafe("it belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(Refused::Unsafe("others may read or write it"));
    }
    if metadata.len() > most {
        return Err(Refused::Unsafe("it is too large"));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Code that our own compiler process made just now.
pub(crate) fn ours(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    deserialize(engine, code)
}

#[allow(unsafe_code, reason = "the one place where native code is taken from a file")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` runs what it is given as native code, so the bytes must come unchanged from `Component::serialize`
    // of a compatible engine. `code` lies in our own memory, so nobody changes it after the check. There are two callers.
    // `Cache::load` passes what `verified` gave: bytes whose HMAC under a key that only this user can read was made by `store`,
    // which is given what the compiler made and nothing else. `ours` passes what the compiler has just made: the child that
    // `compiler::Process` started from the embedder's own program, over a pipe nobody else holds an end of. Compatibility with
    // this engine is checked by wasmtime itself.
    unsafe { Component::deserialize(engine, code) }
}
