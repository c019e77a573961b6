//! Content keys: a digest over names and bytes, so that a result is reused exactly while its inputs are the same.

use std::path::{Path, PathBuf};
use std::{fmt::Write, fs, io};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

/// A digest being taken.
#[derive(Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Adds a text, framed so that two texts are not one.
    pub fn text(mut self, text: &str) -> Self {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Adds a file, or every file below a folder, by relative path and content. Build output is left out.
    pub fn tree(mut self, path: &Path) -> Result<Self> {
        let mut files = Vec::new();
        collect(path, &mut files).with_context(|| format!("cannot read {}", path.display()))?;
        files.sort();
        for file in files {
            let name = file.strip_prefix(path).unwrap_or(&file);
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            self = self.text(&name.to_string_lossy());
            self.0.update((bytes.len() as u64).to_le_bytes());
            self.0.update(&bytes);
        }
        Ok(self)
    }

    /// The first 128 bits, in hexadecimal: short enough for a file name.
    pub fn key(self) -> String {
        hex(&self.0.finalize()[..16])
    }
}

/// SHA-256 of a file, in hexadecimal.
pub fn of_file(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    io::copy(&mut file, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name == "target") {
            continue;
        }
        collect(&path, files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn a_key_changes_with_content_and_name_and_not_with_build_output() {
        let folder = env::temp_dir().join(format!("xtask-digest-{}", std::process::id()));
        fs::create_dir_all(folder.join("target")).unwrap();
        let key = || Digest::default().text("v1").tree(&folder).unwrap().key();
        fs::write(folder.join("a"), "1").unwrap();
        let first = key();
        assert_eq!(first, key());
        fs::write(folder.join("target/x"), "2").unwrap();
        assert_eq!(first, key());
        fs::write(folder.join("a"), "2").unwrap();
        assert_ne!(first, key());
        fs::write(folder.join("a"), "1").unwrap();
        fs::rename(folder.join("a"), folder.join("b")).unwrap();
        assert_ne!(first, key());
        fs::remove_dir_all(folder).unwrap();
    }
}
