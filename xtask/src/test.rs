//! `cargo xtask test`: everything CI runs, and nothing that a stranger would not.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args as ClapArgs;

use crate::run::Outcome;
use crate::step::{elapsed, green, red};
use crate::workspace::Workspace;
use crate::{bench, cache, demo, ebpf, guests, lint, run, setup, shop};

/// How long the fuzz targets run in all; by hand, `cargo xtask fuzz NAME --time N` runs one for as long as wanted.
const FUZZ_SECONDS: u64 = 60;

#[derive(ClapArgs)]
pub struct Args {
    /// Only tests whose names contain this; the fuzz targets, the demo and the format check are left out then.
    pub filter: Option<String>,
}

/// Runs it all, prints `N passed, N failed`, and fails when something did.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let keep = cache::restore_dependencies(workspace)?;
    tally.prepare(workspace)?;
    match &args.filter {
        Some(filter) => tests(workspace, &mut tally, Some(filter))?,
        None => {
            format(workspace, &mut tally)?;
            tests(workspace, &mut tally, None)?;
            fuzz(workspace, &mut tally)?;
            tally.chore("demo --once", demo::once(workspace));
            cache::keep_dependencies(workspace, &keep)?;
        }
    }
    tally.report(start.elapsed());
    if tally.failed > 0 {
        bail!("{} failed", tally.failed);
    }
    if tally.passed == 0 {
        bail!("no test has a name with `{}` in it", args.filter.as_deref().unwrap_or_default());
    }
    Ok(())
}

fn tests(workspace: &Workspace, tally: &mut Tally, filter: Option<&str>) -> Result<()> {
    let cargo = |args: &[&str], harness: &[&str]| {
        let mut command = workspace.cargo();
        command.arg("test").args(args).arg("--no-fail-fast").args(filter).arg("--");
        // What a test skips it says on its own output, which only this shows for one that passes.
        command.arg("--show-output").args(harness);
        // All is built by now: what is missing even so is a failure and not a reason to skip.
        command.env("PYXIS_TESTS_BUILT", "1");
        command
    };
    tally.cargo_test(workspace, "unit tests", &mut cargo(&["--workspace", "--exclude", "tests"], &[]))?;
    tally.cargo_test(
        workspace,
        "structure tests",
        &mut cargo(&["--package", "tests", "--package", "xtask-deps", "--test", "structure"], &[]),
    )?;
    // One after the other: each starts the whole system, and some measure it.
    let system =
        &mut cargo(&["--package", "tests", "--package", "xtask-deps", "--test", "system"], &["--test-threads", "1"]);
    tally.cargo_test(workspace, "system tests", system)
}

fn format(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    match lint::format_check(workspace) {
        Some(mut command) => tally.command(workspace, "format", &mut command),
        None => {
            tally.skipped.insert("format: rustfmt is not installed".to_owned());
            Ok(())
        }
    }
}

fn fuzz(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let targets = bench::fuzz_targets(workspace)?;
    let each = FUZZ_SECONDS / (targets.len() as u64).max(1);
    for target in &targets {
        let mut command = bench::fuzz_command(workspace, target, each)?;
        tally.command(workspace, &format!("fuzz {} for {each} s", target.name), &mut command)?;
    }
    if targets.is_empty() {
        bail!("no fuzz target found: examples named fuzz_* are looked for");
    }
    Ok(())
}

/// What has run, and how it went.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    steps: Vec<(String, Duration, bool)>,
    failures: Vec<String>,
    skipped: BTreeSet<String>,
}

impl Tally {
    /// Builds what the tests use. Without it nothing else is worth running.
    fn prepare(&mut self, workspace: &Workspace) -> Result<()> {
        let programs = shop::begin_programs(workspace)?;
        let start = Instant::now();
        setup::bpf(workspace)?;
        guests::toolchain(workspace)?;
        self.steps.push(("setup".to_owned(), start.elapsed(), true));
        let start = Instant::now();
        ebpf::build(workspace)?;
        guests::build(workspace)?;
        demo::place_capture(workspace)?;
        self.steps.push(("kernel programs and scripts".to_owned(), start.elapsed(), true));
        let programs = programs.require()?;
        self.steps.push(("px and the shop, meanwhile".to_owned(), programs.took, true));
        Ok(())
    }

    /// A run of cargo's own test harness: its tests count one by one.
    fn cargo_test(&mut self, workspace: &Workspace, name: &str, command: &mut Command) -> Result<()> {
        let outcome = run::step(workspace, name, command, None)?;
        let (passed, failed) = results(&outcome.text);
        self.passed += passed;
        // A crate that does not compile has no failing test to count, and yet it failed.
        self.failed += if failed == 0 && !outcome.ok { 1 } else { failed };
        self.note(name, &outcome);
        Ok(())
    }

    /// A program that passes or fails as a whole.
    fn command(&mut self, workspace: &Workspace, name: &str, command: &mut Command) -> Result<()> {
        let outcome = run::step(workspace, name, command, None)?;
        if outcome.ok {
            self.passed += 1
        } else {
            self.failed += 1
        }
        self.note(name, &outcome);
        Ok(())
    }

    /// A chore of ours that passes or fails as a whole and shows itself.
    fn chore(&mut self, name: &str, outcome: Result<Duration>) {
        match outcome {
            Ok(took) => {
                self.passed += 1;
                self.steps.push((name.to_owned(), took, true));
            }
            Err(error) => {
                self.failed += 1;
                self.steps.push((name.to_owned(), Duration::ZERO, false));
                self.failures.push(format!("{name}: {error:#}"));
            }
        }
    }

    fn note(&mut self, name: &str, outcome: &Outcome) {
        self.steps.push((name.to_owned(), outcome.took, outcome.ok));
        self.skipped.extend(outcome.text.lines().filter_map(|line| Some(line.split_once("SKIPPED: ")?.1.to_owned())));
        if !outcome.ok {
            let shown = failures(&outcome.text).unwrap_or_else(|| outcome.tail());
            self.failures.push(format!("{name} (all of it: {})\n{shown}", outcome.log.display()));
        }
    }

    fn report(&self, took: Duration) {
        for failure in &self.failures {
            println!("\n{failure}");
        }
        println!();
        for (name, took, ok) in &self.steps {
            let mark = if *ok { green("✓") } else { red("✗") };
            println!("  {mark} {name:32} {:>8}", elapsed(*took));
        }
        println!("    {:32} {:>8}", "in all", elapsed(took));
        for reason in &self.skipped {
            println!("  SKIPPED: {reason}");
        }
        println!("\n{} passed, {} failed", self.passed, self.failed);
    }
}

/// Sums the lines `test result: ok. 6 passed; 0 failed; …`.
fn results(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in text.lines().filter(|line| line.trim_start().starts_with("test result: ")) {
        for part in line.split([';', '.']) {
            let mut words = part.split_whitespace();
            match (words.next().and_then(|number| number.parse::<u64>().ok()), words.next()) {
                (Some(number), Some("passed")) => sums.0 += number,
                (Some(number), Some("failed")) => sums.1 += number,
                _ => {}
            }
        }
    }
    sums
}

/// What libtest says of the tests that failed, or what the compiler says.
fn failures(text: &str) -> Option<String> {
    /// Enough for a few failures in full; the log has all.
    const LINES_MAX: usize = 200;
    let lines: Vec<&str> = text.lines().collect();
    let mut shown = Vec::new();
    let mut within = false;
    for line in lines {
        // Output of failing tests stands between two lines `failures:`; passing ones have their own heading.
        match line {
            "failures:" => within = true,
            "successes:" => within = false,
            line if line.starts_with("test result:") => within = false,
            _ => {}
        }
        if within || line.starts_with("error") || line.starts_with("test result: FAILED") {
            shown.push(line);
        }
    }
    shown.truncate(LINES_MAX);
    (!shown.is_empty()).then(|| shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "running 2 tests\ntest a ... ok\n\nsuccesses:\n\n---- a stderr ----\nSKIPPED: no root\n\nfailures:\n\n\
        ---- b stdout ----\nboom\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s\n\
        test result: ok. 6 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";

    #[test]
    fn results_of_all_runs_are_summed() {
        assert_eq!(results(TEXT), (7, 1));
        assert_eq!(results("error: could not compile"), (0, 0));
    }

    #[test]
    fn failing_tests_are_shown_and_passing_ones_not() {
        let shown = failures(TEXT).unwrap();
        assert!(shown.contains("boom") && !shown.contains("no root"), "{shown}");
        assert_eq!(failures("all is well"), None);
    }
}
