//! `cargo xtask bench` and `cargo xtask fuzz`: programs in the tree that anyone can run.
//!
//! They are examples named `NAME_bench` and `fuzz_NAME` in the crate they are about; nothing lists them twice.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;

use crate::workspace::{self, SAME_FEATURES, Workspace};
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
    /// What Cargo knows the package by: crates.io has a `pem` too.
    id: String,
    /// Name without `_bench` or `fuzz_`.
    pub name: String,
    target: String,
}

/// `cargo xtask bench`.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let examples = examples(workspace, |name| name.strip_suffix("_bench"))?;
    let Some(example) = choose(&examples, args.name.as_deref(), "bench")? else { return Ok(()) };
    // Benchmarks of the whole start px, which looks for these; those of a part do not mind.
    ebpf::build(workspace)?;
    guests::build(workspace)?;
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--package", "px", "--package", "tests-shop", "--bins"]);
    build.args(["--package", &example.id, "--example", &example.target]).args(SAME_FEATURES);
    run::require(workspace, &format!("bench {} (release)", example.name), &mut build)?;

    let json = workspace::make(workspace.target.join("bench"))?.join(format!("{}.json", example.name));
    let _ = fs::remove_file(&json);
    let mut command = Command::new(workspace.target.join("release/examples").join(&example.target));
    command.current_dir(&workspace.root).args(&args.rest).env("PYXIS_BENCH_JSON", &json);
    command.env("PYXIS_LIB_DIR", workspace.lib()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", example.target))?;
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("asked for a pipe")).lines() {
        let line = line?;
        println!("{line}");
        lines.push(line);
    }
    if !child.wait()?.success() {
        bail!("bench {} failed", example.name);
    }
    if !json.is_file() {
        // One that writes no figures itself still leaves what it printed, for whoever compares runs.
        let rustc = run::output(Command::new("rustc").arg("--version")).unwrap_or_default();
        let record = serde_json::json!({ "name": example.name, "args": args.rest, "rustc": rustc, "lines": lines });
        fs::write(&json, serde_json::to_vec_pretty(&record)?)?;
    }
    eprintln!("figures: {}", json.display());
    Ok(())
}

/// `cargo xtask fuzz`.
pub fn fuzz(workspace: &Workspace, args: &FuzzArgs) -> Result<()> {
    let examples = fuzz_targets(workspace)?;
    let Some(example) = choose(&examples, args.name.as_deref(), "fuzz")? else { return Ok(()) };
    let mut command = fuzz_command(workspace, example, args.time)?;
    let status = command.args(&args.rest).status().with_context(|| format!("cannot start {}", example.target))?;
    if !status.success() {
        bail!("fuzz target {} found something: its message above says how to repeat it", example.name);
    }
    Ok(())
}

/// Builds a fuzz target and gives the command that runs it for `seconds`. In the dev profile, whose overflow checks and
/// debug assertions find more.
pub fn fuzz_command(workspace: &Workspace, example: &Example, seconds: u64) -> Result<Command> {
    let mut command = build(workspace, example)?;
    command.args(["--seconds", &seconds.to_string()]);
    Ok(command)
}

/// Builds an example of a package in the dev profile and gives the command that runs it.
pub fn example_command(workspace: &Workspace, package: &str, name: &str) -> Result<Command> {
    let found = examples(workspace, |target| (target == name).then_some(target))?;
    let example = found.iter().find(|example| example.package == package);
    build(workspace, example.with_context(|| format!("{package} has no example {name}"))?)
}

fn build(workspace: &Workspace, example: &Example) -> Result<Command> {
    let mut build = workspace.cargo();
    build.args(["build", "--package", &example.id, "--example", &example.target]).args(SAME_FEATURES);
    run::require(workspace, &format!("building {}", example.target), &mut build)?;
    let mut command = Command::new(workspace.target.join("debug/examples").join(&example.target));
    command.current_dir(&workspace.root);
    Ok(command)
}

/// Every fuzz target of the workspace.
pub fn fuzz_targets(workspace: &Workspace) -> Result<Vec<Example>> {
    examples(workspace, |name| name.strip_prefix("fuzz_"))
}

/// Examples of the workspace that `short` gives a name.
fn examples(workspace: &Workspace, short: impl Fn(&str) -> Option<&str>) -> Result<Vec<Example>> {
    let metadata = run::output(workspace.cargo().args(["metadata", "--no-deps", "--format-version", "1"]));
    let metadata: serde_json::Value = serde_json::from_str(&metadata.context("cargo metadata failed")?)?;
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let name = target["name"].as_str().unwrap_or_default();
            let example = target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "example"));
            if let (true, Some(short)) = (example, short(name)) {
                let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
                let (package, id) = (text("name"), text("id"));
                found.push(Example { package, id, name: short.to_owned(), target: name.to_owned() });
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
