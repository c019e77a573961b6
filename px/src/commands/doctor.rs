//! `px doctor`: what this machine allows, and the one command that mends each lack.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::json;

use crate::cli::Global;
use crate::client;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::text::sanitize;
use crate::paths;
use crate::style::{Terminal, Tone};

use super::listing::{ListArgs, ListFormat, print};

/// Tell what this machine allows, and how to mend what it lacks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px doctor            as you
  sudo px doctor       as root
  px doctor -o json    for programs

Exits with 1 when px up could not watch this machine.")]
pub struct Doctor {
    #[command(flatten)]
    pub list: ListArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Failure,
}

struct Check {
    name: String,
    level: Level,
    found: String,
    fix: String,
}

impl Check {
    fn ok(name: &str, found: impl Into<String>) -> Check {
        Check { name: name.into(), level: Level::Ok, found: found.into(), fix: String::new() }
    }

    fn lack(name: &str, level: Level, found: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { name: name.into(), level, found: found.into(), fix: fix.into() }
    }
}

pub fn run(command: &Doctor, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let lib = paths::lib_dir();
    let mut checks = vec![installed(lib.as_deref())];
    let object = lib.clone().unwrap_or_else(|| PathBuf::from("lib/pyxis")).join("ebpf/pyxis.bpf.o");
    checks.extend(pem::probes::doctor::checks(&object).into_iter().map(convert));
    checks.push(scripts(lib.as_deref()));
    checks.push(running());
    checks.push(plugins());
    let failed = checks.iter().any(|check| check.level == Level::Failure);
    if command.list.output == ListFormat::Table {
        print(&render(&checks, &terminal, failed))?;
    } else {
        let items = checks.iter().map(|check| {
            let level = match check.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Failure => "failure",
            };
            json!({ "name": check.name, "level": level, "found": check.found, "fix": check.fix })
        });
        command.list.print(&terminal, "checks", items.collect(), || unreachable!("not a table"))?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

fn convert(check: pem::probes::doctor::Check) -> Check {
    use pem::probes::doctor::Level as L;
    let level = match check.level {
        L::Ok => Level::Ok,
        L::Warning => Level::Warning,
        // That one is not root is no lack of the machine: px up asks sudo.
        L::Failure if check.name == "privileges" && sudo_there() => {
            return Check::ok(check.name, "not as this user; px up asks sudo for the probe helper");
        }
        L::Failure if check.name == "privileges" => {
            return Check::lack(check.name, Level::Failure, check.found, "su -c 'px up'");
        }
        L::Failure => Level::Failure,
    };
    Check { name: check.name.to_owned(), level, found: check.found, fix: check.fix }
}

fn sudo_there() -> bool {
    Command::new("sudo").arg("-V").output().is_ok_and(|output| output.status.success())
}

fn installed(lib: Option<&Path>) -> Check {
    match lib {
        Some(dir) if dir.is_dir() => Check::ok("installation", dir.display().to_string()),
        Some(dir) => Check::lack(
            "installation",
            Level::Failure,
            format!("PYXIS_LIB_DIR names {}, which is no folder", dir.display()),
            "unset PYXIS_LIB_DIR",
        ),
        None => Check::lack(
            "installation",
            Level::Failure,
            "kernel programs and scripts are not where px looks for them",
            "cargo xtask guests && cargo xtask ebpf",
        ),
    }
}

fn scripts(lib: Option<&Path>) -> Check {
    let dir = lib.map(|lib| lib.join("plugins"));
    let wasm = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "wasm");
    let count = dir
        .and_then(|dir| std::fs::read_dir(dir).ok())
        .map_or(0, |entries| entries.flatten().filter(|entry| wasm(entry)).count());
    match count {
        0 => Check::lack("scripts", Level::Warning, "none are installed: only px sql works", "cargo xtask guests"),
        _ => Check::ok("scripts", crate::output::human::plural(count as u64, "bundled script")),
    }
}

fn running() -> Check {
    match client::discover() {
        Ok(socket) => Check::ok("Vizier", format!("runs at {}", socket.display())),
        Err(error) if error.code == crate::error::Code::Denied => {
            Check::lack("Vizier", Level::Warning, error.message, error.hint.unwrap_or_default())
        }
        Err(_) => Check::ok("Vizier", "does not run; px up starts it"),
    }
}

/// Only for those who write scripts: its absence is no failure.
fn plugins() -> Check {
    const NAME: &str = "plugin toolchain";
    let target = "wasm32-unknown-unknown";
    let libs = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    let on_path = libs.is_ok_and(|output| {
        let dir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let core = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libcore-");
        output.status.success() && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(core)))
    });
    if on_path {
        return Check::ok(NAME, format!("rustc has {target}"));
    }
    if Path::new("/usr/bin/cargo").exists() && Path::new("/usr/lib/rustlib/src/rust").exists()
        || Path::new("/usr/src/rustc-web").exists()
    {
        return Check::ok(NAME, "Debian's Rust, which px plugin build uses");
    }
    let fix = format!("rustup target add {target}");
    Check::lack(NAME, Level::Warning, format!("rustc has no {target}: px plugin build may not work"), fix)
}

fn render(checks: &[Check], terminal: &Terminal, failed: bool) -> String {
    let style = terminal.out;
    let wide = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let (mark, tone) = match check.level {
            Level::Ok => ("ok  ", Tone::Good),
            Level::Warning => ("warn", Tone::Warn),
            Level::Failure => ("FAIL", Tone::Bad),
        };
        let mark = style.paint(tone, mark);
        out.push_str(&format!("{mark}  {:<wide$}  {}\n", check.name, sanitize(&check.found)));
        if !check.fix.is_empty() {
            let pad = " ".repeat(wide + 6);
            out.push_str(&format!("{pad}  {} {}\n", style.dim("mend it:"), style.accent(&sanitize(&check.fix))));
        }
    }
    out.push('\n');
    if failed {
        out.push_str(&style.paint(Tone::Bad, "px up cannot watch this machine as it is."));
        match paths::demo_capture() {
            Some(file) => out.push_str(&format!(" A recording works without: px up --replay {}\n", file.display())),
            None => out.push_str(" A recording works without: px up --replay FILE\n"),
        }
    } else {
        out.push_str(&format!("{}\n", style.paint(Tone::Good, "px up can watch this machine.")));
    }
    out
}
