//! One plugin folder in, one component file out.

use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

use host_manifest::Manifest;
use sha2::{Digest, Sha256};

use crate::component::componentize;
use crate::error::{Error, Tried};
use crate::toolchain::{Progress, TARGET, Toolchain, absolute};

/// What was made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The component.
    pub path: PathBuf,
    /// `sha256:<hex>` of its bytes.
    pub digest: String,
    /// Its size.
    pub bytes: usize,
    /// What `plugin.toml` says.
    pub manifest: Manifest,
}

/// Builds the plugin in `dir` and writes `<out>/<name>.wasm`. Nothing is written into `dir` but a `Cargo.lock` where it has
/// none.
pub fn build_guest(dir: &Path, out: &Path, toolchain: &Toolchain, progress: Progress<'_>) -> Result<Built, Error> {
    Ok(build_guests(&[dir], out, toolchain, progress)?.remove(0))
}

/// Builds several plugins, those of one Cargo workspace in one call of cargo.
pub fn build_guests(
    dirs: &[&Path],
    out: &Path,
    toolchain: &Toolchain,
    progress: Progress<'_>,
) -> Result<Vec<Built>, Error> {
    let plugins = dirs.iter().map(|dir| read(dir)).collect::<Result<Vec<_>, _>>()?;
    let mut roots: Vec<&Path> = Vec::new();
    for plugin in &plugins {
        if !roots.contains(&plugin.workspace.as_path()) {
            roots.push(&plugin.workspace);
        }
    }
    std::fs::create_dir_all(out).tried(|| format!("cannot make {}", out.display()))?;
    for root in roots {
        let of_root: Vec<&Plugin> = plugins.iter().filter(|p| p.workspace == root).collect();
        compile(root, &of_root, toolchain, progress)?;
    }
    plugins.into_iter().map(|plugin| finish(plugin, out, toolchain)).collect()
}

struct Plugin {
    dir: PathBuf,
    workspace: PathBuf,
    package: String,
    manifest: Manifest,
    /// Crates it uses that lie outside of its workspace, by the paths the compiler will know them by: the SDK, as a rule. They
    /// would bring the paths of this machine into panics and line tables.
    beside: Vec<(PathBuf, String)>,
}

fn read(dir: &Path) -> Result<Plugin, Error> {
    let not = |why: String| Error::NotAPlugin { dir: dir.to_owned(), why };
    let path = dir.join("plugin.toml");
    let text = std::fs::read_to_string(&path)
        .map_err(|e| not(format!("plugin.toml cannot be read ({e}); `px plugin new` makes one")))?;
    let manifest = Manifest::from_toml(&text).map_err(|source| Error::Manifest { path, source })?;
    let cargo = std::fs::read_to_string(dir.join("Cargo.toml"))
        .map_err(|e| not(format!("Cargo.toml cannot be read ({e}); only Rust plugins can be built so far")))?;
    let cargo: toml::Table = cargo.parse().map_err(|e| not(format!("Cargo.toml is not valid TOML: {e}")))?;
    let package = cargo
        .get("package")
        .and_then(|p| p.get("name")?.as_str())
        .ok_or_else(|| not("Cargo.toml has no package.name".into()))?
        .to_owned();
    let dir = absolute(dir);
    let workspace = workspace(&dir, &cargo);
    let beside = beside(&dir, &cargo, &workspace);
    Ok(Plugin { dir, workspace, package, manifest, beside })
}

/// Dependencies by path, the plugin's own and those its workspace declares, that are not in the workspace.
fn beside(dir: &Path, cargo: &toml::Table, workspace: &Path) -> Vec<(PathBuf, String)> {
    let root: Option<toml::Table> =
        std::fs::read_to_string(workspace.join("Cargo.toml")).ok().and_then(|text| text.parse().ok());
    let of_workspace = root.as_ref().and_then(|root| root.get("workspace")?.get("dependencies")?.as_table());
    let declared = [(dir, cargo.get("dependencies").and_then(toml::Value::as_table)), (workspace, of_workspace)];
    let mut found = Vec::new();
    for (base, dependencies) in declared {
        for (name, dependency) in dependencies.into_iter().flatten() {
            let Some(path) = dependency.get("path").and_then(toml::Value::as_str) else { continue };
            let path = base.join(path);
            // Cargo takes `..` out of paths and leaves links in.
            for path in [lexical(&path), path.canonicalize().unwrap_or(path)] {
                if !path.starts_with(workspace) {
                    found.push((path, format!("/{name}")));
                }
            }
        }
    }
    found
}

fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The folder of the workspace the crate belongs to: its own, or the nearest above that lists members.
fn workspace(dir: &Path, cargo: &toml::Table) -> PathBuf {
    if !cargo.contains_key("workspace") {
        for above in dir.ancestors().skip(1) {
            let Ok(text) = std::fs::read_to_string(above.join("Cargo.toml")) else { continue };
            let Ok(table) = text.parse::<toml::Table>() else { continue };
            let Some(workspace) = table.get("workspace") else { continue };
            let listed = |key: &str| {
                let list = workspace.get(key).and_then(toml::Value::as_array);
                list.is_some_and(|l| l.iter().filter_map(toml::Value::as_str).any(|m| dir.starts_with(above.join(m))))
            };
            if listed("members") {
                return above.to_owned();
            }
        }
    }
    dir.to_owned()
}

fn compile(root: &Path, plugins: &[&Plugin], toolchain: &Toolchain, progress: Progress<'_>) -> Result<(), Error> {
    let names: Vec<&str> = plugins.iter().map(|p| p.package.as_str()).collect();
    progress(&format!("compiling {} ({})", names.join(", "), toolchain.description));
    let mut beside: Vec<(PathBuf, String)> = plugins.iter().flat_map(|p| p.beside.iter().cloned()).collect();
    beside.sort();
    beside.dedup();
    let mut command = toolchain.cargo(root, &beside);
    command.current_dir(root).args(["build", "--release", "--lib", "--target", TARGET]);
    // Set here and not in each plugin's Cargo.toml, so that a plugin cannot forget them: one unit and fat LTO for small code,
    // abort because a guest that panics is done, names kept because traps are told with them.
    let (strip, debug) = match toolchain.debug {
        true => ("strip=\"none\"", "debug=\"line-tables-only\""),
        false => ("strip=\"debuginfo\"", "debug=false"),
    };
    for setting in ["panic=\"abort\"", "lto=true", "codegen-units=1", "opt-level=3", strip, debug] {
        command.arg("--config").arg(format!("profile.release.{setting}"));
    }
    for name in &names {
        command.args(["-p", name]);
    }
    let output =
        command.stdin(Stdio::null()).output().tried(|| format!("cannot start {}", toolchain.cargo.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Compile {
        what: names.join(", "),
        output: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    })
}

fn finish(plugin: Plugin, out: &Path, toolchain: &Toolchain) -> Result<Built, Error> {
    let release = toolchain.cache_dir.join("build").join(TARGET).join("release");
    let file = release.join(format!("{}.wasm", plugin.package.replace('-', "_")));
    let module = std::fs::read(&file).map_err(|e| Error::NotAPlugin {
        dir: plugin.dir.clone(),
        why: format!(
            "it compiles to no WebAssembly ({}: {e}); Cargo.toml needs [lib] crate-type = [\"cdylib\"]",
            file.display()
        ),
    })?;
    let component = componentize(&module, &plugin.manifest)?;
    let path = out.join(format!("{}.wasm", plugin.manifest.name));
    write_whole(&path, &component)?;
    let digest = Sha256::digest(&component).iter().map(|b| format!("{b:02x}")).collect::<String>();
    Ok(Built { path, digest: format!("sha256:{digest}"), bytes: component.len(), manifest: plugin.manifest })
}

/// Readers see the old file or the new one, never half of one.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let staged = path.with_extension(format!("tmp{}", std::process::id()));
    std::fs::write(&staged, bytes).tried(|| format!("cannot write {}", staged.display()))?;
    std::fs::rename(&staged, path).tried(|| format!("cannot write {}", path.display()))
}
