//! `cargo xtask lint`: format, clippy, and cargo-deny where it is installed.

use std::process::Command;

use anyhow::{Result, bail};

use crate::run;
use crate::workspace::Workspace;

/// Runs all of them and fails if one does.
pub fn run(workspace: &Workspace) -> Result<()> {
    let mut failed = Vec::new();
    let mut check = |name: &'static str, command: &mut Command| -> Result<()> {
        let outcome = run::step(workspace, name, command, None)?;
        if !outcome.ok {
            eprintln!("{}", outcome.tail());
            failed.push(name);
        }
        Ok(())
    };
    match format_check(workspace) {
        Some(mut command) => check("format", &mut command)?,
        None => eprintln!("    SKIPPED: format: rustfmt is not installed (rustup component add rustfmt)"),
    }
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    check("clippy", &mut clippy)?;
    if run::output(Command::new("cargo-deny").arg("--version")).is_some() {
        let mut deny = workspace.cargo();
        deny.args(["deny", "check"]);
        check("cargo-deny", &mut deny)?;
    } else {
        eprintln!("    SKIPPED: cargo-deny is not installed (cargo install cargo-deny)");
    }
    if !failed.is_empty() {
        bail!("{} failed", failed.join(", "));
    }
    Ok(())
}

/// `cargo fmt --check`, when there is a rustfmt.
pub fn format_check(workspace: &Workspace) -> Option<Command> {
    run::output(Command::new("rustfmt").arg("--version"))?;
    let mut command = workspace.cargo();
    command.args(["fmt", "--all", "--check"]);
    Some(command)
}
