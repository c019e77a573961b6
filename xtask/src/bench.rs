//! `cargo xtask bench` and `cargo xtask fuzz`: programs in the tree that anyone can run.
//!
//! They are examples named `bench_NAME` and `fuzz_NAME` in the crate they are about; nothing lists them twice.

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;

use crate::workspace::{self, Workspace};
use crate::{ebpf, guests, run};

#[derive(ClapArgs)]
pub struct Args {
    /// Which one; without it, they are listed.
    pub name: Option<String>,
    /// Passed on to the benchmark.
    #[arg(last = true)]
    pub rest: Vec<String>,
}

#[derive(ClapArgs)]
pub struct FuzzArgs {
    /// Which one; without it, they are listed.
    pub name: Option<String>,
    /// How long, in seconds.
    #[arg(long, default_value_t = 60)]
    pub time: u64,
    /// Passed on to the target.
    #[arg(last = true)]
    pub rest: Vec<String>,
}

/// An example of one of our packages.
pub struct Example {
    pub package: String,
    /// Name without the prefix.
    pub name: String,
    target: String,
}

/// `cargo xtask bench`.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let examples = examples(workspace, "bench_")?;
    let Some(example) = choose(&examples, args.name.as_deref(), "bench")? else { return Ok(()) };
    // Benchmarks of the whole need what px needs; those of a part do not mind it.
    ebpf::build(workspace)?;
    guests::build(workspace)?;
    let mut programs = workspace.cargo();
    programs.args(["build", "--release", "--package", "px", "--package", "tests-shop"]);
    if example.package == "tests" {
        run::require(workspace, "px and the shop (release)", &mut programs)?;
    }
    let results = workspace::make(workspace.target.join("bench"))?;
    let json = results.join(format!("{}.json", example.name));
    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--release", "--package", &example.package, "--example", &example.target, "--"]);
    // They print a table; the same figures go to a file for whoever compares runs.
    command.args(&args.rest).env("PYXIS_BENCH_JSON", &json).env("PYXIS_PROFILE", "release");
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("bench {} failed", example.name);
    }
    if json.is_file() {
        eprintln!("figures: {}", json.display());
    }
    Ok(())
}

/// `cargo xtask fuzz`.
pub fn fuzz(workspace: &Workspace, args: &FuzzArgs) -> Result<()> {
    let examples = examples(workspace, "fuzz_")?;
    let Some(example) = choose(&examples, args.name.as_deref(), "fuzz")? else { return Ok(()) };
    let mut command = fuzz_command(workspace, example, args.time);
    let status = command.args(&args.rest).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("fuzz target {} found something: its message above says how to repeat it", example.name);
    }
    Ok(())
}

/// The command that runs a fuzz target for `seconds`. The dev profile keeps overflow checks and debug assertions on.
pub fn fuzz_command(workspace: &Workspace, example: &Example, seconds: u64) -> std::process::Command {
    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--package", &example.package, "--example", &example.target, "--"]);
    command.args(["--seconds", &seconds.to_string()]);
    command
}

/// Examples of the workspace whose names begin with `prefix`.
pub fn examples(workspace: &Workspace, prefix: &str) -> Result<Vec<Example>> {
    let metadata = run::output(workspace.cargo().args(["metadata", "--no-deps", "--format-version", "1"]));
    let metadata: serde_json::Value = serde_json::from_str(&metadata.context("cargo metadata failed")?)?;
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let name = target["name"].as_str().unwrap_or_default();
            let example = target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "example"));
            if let (true, Some(short)) = (example, name.strip_prefix(prefix)) {
                let package = package["name"].as_str().unwrap_or_default().to_owned();
                found.push(Example { package, name: short.to_owned(), target: name.to_owned() });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn choose<'a>(examples: &'a [Example], name: Option<&str>, verb: &str) -> Result<Option<&'a Example>> {
    let list = || examples.iter().map(|example| example.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(name) = name else {
        for example in examples {
            println!("{:12} {}", example.name, example.package);
        }
        return Ok(None);
    };
    match examples.iter().find(|example| example.name == name) {
        Some(example) => Ok(Some(example)),
        None => bail!("no {verb} named `{name}`; there are: {}", list()),
    }
}
