//! Builds the kernel programs, unless the same sources and tools have already given them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::digest::Digest;
use crate::toolchain::{Bpf, TARGET};
use crate::workspace::Workspace;
use crate::{cache, run, setup};

/// v3 has 32-bit instructions and jumps; every kernel from 5.10, our oldest, knows it. BTF is made from debug information.
const FLAGS: &str = "-C target-cpu=v3 -C debuginfo=2 -C link-arg=--btf";

/// Builds `pyxis.bpf.o` into the lib dir and gives its path.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let to = workspace.lib_folder("ebpf")?.join("pyxis.bpf.o");
    let bpf = setup::bpf(workspace)?;
    let key = Digest::default().text(FLAGS).text(&bpf.identity()).tree(&workspace.root.join("ebpf"))?.text("abi").key();
    if cache::artefact(workspace, &key, &to)? {
        eprintln!("  ✓ kernel programs (unchanged)");
        return Ok(to);
    }
    compile(workspace, &bpf)?;
    let built = workspace.target.join("bpf").join(TARGET).join("release/pyxis");
    fs::copy(&built, &to).with_context(|| format!("cannot copy {}", built.display()))?;
    cache::keep_artefact(workspace, &key, &to)?;
    Ok(to)
}

fn compile(workspace: &Workspace, bpf: &Bpf) -> Result<()> {
    let mut command = Command::new(&bpf.compiler.cargo);
    command
        .current_dir(workspace.root.join("ebpf"))
        .args(["build", "--release", "--target", TARGET, "--target-dir"])
        .arg(workspace.target.join("bpf"))
        .env("RUSTC", &bpf.compiler.rustc)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &bpf.linker)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", FLAGS)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // The toolchain is the one we name, not the one cargo was started with.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WRAPPER")
        // aya-ebpf writes BPF assembly, which stable compilers keep behind a feature gate.
        .env("RUSTC_BOOTSTRAP", "1");
    if bpf.compiler.build_std {
        command.args(["-Z", "build-std=core"]);
    }
    run::require(workspace, "kernel programs", &mut command)?;
    Ok(())
}
