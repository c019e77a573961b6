//! Where things are: the clone, its target folder, the lib dir of run-time artefacts, the user's cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// Names the folder for what is costly and outlives a clone.
const CACHE_VARIABLE: &str = "PYXIS_CACHE_DIR";

/// Selected beside whatever is built: Cargo unites the features of what it is asked for, and would compile DataFusion once
/// more for every other choice. See `xtask/deps`.
pub const SAME_FEATURES: [&str; 2] = ["--package", "xtask-deps"];

/// The places every chore works with.
#[derive(Debug)]
pub struct Workspace {
    /// The clone.
    pub root: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
    /// Costly things, keyed by content and shared by clones.
    pub cache: PathBuf,
}

impl Workspace {
    /// The workspace this xtask was built from, or the one around the current folder.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned();
        if !root.join("Cargo.toml").is_file() {
            bail!("{} is gone: run `cargo xtask` inside a clone", root.display());
        }
        let target = match env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
            Some(target) => root.join(target),
            None => root.join("target"),
        };
        let cache = cache_dir()?;
        Ok(Self { root, target, cache })
    }

    /// What programs look up at run time: `ebpf/`, `plugins/`, `captures/`. `px` finds it beside its own folder.
    pub fn lib(&self) -> PathBuf {
        self.target.join("pyxis")
    }

    /// A folder under the lib dir, made if need be.
    pub fn lib_folder(&self, name: &str) -> Result<PathBuf> {
        make(self.lib().join(name))
    }

    /// Where long steps write what they say.
    pub fn logs(&self) -> Result<PathBuf> {
        make(self.target.join("log"))
    }

    /// A folder of the cache, made if need be.
    pub fn cache_folder(&self, name: &str) -> Result<PathBuf> {
        make(self.cache.join(name))
    }

    /// A program of the dev profile.
    pub fn program(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// The capture that ships with the tree.
    pub fn capture(&self) -> PathBuf {
        self.root.join("tests/fixtures/demo.pxr")
    }

    /// `cargo` in the clone, with the toolchain that runs us.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target).env("PYXIS_LIB_DIR", self.lib());
        command
    }
}

fn cache_dir() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set(CACHE_VARIABLE) {
        return make(folder);
    }
    if let Some(folder) = set("XDG_CACHE_HOME") {
        return make(folder.join("pyxis"));
    }
    match set("HOME") {
        Some(home) => make(home.join(".cache/pyxis")),
        None => bail!("neither HOME nor {CACHE_VARIABLE} is set: set {CACHE_VARIABLE} to a folder for build caches"),
    }
}

/// The folder, made if need be, as an absolute path.
pub fn make(folder: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))
}
