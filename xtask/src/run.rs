//! Runs a program as a step: its words go to a file, the last of them on the screen, all of them when it fails.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
    Running::start(workspace, name, command)?.finish(limit)
}

/// A program under way. Dropped before it has ended, it is ended.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    start: Instant,
}

impl Running {
    /// Starts `command`, whose words go to a file; the screen belongs to whoever waits for it.
    pub fn start(workspace: &Workspace, name: &str, command: &mut Command) -> Result<Self> {
        let slug: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let log = workspace.logs()?.join(format!("{slug}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        let start = Instant::now();
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        Ok(Self { name: name.to_owned(), child, log, start })
    }

    /// Shows it as a step, since when it has run, and waits for its end.
    pub fn finish(mut self, limit: Option<Duration>) -> Result<Outcome> {
        let mut shown = Step::since(self.name.clone(), self.start);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break Some(status);
            }
            if limit.is_some_and(|limit| self.start.elapsed() > limit) {
                self.child.kill()?;
                self.child.wait()?;
                break None;
            }
            shown.tick(&last_line(&self.log).unwrap_or_default());
            thread::sleep(POLL);
        };
        let text = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        let ok = status.is_some_and(|status| status.success());
        let took = shown.end(ok, if status.is_none() { "took too long and was ended" } else { "" });
        Ok(Outcome { ok, text, log: self.log.clone(), took })
    }

    /// The same for one that all that follows needs: its failure is ours, with the end of what it said.
    pub fn require(self) -> Result<Outcome> {
        let name = self.name.clone();
        required(&name, self.finish(None)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The same for a step that all that follows needs: its failure is ours, with the end of what it said.
pub fn require(workspace: &Workspace, name: &str, command: &mut Command) -> Result<Outcome> {
    Running::start(workspace, name, command)?.require()
}

fn required(name: &str, outcome: Outcome) -> Result<Outcome> {
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
