//! `cargo xtask`: everything one does with this repository, in the order a stranger needs it.
#![forbid(unsafe_code)]

mod bench;
mod cache;
mod demo;
mod digest;
mod dist;
mod ebpf;
mod guests;
mod lint;
mod run;
mod setup;
mod shop;
mod signals;
mod step;
mod test;
mod toolchain;
mod up;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of Pyxis. Start with `cargo xtask demo`.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what building for the kernel and for WebAssembly needs.
    Setup,
    /// Build everything, start a small shop of real programs, and show its live requests until Ctrl-C.
    Demo(demo::Args),
    /// Everything CI runs; with FILTER only the tests whose names contain it.
    Test(test::Args),
    /// Run a benchmark in release mode; without NAME, list them.
    Bench(bench::Args),
    /// Run a fuzz target for a while; without NAME, list them.
    Fuzz(bench::FuzzArgs),
    /// Build the kernel programs.
    Ebpf,
    /// Build the bundled scripts.
    Guests,
    /// Record the shop into the capture that ships with the tree. Needs root and BTF.
    Capture(demo::CaptureArgs),
    /// Release binary, kernel object and bundled scripts in one archive.
    Dist,
    /// Format check, clippy, and cargo-deny where it is installed.
    Lint,
    /// Build the Live UI.
    Ui,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Ui = cli.command {
        eprintln!("there is no web crate yet: the Live UI comes with its own issue; until then `px run` shows results");
        return ExitCode::from(2);
    }
    let outcome = Workspace::find().and_then(|workspace| match cli.command {
        Command::Setup => setup::run(&workspace),
        Command::Demo(args) => demo::run(&workspace, &args),
        Command::Test(args) => test::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Fuzz(args) => bench::fuzz(&workspace, &args),
        Command::Ebpf => ebpf::build(&workspace).map(|_| ()),
        Command::Guests => guests::build(&workspace).map(|_| ()),
        Command::Capture(args) => demo::capture(&workspace, &args),
        Command::Dist => dist::run(&workspace),
        Command::Lint => lint::run(&workspace),
        Command::Ui => unreachable!("answered above"),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", step::red("error:"));
            ExitCode::FAILURE
        }
    }
}
