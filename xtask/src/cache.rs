//! What is costly, kept outside the clone: built artefacts by content, and the compiled dependencies of a lock file.
//!
//! Dependencies are put into a fresh clone's own target folder, so that plain `cargo build` there is quick too. Only what
//! is not ours is kept: Cargo trusts a dependency from a registry by its name, version and flags, but our own crates by
//! the times of their files, which mean nothing in another clone.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{fs, io};

use anyhow::{Context, Result};

use crate::digest::Digest;
use crate::run;
use crate::step::Step;
use crate::workspace::Workspace;

/// Artefacts kept: a few branches' worth of kernel objects and scripts, a few MiB each at most.
const ARTEFACTS_MAX: usize = 128;
/// Sets of dependencies kept: the one in use and the one before it. Each takes a few GiB.
const DEPENDENCIES_MAX: usize = 2;

/// Puts the artefact of `key` at `to`, if it is known.
pub fn artefact(workspace: &Workspace, key: &str, to: &Path) -> Result<bool> {
    let from = workspace.cache_folder("artefacts")?.join(key);
    if !from.is_file() {
        return Ok(false);
    }
    replace(&from, to)?;
    // Pruning goes by the last use.
    if let Ok(file) = fs::File::options().append(true).open(&from) {
        let _ = file.set_modified(SystemTime::now());
    }
    Ok(true)
}

/// Keeps the artefact at `from` under `key`.
pub fn keep_artefact(workspace: &Workspace, key: &str, from: &Path) -> Result<()> {
    let folder = workspace.cache_folder("artefacts")?;
    replace(from, &folder.join(key))?;
    prune(&folder, ARTEFACTS_MAX)
}

/// Copies by way of a temporary name, so that nobody ever reads half a file.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let mut half = to.as_os_str().to_owned();
    half.push(format!(".{}", std::process::id()));
    let half = PathBuf::from(half);
    fs::copy(from, &half)
        .and_then(|_| fs::rename(&half, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Whether what is built now is worth keeping for others.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Keep {
    Yes,
    No,
}

/// Fills an empty target folder with dependencies from the cache: those of the same lock file, else the newest of the
/// same compiler, of which Cargo takes what fits.
pub fn restore_dependencies(workspace: &Workspace) -> Result<Keep> {
    let debug = workspace.target.join("debug");
    // One that somebody works in holds whatever was tried there.
    if built_dependencies(&debug) {
        return Ok(Keep::No);
    }
    let folder = workspace.cache_folder("dependencies")?;
    let (compiler, key) = dependency_key(workspace)?;
    let exact = folder.join(format!("{compiler}-{key}"));
    let keep = if exact.is_dir() { Keep::No } else { Keep::Yes };
    let from = if exact.is_dir() { Some(exact) } else { newest(&folder, &compiler) };
    let Some(from) = from else { return Ok(keep) };
    let step = Step::begin("dependencies from the cache");
    let copied = copy_tree(&from, &debug, &|_| true);
    step.end(copied.is_ok(), &from.display().to_string());
    // Pruning goes by the last use.
    let _ = fs::File::open(&from).and_then(|folder| folder.set_modified(SystemTime::now()));
    // A cache that does not serve is no reason to fail: Cargo builds what is missing.
    if let Err(error) = copied {
        eprintln!("    {error:#}; building them instead");
    }
    Ok(keep)
}

/// Keeps the dependencies that a successful build has left, for the next clone.
pub fn keep_dependencies(workspace: &Workspace, keep: &Keep) -> Result<()> {
    let debug = workspace.target.join("debug");
    let folder = workspace.cache_folder("dependencies")?;
    let (compiler, key) = dependency_key(workspace)?;
    let to = folder.join(format!("{compiler}-{key}"));
    if *keep == Keep::No || to.is_dir() || !built_dependencies(&debug) {
        return Ok(());
    }
    let ours = Ours::read(workspace)?;
    let step = Step::begin("dependencies into the cache");
    let half = folder.join(format!(".{}", std::process::id()));
    let mut copied = Ok(());
    for part in [".fingerprint", "build", "deps"] {
        copied = copied.and_then(|()| copy_tree(&debug.join(part), &half.join(part), &|name| !ours.owns(part, name)));
    }
    let kept = copied.and_then(|()| fs::rename(&half, &to).context("cannot rename"));
    step.end(kept.is_ok(), &to.display().to_string());
    if let Err(error) = kept {
        let _ = fs::remove_dir_all(&half);
        eprintln!("    {error:#}; the next clone will build them again");
        return Ok(());
    }
    prune(&folder, DEPENDENCIES_MAX)
}

/// The compiler's part and the lock file's part of a key.
fn dependency_key(workspace: &Workspace) -> Result<(String, String)> {
    let rustc = run::output(Command::new("rustc").arg("-vV")).context("rustc does not run")?;
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let compiler = Digest::default().text("1").text(&rustc).text(&flags).key();
    let lock =
        Digest::default().tree(&workspace.root.join("Cargo.lock"))?.tree(&workspace.root.join("Cargo.toml"))?.key();
    Ok((compiler[..12].to_owned(), lock))
}

/// DataFusion is the costliest; a target folder that has it needs no help.
fn built_dependencies(debug: &Path) -> bool {
    let Ok(entries) = fs::read_dir(debug.join("deps")) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libdatafusion-") && name.ends_with(".rlib")
    })
}

fn newest(folder: &Path, compiler: &str) -> Option<PathBuf> {
    let mut sets: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    sets.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(compiler)));
    sets.into_iter().max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}

/// Which build output is of the workspace's own crates.
struct Ours {
    packages: HashSet<String>,
    crates: HashSet<String>,
}

impl Ours {
    fn read(workspace: &Workspace) -> Result<Self> {
        let metadata = run::output(workspace.cargo().args(["metadata", "--no-deps", "--format-version", "1"]));
        let metadata: serde_json::Value = serde_json::from_str(&metadata.context("cargo metadata failed")?)?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let mut ours = Self { packages: HashSet::new(), crates: HashSet::new() };
        for package in metadata["packages"].as_array().into_iter().flatten() {
            ours.packages.insert(text(&package["name"]));
            for target in package["targets"].as_array().into_iter().flatten() {
                ours.crates.insert(text(&target["name"]).replace('-', "_"));
            }
        }
        Ok(ours)
    }

    /// Entries are named `package-HASH` in `.fingerprint` and `build`, `crate-HASH` or `libcrate-HASH.ext` in `deps`.
    fn owns(&self, part: &str, name: &OsStr) -> bool {
        let name = name.to_string_lossy();
        let Some((stem, _)) = name.rsplit_once('-') else { return true };
        if part != "deps" {
            return self.packages.contains(stem);
        }
        self.crates.contains(stem) || stem.strip_prefix("lib").is_some_and(|stem| self.crates.contains(stem))
    }
}

/// Copies a tree with its times; `take` decides on the entries right below `from`. Big files that are never written in
/// place are linked where both sides are on one file system.
fn copy_tree(from: &Path, to: &Path, take: &dyn Fn(&OsStr) -> bool) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if !take(&entry.file_name()) {
            continue;
        }
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&path, &to, &|_| true)?;
        } else if kind.is_file() {
            copy_file(&path, &to).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    /// Smaller files include all those that Cargo writes in place or sets the time of.
    const LINK_BYTES_MIN: u64 = 64 << 10;
    let metadata = fs::metadata(from)?;
    if metadata.len() >= LINK_BYTES_MIN && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let _ = fs::remove_file(to);
    fs::copy(from, to)?;
    // Cargo compares times: a copy must be as old as what it copies.
    fs::File::options().write(true).open(to)?.set_modified(metadata.modified()?)
}

/// Removes the entries of `folder` that were used least recently, beyond `keep`.
fn prune(folder: &Path, keep: usize) -> Result<()> {
    let mut entries: Vec<(SystemTime, PathBuf)> = fs::read_dir(folder)?
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    entries.sort();
    let surplus = entries.len().saturating_sub(keep);
    for (_, path) in entries.drain(..surplus) {
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_crates_are_told_from_dependencies() {
        let ours = Ours {
            packages: ["pem-tables".to_owned(), "px".to_owned()].into(),
            crates: ["pem_tables".to_owned(), "px".to_owned()].into(),
        };
        let owns = |part, name: &str| ours.owns(part, OsStr::new(name));
        assert!(owns(".fingerprint", "pem-tables-0123456789abcdef"));
        assert!(owns("deps", "libpem_tables-0123456789abcdef.rlib"));
        assert!(owns("deps", "px-0123456789abcdef"));
        assert!(!owns(".fingerprint", "datafusion-catalog-0123456789abcdef"));
        assert!(!owns("deps", "libdatafusion_catalog-0123456789abcdef.rmeta"));
        assert!(!owns("build", "zstd-sys-0123456789abcdef"));
    }
}
