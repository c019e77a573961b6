//! Where programs are: ours beside the test, others on the path.

use std::env;
use std::path::{Path, PathBuf};

/// The folder with `px` and the shop: that of the profile under test. `PYXIS_BIN_DIR` names another.
pub fn folder() -> PathBuf {
    if let Some(folder) = env::var_os("PYXIS_BIN_DIR") {
        return folder.into();
    }
    // Tests run from target/PROFILE/deps, examples from target/PROFILE/examples.
    let exe = env::current_exe().expect("the system tells a program its own path");
    exe.ancestors().nth(2).expect("two folders above the test").to_owned()
}

/// `px`.
pub fn px() -> PathBuf {
    folder().join("px")
}

/// `cargo xtask`, as whoever runs the tests has built it.
pub fn xtask() -> PathBuf {
    folder().join("xtask")
}

/// The folder of run-time artefacts.
pub fn lib() -> PathBuf {
    match env::var_os("PYXIS_LIB_DIR") {
        Some(folder) => folder.into(),
        None => folder().parent().unwrap_or(Path::new("/")).join("pyxis"),
    }
}

/// The capture that ships with the tree.
pub fn capture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.pxr")
}

/// Makes a recording seem to come from another agent; an example of `pem`.
pub fn keep_processes() -> PathBuf {
    folder().join("examples/keep_processes")
}

/// A program on the path, or where Debian keeps daemons.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/go/bin")]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}
