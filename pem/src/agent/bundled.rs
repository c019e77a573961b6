//! Protocol plugins that came with the agent: files of a folder, read at the start with the rights there are then.

use std::path::Path;

use host::admission;
use host::manifest::Kind;

/// Largest component read. A parser in Rust has 100 KiB.
const COMPONENT_BYTES_MAX: u64 = 8 << 20;
/// Files looked at.
const FILES_MAX: usize = 256;

/// A protocol plugin.
pub struct Bundled {
    /// Name of its file, for messages.
    pub name: String,
    pub component: Vec<u8>,
}

impl Bundled {
    /// What is in the file, whatever it is.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::metadata(path)?.len();
        if bytes > COMPONENT_BYTES_MAX {
            let why = format!("it has {bytes} bytes, at most {COMPONENT_BYTES_MAX} are taken");
            return Err(std::io::Error::other(why));
        }
        Ok(Self { name, component: std::fs::read(path)? })
    }
}

/// The protocol plugins in a folder, by name. What cannot be read, or is none, is left to those who tell of it.
pub fn read(folder: &Path) -> Vec<Bundled> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "there are no plugins: the folder cannot be read");
            return Vec::new();
        }
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).take(FILES_MAX).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    paths.sort();
    let mut found: Vec<Bundled> = paths.iter().filter_map(|path| Bundled::read(path).ok()).collect();
    found.retain(|bundled| {
        admission::inspect(&bundled.component).is_ok_and(|inspection| inspection.manifest.kind == Kind::Protocol)
    });
    found
}
