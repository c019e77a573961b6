//! Gets the toolchains that are missing, by the order that suits both a machine with downloads and one without.
//!
//! Kernel programs: (1) whatever is usable already; (2) rustup: `rust-src` for a toolchain whose LLVM is installed, `core`
//! built from it; (3) Debian's packages, LLVM's major read from Debian's compiler. Then `bpf-linker` on that LLVM, into
//! the cache. Scripts: the same idea for wasm32, in `plugins-build`, which `px plugin build` shares.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::step;
use crate::toolchain::{self, Bpf, Compiler};
use crate::workspace::Workspace;
use crate::{guests, run};

/// rustup without a network retries; a machine that can download needs seconds.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);
/// LLVM majors that `bpf-linker` of our version can stand on.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// Debian's compiler with `core` for kernel programs, std's sources for wasm32, and the linker for the latter.
const DEBIAN_COMPILER: [&str; 5] =
    ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm", "libstd-rust-web-dev-bpf"];

/// `cargo xtask setup`.
pub fn run(workspace: &Workspace) -> Result<()> {
    eprintln!("Pyxis builds for three targets: this machine, the kernel (bpf) and scripts (wasm32).");
    eprintln!(
        "What has to be built or fetched once is kept in {} (PYXIS_CACHE_DIR moves it).",
        workspace.cache.display()
    );
    let bpf = bpf(workspace);
    let wasm = guests::toolchain(workspace);
    match &bpf {
        Ok(bpf) => eprintln!("  {} kernel programs: {}", step::green("✓"), tell(bpf)),
        Err(error) => eprintln!("  {} kernel programs: {error:#}", step::red("✗")),
    }
    match &wasm {
        Ok(toolchain) => eprintln!("  {} scripts: {}", step::green("✓"), guests::tell(toolchain)),
        Err(error) => eprintln!("  {} scripts: {error:#}", step::red("✗")),
    }
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        eprintln!("  {} this kernel has BTF", step::green("✓"));
    } else {
        eprintln!("  {} this kernel has no BTF: live capture is off, the demo replays a capture", step::red("✗"));
    }
    if bpf.is_err() || wasm.is_err() {
        bail!("not all toolchains are there; the lines above say what to do");
    }
    Ok(())
}

/// Debian's compiler, for those whom rustup could not help.
pub fn install_debian_compiler(workspace: &Workspace) -> Result<()> {
    if run::output(Command::new("apt-get").arg("--version")).is_none() {
        bail!("no apt-get here");
    }
    install(workspace, &DEBIAN_COMPILER)
}

/// What builds kernel programs, installed if need be.
pub fn bpf(workspace: &Workspace) -> Result<Bpf> {
    if let Some(bpf) = toolchain::find(workspace) {
        return Ok(bpf);
    }
    let mut tried = Vec::new();
    let compiler = match usable(toolchain::compilers()) {
        Some(compiler) => compiler,
        None => match rustup(workspace, &mut tried).or_else(|| debian(workspace, &mut tried)) {
            Some(compiler) => compiler,
            None => bail!("no compiler for {}:\n      {}", toolchain::TARGET, tried.join("\n      ")),
        },
    };
    let linker = install_linker(workspace, &compiler)?;
    Ok(Bpf { compiler, linker })
}

fn tell(bpf: &Bpf) -> String {
    let version = bpf.compiler.version.lines().next().unwrap_or_default();
    format!("{version} ({}), {}", bpf.compiler.rustc.display(), bpf.linker.display())
}

/// The first compiler on whose LLVM the linker can be built here.
fn usable(compilers: Vec<Compiler>) -> Option<Compiler> {
    compilers
        .into_iter()
        .find(|compiler| LINKER_LLVM.contains(&compiler.llvm) && toolchain::llvm_prefix(compiler.llvm).is_some())
}

fn rustup(workspace: &Workspace, tried: &mut Vec<String>) -> Option<Compiler> {
    if run::output(Command::new("rustup").arg("--version")).is_none() {
        tried.push("rustup: not installed".to_owned());
        return None;
    }
    for name in ["", "nightly"] {
        let rustc = if name.is_empty() { toolchain::active_rustc() } else { toolchain::rustup_rustc(name) };
        let shown = if name.is_empty() { "the active toolchain" } else { name };
        let Some(rustc) = rustc else {
            tried.push(format!("rustup: {shown} is not installed"));
            continue;
        };
        let major = run::output(Command::new(&rustc).arg("-vV")).unwrap_or_default();
        let major = major.lines().find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok());
        let Some(major) = major.filter(|major| toolchain::llvm_prefix(*major).is_some()) else {
            let major = major.map_or("?".to_owned(), |major: u32| major.to_string());
            tried.push(format!(
                "rustup: {shown} is on LLVM {major}, whose llvm-{major}-dev is not installed (bpf-linker needs it)"
            ));
            continue;
        };
        let mut command = Command::new("rustup");
        command.args(["component", "add", "rust-src"]).env("RUSTUP_MAX_RETRIES", "0");
        if !name.is_empty() {
            command.args(["--toolchain", name]);
        }
        let added =
            run::step(workspace, &format!("rustup component add rust-src ({shown})"), &mut command, Some(RUSTUP_LIMIT));
        match (added, toolchain::from_source(&rustc)) {
            (Ok(outcome), Some(compiler)) if outcome.ok => return Some(compiler),
            _ => tried.push(format!("rustup: rust-src for {shown} (LLVM {major}) could not be downloaded")),
        }
    }
    None
}

fn debian(workspace: &Workspace, tried: &mut Vec<String>) -> Option<Compiler> {
    if run::output(Command::new("apt-get").arg("--version")).is_none() {
        tried.push(
            "packages: no apt-get here; install rust-src by rustup and the llvm-dev of the same major".to_owned(),
        );
        return None;
    }
    match install(workspace, &DEBIAN_COMPILER) {
        Ok(()) => {}
        Err(error) => {
            tried.push(format!("packages: {error:#}"));
            return None;
        }
    }
    let Some(compiler) = toolchain::prebuilt(Path::new(toolchain::DEBIAN_RUSTC)) else {
        tried.push(format!("packages: {} has no {} even so", toolchain::DEBIAN_RUSTC, toolchain::TARGET));
        return None;
    };
    let packages = llvm_packages(compiler.llvm);
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    match install(workspace, &packages) {
        Ok(()) => Some(compiler),
        Err(error) => {
            tried.push(format!("packages: {} is on LLVM {}: {error:#}", toolchain::DEBIAN_RUSTC, compiler.llvm));
            None
        }
    }
}

/// What the linker is built with, for the LLVM that Debian's compiler has; the number moves with security updates.
fn llvm_packages(major: u32) -> Vec<String> {
    vec![
        format!("lld-{major}"),
        format!("clang-{major}"),
        format!("llvm-{major}-dev"),
        format!("libpolly-{major}-dev"),
        "libzstd-dev".to_owned(),
    ]
}

/// Installs those of `packages` that are missing, as root, or says how.
fn install(workspace: &Workspace, packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let apt = ["apt-get", "install", "--yes", "--no-install-recommends"];
    if !Uid::effective().is_root() {
        bail!("run: sudo {} {}", apt.join(" "), missing.join(" "));
    }
    let command = || {
        let mut command = Command::new(apt[0]);
        command.args(&apt[1..]).args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let name = format!("apt-get install {}", missing.join(" "));
    if run::step(workspace, &name, &mut command(), None)?.ok {
        return Ok(());
    }
    // Lists that are empty or old are the usual reason.
    run::step(workspace, "apt-get update", Command::new("apt-get").arg("update"), None)?;
    let second = run::step(workspace, &name, &mut command(), None)?;
    if !second.ok {
        let reason = second.text.lines().rev().find(|line| line.starts_with("E:")).unwrap_or("see the log").to_owned();
        bail!("apt-get cannot install {}: {reason} ({})", missing.join(" "), second.log.display());
    }
    Ok(())
}

fn installed(package: &str) -> bool {
    let status = run::output(Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]));
    status.is_some_and(|status| status.ends_with("ok installed"))
}

fn install_linker(workspace: &Workspace, compiler: &Compiler) -> Result<std::path::PathBuf> {
    let major = compiler.llvm;
    if !LINKER_LLVM.contains(&major) {
        bail!(
            "{} is on LLVM {major}; bpf-linker {} knows {} to {}: set {} to a linker for it",
            compiler.rustc.display(),
            toolchain::LINKER_VERSION,
            LINKER_LLVM.start(),
            LINKER_LLVM.end(),
            toolchain::LINKER_VARIABLE
        );
    }
    let prefix = toolchain::llvm_prefix(major).with_context(|| {
        format!("no llvm-config of LLVM {major}: run sudo apt-get install llvm-{major}-dev, or set LLVM_PREFIX")
    })?;
    let root = toolchain::linker_root(workspace, major);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([prefix.join("bin")].into_iter().chain(std::env::split_paths(&path)))?;
    let mut command = workspace.cargo();
    command
        .args(["install", "bpf-linker", "--version", &format!("^{}", toolchain::LINKER_VERSION)])
        .args(["--no-default-features", "--features", &format!("llvm-{major}"), "--root"])
        .arg(&root)
        // A folder of its own: the workspace's settings and its lock are no business of a tool's.
        .current_dir(workspace.cache_folder("tools")?)
        .env("CARGO_TARGET_DIR", workspace.cache.join("tools/build"))
        .env("PATH", path)
        .env("LLVM_PREFIX", &prefix);
    run::require(workspace, &format!("bpf-linker {} on LLVM {major}", toolchain::LINKER_VERSION), &mut command)?;
    let _ = std::fs::remove_dir_all(workspace.cache.join("tools/build"));
    toolchain::linker(workspace, major).context("bpf-linker was built but does not run; see the log of that step")
}
