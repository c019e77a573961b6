//! Builds the bundled scripts: every folder of `plugins/` with a `plugin.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use plugins_build::Toolchain;

use crate::digest::Digest;
use crate::step::Step;
use crate::workspace::Workspace;
use crate::{cache, setup};

/// What a script is made of besides its own folder.
const SHARED: [&str; 6] =
    ["wit", "plugins/sdk-rust", "plugins/build/src", "plugins/Cargo.toml", "plugins/Cargo.lock", "host/manifest/src"];

/// A compiler for scripts, installed if need be. Its standard library is kept in the cache, where it has to be built.
pub fn toolchain(workspace: &Workspace) -> Result<Toolchain> {
    let folder = workspace.cache_folder("guests")?;
    let say = |line: &str| eprintln!("    {line}");
    let mut toolchain = match Toolchain::find(&folder, &say) {
        Ok(toolchain) => toolchain,
        Err(first) => match setup::install_debian_compiler(workspace) {
            Ok(()) => Toolchain::find(&folder, &say)?,
            Err(error) => bail!("{first}\n(tried to install it: {error:#})"),
        },
    };
    // Guests are compiled in the clone: a folder shared by clones would trust the times of another clone's files.
    toolchain.cache_dir = workspace.target.join("guests");
    Ok(toolchain)
}

/// The toolchain, for people.
pub fn tell(toolchain: &Toolchain) -> String {
    format!("{} ({})", toolchain.description, toolchain.cargo.display())
}

/// Builds the scripts that have changed into the lib dir, and gives the paths of all.
pub fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let toolchain = toolchain(workspace)?;
    let to = workspace.lib_folder("plugins")?;
    let shared = shared(workspace, &toolchain)?;
    let mut components = Vec::new();
    let mut stale = Vec::new();
    for folder in folders(workspace)? {
        let name = folder.file_name().context("a plugin without a name")?.to_string_lossy().into_owned();
        let path = to.join(format!("{name}.wasm"));
        let key = Digest::default().text(&shared).text(&name).tree(&folder)?.key();
        if !cache::artefact(workspace, &key, &path)? {
            stale.push((folder, key, path.clone()));
        }
        components.push(path);
    }
    remove_others(&to, &components)?;
    compile(workspace, &toolchain, &to, &stale)?;
    plugins_build::sdk::install(&workspace.root, &workspace.lib())?;
    Ok(components)
}

fn compile(
    workspace: &Workspace,
    toolchain: &Toolchain,
    to: &Path,
    stale: &[(PathBuf, String, PathBuf)],
) -> Result<()> {
    if stale.is_empty() {
        eprintln!("  ✓ bundled scripts (unchanged)");
        return Ok(());
    }
    let folders: Vec<&Path> = stale.iter().map(|(folder, ..)| folder.as_path()).collect();
    let step = Step::begin(format!("{} bundled scripts", folders.len()));
    let built = plugins_build::build_guests(&folders, to, toolchain, &|line| eprintln!("    {line}"));
    step.end(built.is_ok(), "");
    built?;
    for (folder, key, path) in stale {
        if !path.is_file() {
            bail!("{} gave no {}: name in plugin.toml and folder must be the same", folder.display(), path.display());
        }
        cache::keep_artefact(workspace, key, path)?;
    }
    Ok(())
}

fn shared(workspace: &Workspace, toolchain: &Toolchain) -> Result<String> {
    let mut digest = Digest::default().text(&toolchain.description);
    for part in SHARED {
        let path = workspace.root.join(part);
        if path.exists() {
            digest = digest.text(part).tree(&path)?;
        }
    }
    Ok(digest.key())
}

fn folders(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let plugins = workspace.root.join("plugins");
    let entries = fs::read_dir(&plugins).with_context(|| format!("cannot read {}", plugins.display()))?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.retain(|folder| folder.join("plugin.toml").is_file());
    folders.sort();
    if folders.is_empty() {
        bail!("no folder in {} has a plugin.toml", plugins.display());
    }
    Ok(folders)
}

/// A script whose folder is gone must not go on being offered.
fn remove_others(folder: &Path, components: &[PathBuf]) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "wasm") && !components.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
