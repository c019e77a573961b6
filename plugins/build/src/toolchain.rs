//! Finds a Rust toolchain that can build for [`TARGET`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::std_library;

/// Target of guests: no operating system, so that a guest can import nothing but our interfaces.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Environment variable that skips the search: `rustup` (what is on PATH, adding the target), `debian`, or the path of a `cargo`
/// whose neighbour `rustc` has the target.
pub const OVERRIDE: &str = "PYXIS_WASM_TOOLCHAIN";

/// What Debian calls its toolchain, the standard library's source and the linker.
const DEBIAN_PACKAGES: &str = "rustc-web cargo-web rust-web-src rust-web-llvm";

/// Takes lines that tell a person what goes on.
pub type Progress<'a> = &'a dyn Fn(&str);

/// A toolchain that can build for [`TARGET`].
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// `cargo` to call.
    pub cargo: PathBuf,
    /// `rustc` it shall use.
    pub rustc: PathBuf,
    /// A sysroot of ours that has the target's standard library, where the toolchain's own has not.
    pub sysroot: Option<PathBuf>,
    /// `rustc --version`, and where it was found.
    pub description: String,
    /// Where guests are compiled and what is built once is kept.
    pub cache_dir: PathBuf,
    /// Keep line tables, so that a trap is told with files and lines. They make a component several times as large.
    pub debug: bool,
}

impl Toolchain {
    /// Tries, in this order: the toolchain on PATH as it is; the same after `rustup target add`; Debian's own (`rustc-web`,
    /// `cargo-web`, `rust-web-src`, `rust-web-llvm`), whose standard library is built once into `cache_dir`. Nothing outside
    /// `cache_dir` is written but what rustup writes.
    pub fn find(cache_dir: &Path, progress: Progress<'_>) -> Result<Self, Error> {
        let wanted = std::env::var(OVERRIDE).unwrap_or_default();
        let mut attempts = Vec::new();
        match wanted.as_str() {
            "" | "rustup" | "debian" => {}
            path => return from_path(Path::new(path), cache_dir, "chosen by PYXIS_WASM_TOOLCHAIN"),
        }
        if wanted != "debian" {
            match on_path(cache_dir, progress) {
                Ok(found) => return Ok(found),
                Err(why) => attempts.push(why),
            }
        }
        if wanted != "rustup" {
            match Self::debian(cache_dir, progress) {
                Ok(found) => return Ok(found),
                Err(Error::NoToolchain { attempts: why, .. }) => attempts.push(why),
                Err(other) => return Err(other),
            }
        }
        Err(Error::NoToolchain {
            attempts: attempts.join("\n"),
            advice: format!("do one of:\n  rustup target add {TARGET}\n  sudo apt-get install {DEBIAN_PACKAGES}"),
        })
    }

    /// Debian's own, whatever else there is.
    pub fn debian(cache_dir: &Path, progress: Progress<'_>) -> Result<Self, Error> {
        std_library::debian(cache_dir, progress).map_err(|why| Error::NoToolchain {
            attempts: format!("- Debian's toolchain in /usr/bin: {why}"),
            advice: format!("install it: sudo apt-get install {DEBIAN_PACKAGES}"),
        })
    }

    /// `cargo`, with an environment in which it builds for [`TARGET`] whatever toolchain and flags the caller itself was built
    /// with. `dir` is the workspace whose paths are kept out of the result; `beside` are folders of crates elsewhere, with the names
    /// that stand for them.
    pub fn cargo(&self, dir: &Path, beside: &[(PathBuf, String)]) -> Command {
        let mut command = clean(&self.cargo);
        command.env("RUSTC", &self.rustc);
        command.env("CARGO_TARGET_DIR", self.cache_dir.join("build"));
        // Cargo's own separator for flags that may hold spaces, as paths may.
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags(dir, beside).join(&OsString::from("\u{1f}")));
        command
    }

    fn flags(&self, dir: &Path, beside: &[(PathBuf, String)]) -> Vec<OsString> {
        let mut flags: Vec<OsString> = Vec::new();
        if let Some(sysroot) = &self.sysroot {
            let mut flag = OsString::from("--sysroot=");
            flag.push(sysroot);
            flags.push(flag);
        }
        // The same source shall give the same bytes wherever it lies: file names end up in panic messages.
        let own = |from: PathBuf, to: &str| (from, to.to_owned());
        let remaps = [own(dir.to_owned(), "/plugin"), own(self.cache_dir.clone(), "/build")];
        let home = cargo_home().map(|home| own(home, "/cargo"));
        for (from, to) in remaps.into_iter().chain(home).chain(beside.iter().cloned()) {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from);
            flag.push("=");
            flag.push(to);
            flags.push(flag);
        }
        flags
    }
}

/// A command that does not inherit the toolchain choices of the cargo this process may run under.
pub(crate) fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let inherited = name_text.starts_with("CARGO_")
            && !matches!(&*name_text, "CARGO_HOME" | "CARGO_HTTP_PROXY" | "CARGO_NET_OFFLINE")
            && !name_text.starts_with("CARGO_REGISTR")
            && !name_text.starts_with("CARGO_HTTP_")
            && !name_text.starts_with("CARGO_SOURCE_")
            || matches!(
                &*name_text,
                "CARGO" | "RUSTC" | "RUSTDOC" | "RUSTFLAGS" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER"
            )
            || matches!(
                &*name_text,
                "RUSTUP_TOOLCHAIN" | "RUST_RECURSION_COUNT" | "LD_LIBRARY_PATH" | "RUSTC_BOOTSTRAP"
            );
        if inherited {
            command.env_remove(&name);
        }
    }
    command
}

fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")))
}

/// First line a command prints, or why it did not.
pub(crate) fn first_line(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}", error.trim().lines().next_back().unwrap_or("failed")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim().to_owned()).ok_or_else(|| format!("{program} printed nothing"))
}

/// Whether `rustc` has the target's core library.
pub(crate) fn has_target(rustc: &Path) -> bool {
    let Ok(libdir) = first_line(clean(rustc).args(["--print", "target-libdir", "--target", TARGET])) else {
        return false;
    };
    has_core(Path::new(&libdir))
}

pub(crate) fn has_core(libdir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(libdir) else { return false };
    entries.flatten().any(|e| {
        let name = e.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

fn from_path(cargo: &Path, cache_dir: &Path, why: &str) -> Result<Toolchain, Error> {
    let rustc = cargo.with_file_name("rustc");
    if !has_target(&rustc) {
        return Err(Error::NoToolchain {
            attempts: format!("- {} ({why}): {} has no {TARGET}", cargo.display(), rustc.display()),
            advice: format!("unset {OVERRIDE}, or name a cargo whose rustc has the target"),
        });
    }
    Ok(plain(cargo.to_owned(), rustc, cache_dir, why))
}

fn plain(cargo: PathBuf, rustc: PathBuf, cache_dir: &Path, why: &str) -> Toolchain {
    let version = first_line(clean(&rustc).arg("--version")).unwrap_or_else(|e| e);
    Toolchain {
        cargo,
        rustc,
        sysroot: None,
        description: format!("{version}, {why}"),
        cache_dir: absolute(cache_dir),
        debug: false,
    }
}

pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The toolchain that a shell in this folder would use.
fn on_path(cache_dir: &Path, progress: Progress<'_>) -> Result<Toolchain, String> {
    let (cargo, rustc) = (PathBuf::from("cargo"), PathBuf::from("rustc"));
    first_line(clean(&rustc).arg("--version")).map_err(|e| format!("- the toolchain on PATH: {e}"))?;
    if has_target(&rustc) {
        return Ok(plain(cargo, rustc, cache_dir, "which has the target"));
    }
    if first_line(Command::new("rustup").arg("--version")).is_err() {
        return Err(format!("- the toolchain on PATH: has no {TARGET}, and there is no rustup to add it"));
    }
    progress(&format!("adding {TARGET} with rustup"));
    // A machine without the way out fails in a second or two; one behind a silent proxy would not: rustup gives up by itself
    // after its connect timeout, and with no retries that is half a minute.
    let output = clean(Path::new("rustup"))
        .env("RUSTUP_MAX_RETRIES", "0")
        .args(["target", "add", TARGET])
        .output()
        .map_err(|e| format!("- rustup target add: {e}"))?;
    if output.status.success() && has_target(&rustc) {
        return Ok(plain(cargo, rustc, cache_dir, "target added with rustup"));
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let reason = text.lines().find(|l| l.starts_with("error")).or_else(|| text.lines().next_back()).unwrap_or("failed");
    Err(format!("- rustup target add {TARGET}: {}", reason.trim_start_matches("error: ")))
}
