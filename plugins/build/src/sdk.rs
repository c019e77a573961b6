//! The SDK as it is installed beside the programs, so that a plugin outside this tree can be built against it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Tried};

/// Folders of the tree the SDK consists of; their places to each other matter, since its bindings read `wit/`.
const PARTS: &[&str] = &["wit", "plugins/sdk-rust"];

/// Versions the bundled scripts were built with, which new plugins start from: so they build without asking a registry for
/// what is newest.
const LOCK: &str = "plugins/Cargo.lock";

/// Copies the SDK from the source tree `root` to `<lib_dir>/sdk`, replacing what is there.
pub fn install(root: &Path, lib_dir: &Path) -> Result<(), Error> {
    let sdk = lib_dir.join("sdk");
    if sdk.exists() {
        std::fs::remove_dir_all(&sdk).tried(|| format!("cannot replace {}", sdk.display()))?;
    }
    PARTS.iter().try_for_each(|part| copy(&root.join(part), &sdk.join(part)))?;
    let lock = sdk.join(LOCK);
    std::fs::copy(root.join(LOCK), &lock).map(drop).tried(|| format!("cannot write {}", lock.display()))
}

/// The SDK's crate: in the lib dir, or, for a program run from a checkout, in the tree above `lib_dir`.
pub fn locate(lib_dir: &Path) -> Option<PathBuf> {
    let installed = lib_dir.join("sdk/plugins/sdk-rust");
    let in_tree = lib_dir.ancestors().skip(1).map(|dir| dir.join("plugins/sdk-rust"));
    std::iter::once(installed).chain(in_tree).find(|dir| dir.join("Cargo.toml").exists())
}

/// The lock file beside an SDK that [`locate`] found.
pub(crate) fn lock(sdk: &Path) -> Option<PathBuf> {
    sdk.parent().map(|plugins| plugins.join("Cargo.lock")).filter(|lock| lock.is_file())
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(to).tried(|| format!("cannot make {}", to.display()))?;
    for entry in std::fs::read_dir(from).tried(|| format!("cannot read {}", from.display()))? {
        let entry = entry.tried(|| format!("cannot read {}", from.display()))?;
        let target = to.join(entry.file_name());
        if entry.file_name() == "target" {
            continue;
        }
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).tried(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
