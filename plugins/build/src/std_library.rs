//! Debian's toolchain has the standard library's source, not its build for our target: builds it once, into a sysroot of ours.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::toolchain::{Progress, TARGET, Toolchain, absolute, clean, first_line, has_core, has_target};

const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";

/// Debian's toolchain with a standard library for the target. Error: what is missing.
pub(crate) fn debian(cache_dir: &Path, progress: Progress<'_>) -> Result<Toolchain, String> {
    let cache_dir = absolute(cache_dir);
    let (cargo, rustc) = (PathBuf::from(CARGO), PathBuf::from(RUSTC));
    let version = first_line(clean(&rustc).arg("-vV"))?;
    first_line(clean(&cargo).arg("--version"))?;
    let found = |sysroot| Toolchain {
        cargo: cargo.clone(),
        rustc: rustc.clone(),
        sysroot,
        description: format!("{version}, Debian's"),
        cache_dir: cache_dir.clone(),
        debug: false,
    };
    if has_target(&rustc) {
        return Ok(found(None));
    }
    let own = PathBuf::from(first_line(clean(&rustc).args(["--print", "sysroot"]))?);
    let source = own.join("lib/rustlib/src/rust/library");
    if !source.join("std/Cargo.toml").exists() {
        return Err("the standard library's source is missing (apt-get install rust-web-src)".into());
    }
    if first_line(clean(Path::new("rust-lld")).args(["-flavor", "wasm", "--version"])).is_err() {
        return Err("rust-lld is missing (apt-get install rust-web-llvm)".into());
    }
    let key: String = version.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let sysroot = cache_dir.join(format!("sysroot-{key}"));
    if !has_core(&libdir(&sysroot)) {
        build(&cache_dir, &own, &sysroot, progress)?;
    }
    Ok(found(Some(sysroot)))
}

fn libdir(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib").join(TARGET).join("lib")
}

/// Builds std by way of an empty crate and lays the libraries out as a sysroot. The last step is a rename, so that a sysroot is
/// whole or not there.
fn build(cache_dir: &Path, own: &Path, sysroot: &Path, progress: Progress<'_>) -> Result<(), String> {
    let started = Instant::now();
    progress("building the standard library for WebAssembly, once (about 20 s)");
    let io = |what: &Path| {
        let what = what.display().to_string();
        move |e: std::io::Error| format!("{what}: {e}")
    };
    // One of these at a time is made by name of the process, so that two builds at once do not disturb each other.
    let work = cache_dir.join(format!("std-{}", std::process::id()));
    let crate_dir = work.join("empty");
    std::fs::create_dir_all(crate_dir.join("src")).map_err(io(&crate_dir))?;
    std::fs::write(
        crate_dir.join("Cargo.toml"),
        "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n[profile.release]\npanic = \"abort\"\n",
    )
    .map_err(io(&crate_dir))?;
    std::fs::write(crate_dir.join("src/lib.rs"), "").map_err(io(&crate_dir))?;
    let output = clean(Path::new(CARGO))
        .current_dir(&crate_dir)
        .env("RUSTC", RUSTC)
        // -Z build-std on a stable compiler: the switch that Debian's own packages build with.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", work.join("target"))
        // Guests are linked with fat LTO, which reads the libraries' bitcode; cargo leaves it out unless told.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cembed-bitcode=yes")
        .args(["build", "--release", "--target", TARGET, "-Z", "build-std=std,panic_abort"])
        .output()
        .map_err(|e| format!("{CARGO}: {e}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let _ = std::fs::remove_dir_all(&work);
        return Err(format!("building the standard library failed:\n{}", text.trim()));
    }
    let staged = work.join("sysroot");
    let to = libdir(&staged);
    std::fs::create_dir_all(&to).map_err(io(&to))?;
    let from = work.join("target").join(TARGET).join("release/deps");
    for entry in std::fs::read_dir(&from).map_err(io(&from))?.flatten() {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("lib") && text.ends_with(".rlib") && !text.starts_with("libempty") {
            std::fs::copy(entry.path(), to.join(&name)).map_err(io(&entry.path()))?;
        }
    }
    if !has_core(&to) {
        return Err(format!("no libcore came out of building the standard library in {}", from.display()));
    }
    // The rest of the sysroot (libraries for build scripts, the linker) is the toolchain's own.
    let rustlib = own.join("lib/rustlib");
    for entry in std::fs::read_dir(&rustlib).map_err(io(&rustlib))?.flatten() {
        let link = staged.join("lib/rustlib").join(entry.file_name());
        if !link.exists() {
            std::os::unix::fs::symlink(entry.path(), &link).map_err(io(&link))?;
        }
    }
    if let Err(e) = std::fs::rename(&staged, sysroot) {
        // Another build was faster: its result is as good.
        if !has_core(&libdir(sysroot)) {
            return Err(format!("{}: {e}", sysroot.display()));
        }
    }
    let _ = std::fs::remove_dir_all(&work);
    progress(&format!("standard library built in {:.0} s", started.elapsed().as_secs_f32()));
    Ok(())
}
