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
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > COMPONENT_BYTES_MAX) {
            continue;
        }
        let Ok(component) = std::fs::read(&path) else { continue };
        if admission::inspect(&component).is_ok_and(|inspection| inspection.manifest.kind == Kind::Protocol) {
            found.push(Bundled { name, component });
        }
    }
    found
}
