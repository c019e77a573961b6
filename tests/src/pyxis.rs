//! A running Pyxis.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tempfile::TempDir;

use crate::proc::Pid;
use crate::{Result, programs};

/// Generous: a machine that builds something else meanwhile must not fail a test.
const READY_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(15);
/// `px up` prints this once all its parts are there and capture.
const GREETING: &str = "Pyxis is up";
/// By convention everywhere.
const NOBODY: u32 = 65534;
/// How long something that must happen may take.
const EVENTUALLY_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// `px up` with folders of its own. Ends, with all its processes, when dropped.
pub struct Pyxis {
    child: Child,
    folder: TempDir,
    log: PathBuf,
}

impl Pyxis {
    /// Watches this machine; returns when a PEM has joined and its probes are attached.
    pub fn live() -> Result<Self> {
        Self::start(&[])
    }

    /// Runs on a recording.
    pub fn replay(recording: &Path) -> Result<Self> {
        Self::start(&["--replay", recording.to_str().context("paths of tests are text")?])
    }

    /// Runs on a recording, as a user with no privileges whatever. Needs root, to become nobody.
    pub fn replay_as_nobody(recording: &Path) -> Result<Self> {
        let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--no-new-privs"];
        Self::start_by(&nobody, &["--replay", recording.to_str().context("paths of tests are text")?])
    }

    /// `px up` with further arguments.
    pub fn start(args: &[&str]) -> Result<Self> {
        Self::start_by(&[], args)
    }

    /// The same, with options for `setpriv`.
    fn start_by(privileges: &[&str], args: &[&str]) -> Result<Self> {
        // Below /tmp: the path of a Unix socket may have 107 bytes.
        let folder = tempfile::Builder::new().prefix("pyxis-").tempdir_in("/tmp")?;
        // The PEM and Vizier run as another user and have to get through to their own folders.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let log = folder.path().join("log");
        let file = File::create(&log)?;
        // If the test is killed, nobody drops us: the kernel ends px then, and px its children.
        let mut command = match programs::find("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "TERM"]).args(privileges).arg("--").arg(programs::px());
                command
            }
            None if privileges.is_empty() => Command::new(programs::px()),
            None => bail!("setpriv is not installed"),
        };
        if !privileges.is_empty() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
        }
        environment(&mut command, folder.path());
        command.arg("up").args(args).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.process_group(0).spawn().context("px up does not start")?;
        let mut pyxis = Self { child, folder, log };
        pyxis.wait_until_ready()?;
        Ok(pyxis)
    }

    /// A `px` command that talks to this Pyxis.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(programs::px());
        environment(&mut command, self.folder.path());
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Runs `px` to its end.
    pub fn px(&self, args: &[&str]) -> Result<Output> {
        self.command(args).output().context("px does not start")
    }

    /// Runs `px`, which must end well, and gives what it printed.
    pub fn text(&self, args: &[&str]) -> Result<String> {
        let output = self.px(args)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "px {args:?}: {}\n{err}\n{out}\npx up said:\n{}", output.status, self.said());
        Ok(out.into_owned())
    }

    /// The rows of a query over all there is, as JSON objects. What else runs on this machine may be caught in the middle of
    /// a connection, so that a result may be partial; tests of loss look at `data_loss` and exit codes themselves.
    pub fn sql(&self, query: &str) -> Result<Vec<Value>> {
        let text =
            self.text(&["sql", query, "--since", "1h", "--limit", "1000000", "--allow-partial", "-o", "json"])?;
        let document: Value = serde_json::from_str(&text).with_context(|| format!("px sql printed {text}"))?;
        let tables = document["tables"].as_object().context("a result has tables")?;
        let rows = tables.values().next().and_then(Value::as_array).cloned();
        rows.with_context(|| format!("no table in {text}"))
    }

    /// The one number that a query gives.
    pub fn number(&self, query: &str) -> Result<i64> {
        let rows = self.sql(query)?;
        let value = rows.first().and_then(|row| row.as_object()?.values().next()).unwrap_or(&Value::Null);
        Ok(integer(value))
    }

    /// Asks until `enough` is true of the rows, and gives them.
    pub fn eventually(&self, query: &str, enough: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        let start = Instant::now();
        loop {
            let rows = self.sql(query)?;
            if enough(&rows) {
                return Ok(rows);
            }
            if start.elapsed() > EVENTUALLY_MAX {
                let shown = rows.iter().take(10).map(Value::to_string).collect::<Vec<_>>().join("\n");
                bail!(
                    "not within {} s: {query}\n{} rows:\n{shown}\npx up said:\n{}",
                    EVENTUALLY_MAX.as_secs(),
                    rows.len(),
                    self.said()
                );
            }
            thread::sleep(POLL);
        }
    }

    /// What `px up` has printed.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The folder of this Pyxis: `run`, `data`, `log`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The supervisor.
    pub fn pid(&self) -> Pid {
        Pid::from(&self.child)
    }

    /// The child with this role (`helper`, `pem`, `vizier`), if it runs.
    pub fn role(&self, role: &str) -> Option<Pid> {
        let marker = format!("__{role}");
        let all = self.pid().descendants();
        all.into_iter().find(|pid| pid.alive() && pid.command_line().split(' ').any(|arg| arg == marker))
    }

    /// Agents as `px agents` tells them.
    pub fn agents(&self) -> Result<Vec<Value>> {
        let text = self.text(&["agents", "-o", "json"])?;
        let document: Value = serde_json::from_str(&text)?;
        Ok(document["agents"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until `n` agents are connected.
    pub fn wait_for_agents(&self, n: usize) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < READY_MAX {
            let agents = self.agents().unwrap_or_default();
            if agents.iter().filter(|agent| agent["state"] == "connected").count() >= n {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("{n} agents did not connect; px up said:\n{}", self.said())
    }

    /// Ends it as Ctrl-C does, and gives its exit status.
    pub fn stop(mut self) -> Result<std::process::ExitStatus> {
        self.terminate().context("px up did not end when asked to")
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < READY_MAX {
            if let Some(status) = self.child.try_wait()? {
                bail!("px up has ended ({status}):\n{}", self.said());
            }
            // What a person waits for.
            if self.said().contains(GREETING) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("px up was not ready after {} s; it said:\n{}", READY_MAX.as_secs(), self.said())
    }

    fn terminate(&mut self) -> Option<std::process::ExitStatus> {
        let _ = kill(nix::unistd::Pid::from_raw(self.pid().0), Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < STOP_MAX {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(POLL);
        }
        None
    }
}

impl Drop for Pyxis {
    fn drop(&mut self) {
        let rest = self.pid().descendants();
        if self.terminate().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for pid in rest.into_iter().filter(|pid| pid.alive() && pid.command_line().contains("__")) {
            pid.kill();
        }
        if thread::panicking() {
            eprintln!("px up said:\n{}", self.said());
        }
    }
}

/// An integer of a JSON result: a number, or a text where it is beyond what JSON's numbers hold everywhere.
pub fn integer(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

fn environment(command: &mut Command, folder: &Path) {
    command.env("PYXIS_LIB_DIR", programs::lib()).env("NO_COLOR", "1").env_remove("PX_VIZIER");
    command.env("PX_RUNTIME_DIR", folder.join("run")).env("PX_DATA_DIR", folder.join("data"));
}
