//! Finds what builds kernel programs: a compiler that has `core` for `bpfel-unknown-none` (or can build it), and a
//! `bpf-linker` on the same LLVM. Looks only; `setup` installs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::run;
use crate::workspace::Workspace;

/// The target of kernel programs on little-endian machines, which is all that Pyxis runs on.
pub const TARGET: &str = "bpfel-unknown-none";
/// Names a `bpf-linker` to use, whatever the order says.
pub const LINKER_VARIABLE: &str = "PYXIS_BPF_LINKER";
/// The `bpf-linker` that the kernel programs are tried with.
pub const LINKER_VERSION: &str = "0.13";
/// The compiler of Debian's packages; rustup's are never here.
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can build kernel programs.
#[derive(Debug, Clone)]
pub struct Compiler {
    pub rustc: PathBuf,
    pub cargo: PathBuf,
    /// `core` must be built first, from the toolchain's own sources.
    pub build_std: bool,
    /// LLVM's major version, which the linker must share.
    pub llvm: u32,
    /// What it says of itself.
    pub version: String,
}

/// Everything that is needed.
#[derive(Debug, Clone)]
pub struct Bpf {
    pub compiler: Compiler,
    pub linker: PathBuf,
}

impl Bpf {
    /// What of the tools decides the result, for content keys.
    pub fn identity(&self) -> String {
        let linker = run::output(Command::new(&self.linker).arg("--version")).unwrap_or_default();
        format!("{}\n{linker} on LLVM {}", self.compiler.version, self.compiler.llvm)
    }
}

/// Compilers that can build kernel programs now, best first.
pub fn compilers() -> Vec<Compiler> {
    let mut found = Vec::new();
    // Prebuilt `core`: nothing to build, nothing unstable.
    let active = active_rustc();
    for rustc in active.iter().map(PathBuf::as_path).chain([Path::new(DEBIAN_RUSTC)]) {
        found.extend(prebuilt(rustc));
    }
    // Sources of the standard library: the active toolchain, then a nightly.
    found.extend(active.as_deref().and_then(from_source));
    found.extend(rustup_rustc("nightly").as_deref().and_then(from_source));
    found
}

/// A compiler and a linker that fit each other, if they are here.
pub fn find(workspace: &Workspace) -> Option<Bpf> {
    compilers().into_iter().find_map(|compiler| {
        let linker = linker(workspace, compiler.llvm)?;
        Some(Bpf { compiler, linker })
    })
}

/// A linker that runs and stands on LLVM `major`.
pub fn linker(workspace: &Workspace, major: u32) -> Option<PathBuf> {
    if let Some(named) = env::var_os(LINKER_VARIABLE).filter(|value| !value.is_empty()) {
        return Some(named.into());
    }
    let on_path = env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    let folders = [linker_root(workspace, major).join("bin"), workspace.lib().join("tools/bin")];
    folders.into_iter().chain(on_path).map(|folder| folder.join("bpf-linker")).find(|path| fits(path, major))
}

/// Where `setup` puts the linker for LLVM `major`.
pub fn linker_root(workspace: &Workspace, major: u32) -> PathBuf {
    workspace.cache.join(format!("tools/bpf-linker-{LINKER_VERSION}-llvm{major}"))
}

/// The prefix of an LLVM `major` with its development files, which building the linker takes.
pub fn llvm_prefix(major: u32) -> Option<PathBuf> {
    let named = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let usual = [format!("/usr/lib/llvm-{major}"), format!("/usr/lib/llvm{major}"), format!("/usr/lib64/llvm{major}")];
    named.into_iter().chain(usual.map(PathBuf::from)).chain([PathBuf::from("/usr")]).find(|prefix| {
        let version = run::output(Command::new(prefix.join("bin/llvm-config")).arg("--version"));
        version.is_some_and(|version| version.split('.').next() == Some(&major.to_string()))
    })
}

/// The compiler at `rustc` when it has `core` for the target.
pub fn prebuilt(rustc: &Path) -> Option<Compiler> {
    let folder = run::output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    let has_core = entries.any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    });
    has_core.then(|| describe(rustc, false)).flatten()
}

/// The compiler at `rustc` when it has the sources of the standard library.
pub fn from_source(rustc: &Path) -> Option<Compiler> {
    let sysroot = run::output(Command::new(rustc).args(["--print", "sysroot"]))?;
    let sources = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    sources.is_file().then(|| describe(rustc, true)).flatten()
}

/// The compiler that a plain `rustc` in the workspace is, resolved past rustup's proxy.
pub fn active_rustc() -> Option<PathBuf> {
    let sysroot = run::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Some(Path::new(&sysroot).join("bin/rustc")).filter(|path| path.is_file())
}

/// The compiler of a rustup toolchain that is installed; never installs one.
pub fn rustup_rustc(toolchain: &str) -> Option<PathBuf> {
    run::output(
        Command::new("rustup").args(["which", "rustc", "--toolchain", toolchain]).env("RUSTUP_AUTO_INSTALL", "0"),
    )
    .map(PathBuf::from)
}

fn describe(rustc: &Path, build_std: bool) -> Option<Compiler> {
    let version = run::output(Command::new(rustc).arg("-vV"))?;
    let llvm = llvm_major(&version)?;
    let cargo = rustc.with_file_name("cargo");
    // Debian's compiler without Debian's cargo works with any other.
    let cargo = if cargo.is_file() { cargo } else { "cargo".into() };
    Some(Compiler { rustc: rustc.to_owned(), cargo, build_std, llvm, version })
}

fn llvm_major(version: &str) -> Option<u32> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

fn fits(linker: &Path, major: u32) -> bool {
    if !linker.is_file() || run::output(Command::new(linker).arg("--version")).is_none() {
        return false;
    }
    let libraries = run::output(Command::new("ldd").arg(linker)).unwrap_or_default();
    let dynamic: Vec<&str> = libraries.lines().filter(|line| line.contains("libLLVM")).collect();
    // One with LLVM linked in tells nothing; it is taken at its word and fails by name if it is too old.
    dynamic.is_empty()
        || dynamic
            .iter()
            .any(|line| line.contains(&format!("libLLVM.so.{major}")) || line.contains(&format!("libLLVM-{major}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_of_llvm_is_read_from_what_rustc_says() {
        assert_eq!(llvm_major("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\nLLVM version: unknown"), None);
    }
}
