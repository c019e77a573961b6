//! The kernel object under test, and whether this machine can run it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Programs of one test would count the traffic of another's processes: one at a time.
pub static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Where it is.
pub fn object() -> PathBuf {
    let lib = std::env::var("PYXIS_LIB_DIR").map(PathBuf::from).unwrap_or_else(|_| {
        // target/debug/deps/probes-… or target/debug/…: target/pyxis lies beside the profile's folder.
        let exe = std::env::current_exe().unwrap();
        exe.ancestors()
            .map(|folder| folder.join("pyxis"))
            .find(|lib| lib.join("ebpf").is_dir())
            .unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/pyxis")))
    });
    lib.join("ebpf/pyxis.bpf.o")
}

/// Why these tests cannot run here.
pub fn lack() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("loading kernel programs needs root".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF".to_owned());
    }
    if !object().exists() {
        return Some(format!("no kernel programs at {}: run `cargo xtask ebpf`", object().display()));
    }
    None
}
