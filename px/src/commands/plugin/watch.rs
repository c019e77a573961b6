//! Notices when something in a folder changes. It looks, a few times a second: a plugin has a dozen files, and looking works on
//! every file system.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Looks so often.
const INTERVAL: Duration = Duration::from_millis(200);
/// Editors write several files for one save; a change counts once nothing has happened for this long.
const SETTLED: Duration = Duration::from_millis(100);
/// Most files that are looked at; a folder with more holds something else than a plugin.
const FILES_MAX: usize = 10_000;
/// Made by tools, not by authors.
const IGNORED: &[&str] = &["target", "node_modules", "__pycache__", "Cargo.lock"];

/// Names, sizes and times of the files in a folder, as one number.
pub fn state(dir: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut folders: Vec<PathBuf> = vec![dir.to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            seen += 1;
            if name.starts_with('.') || IGNORED.contains(&&*name) || seen > FILES_MAX {
                continue;
            }
            // Not through links: they may lead anywhere, and in circles.
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                folders.push(entry.path());
            } else {
                (entry.path(), found.len(), found.modified().ok()).hash(&mut hasher);
            }
        }
    }
    hasher.finish()
}

/// Ready once the folder is no longer as it was at `before`, and has come to rest; gives how it is then.
pub async fn changed(dir: &Path, before: u64) -> u64 {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let mut now = state(dir);
        if now == before {
            continue;
        }
        loop {
            tokio::time::sleep(SETTLED).await;
            let next = state(dir);
            if next == now {
                return now;
            }
            now = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_author_writes_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("plugin.toml", "a");
        write("src/lib.rs", "a");
        let before = state(dir.path());
        for name in ["target/x", ".git/x", "Cargo.lock", "node_modules/a/b", ".lib.rs.swp"] {
            write(name, "a");
        }
        assert_eq!(state(dir.path()), before);
        write("src/lib.rs", "ab");
        let after = state(dir.path());
        assert_ne!(after, before);
        write("src/more.rs", "");
        assert_ne!(state(dir.path()), after);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("src/loop")).unwrap();
        state(dir.path());
    }

    #[tokio::test]
    async fn a_save_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "1").unwrap();
        let before = state(dir.path());
        let waiting = changed(dir.path(), before);
        std::fs::write(dir.path().join("a"), "12").unwrap();
        assert_ne!(tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap(), before);
    }
}
