//! Runs a program as a step: its words go to a file, the last of them on the screen, all of them when it fails.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::step::Step;
use crate::workspace::Workspace;

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Lines shown of a program that failed; the file has the rest.
const TAIL_LINES: usize = 60;

/// How a program ended and what it said.
pub struct Outcome {
    pub ok: bool,
    pub text: String,
    pub log: PathBuf,
    pub took: Duration,
}

impl Outcome {
    /// The end of what it said.
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

/// Runs `command` to its end as the step `name`, and gives how it went. `limit`, if any, ends it by force.
pub fn step(workspace: &Workspace, name: &str, command: &mut Command, limit: Option<Duration>) -> Result<Outcome> {
    let slug: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let log = workspace.logs()?.join(format!("{slug}.log"));
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);

    let mut shown = Step::begin(name);
    let start = Instant::now();
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            child.kill()?;
            child.wait()?;
            break None;
        }
        shown.tick(&last_line(&log).unwrap_or_default());
        thread::sleep(POLL);
    };
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let ok = status.is_some_and(|status| status.success());
    let took = shown.end(ok, if status.is_none() { "took too long and was ended" } else { "" });
    Ok(Outcome { ok, text, log, took })
}

/// The same for a step that all that follows needs: its failure is ours, with the end of what it said.
pub fn require(workspace: &Workspace, name: &str, command: &mut Command) -> Result<Outcome> {
    let outcome = step(workspace, name, command, None)?;
    if !outcome.ok {
        eprintln!("{}", outcome.tail());
        bail!("{name} failed; all it said is in {}", outcome.log.display());
    }
    Ok(outcome)
}

/// What a program prints, when it ends well.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn last_line(log: &Path) -> Option<String> {
    /// Enough for the last line of any of our tools.
    const WINDOW: u64 = 400;
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(WINDOW))).ok()?;
    let mut bytes = Vec::new();
    file.take(WINDOW).read_to_end(&mut bytes).ok()?;
    String::from_utf8_lossy(&bytes).lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}
