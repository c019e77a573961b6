//! A Pyxis of our own: `px up` on private folders, ended and cleaned away when dropped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::workspace::Workspace;
use crate::{run, signals};

/// Loading and attaching takes about a second; a person who has to type a password for sudo takes longer.
const READY_MAX: Duration = Duration::from_secs(20);
const READY_MAX_WITH_SUDO: Duration = Duration::from_secs(120);
/// `px up` ends its children in order; if it has not by then, it never will.
const STOP_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// A running `px up`.
pub struct Up {
    child: Child,
    folder: PathBuf,
    px: PathBuf,
    lib: PathBuf,
    pub log: PathBuf,
}

impl Up {
    /// Starts it and waits until a PEM has joined. `replay` feeds a recording instead of this machine's events.
    pub fn start(workspace: &Workspace, replay: Option<&Path>) -> Result<Self> {
        // Short, since the path of a Unix socket may have 107 bytes; and not in the clone, which others may not enter.
        let folder = std::env::temp_dir().join(format!("pyxis-{}", std::process::id()));
        // Not one that somebody else has put there: px up works below it as root.
        fs::create_dir(&folder)
            .with_context(|| format!("cannot make {}: remove it if it is yours", folder.display()))?;
        let log = workspace.logs()?.join("px-up.log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let (px, lib) = (workspace.program("px"), workspace.lib());
        // If we are killed nobody drops us: the kernel ends px up then, where setpriv can ask it to.
        let setpriv = run::output(Command::new("setpriv").arg("--version")).is_some();
        let mut command = if setpriv {
            let mut command = px_command(Path::new("setpriv"), &lib, &folder);
            command.args(["--pdeathsig", "TERM", "--"]).arg(&px);
            command
        } else {
            px_command(&px, &lib, &folder)
        };
        command.arg("up").stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        if let Some(replay) = replay {
            // Over and over, as it happened, so that there is always something to see.
            command.arg("--replay").arg(replay).args(["--replay-mode", "loop"]);
        }
        // Ctrl-C is for us, who end things in order. Where sudo may ask, it needs the terminal, and so our group.
        let asks = replay.is_none() && !Uid::effective().is_root();
        if !asks {
            command.process_group(0);
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", px.display()))?;
        let mut up = Self { child, folder, px, lib, log };
        up.wait_until_ready(if asks { READY_MAX_WITH_SUDO } else { READY_MAX })?;
        Ok(up)
    }

    /// A `px` that talks to this Pyxis.
    pub fn px(&self) -> Command {
        px_command(&self.px, &self.lib, &self.folder)
    }

    /// Ends with an error when `px up` has.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("px up has ended ({status}):\n{}", self.said());
        }
        Ok(())
    }

    /// What it has printed so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_until_ready(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < limit {
            self.check()?;
            if signals::raised() {
                bail!("interrupted");
            }
            let agents = run::output(self.px().args(["agents", "-o", "json"])).unwrap_or_default();
            let agents: serde_json::Value = serde_json::from_str(&agents).unwrap_or_default();
            let mut agents = agents["agents"].as_array().into_iter().flatten();
            if agents.any(|agent| agent["state"] == "connected") {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("px up was not ready after {} s; it said:\n{}", limit.as_secs(), self.said())
    }

    fn stop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        let _ = kill(pid, Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < STOP_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        // Its children end with it: each has asked the kernel for that.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn px_command(px: &Path, lib: &Path, folder: &Path) -> Command {
    let mut command = Command::new(px);
    command.env("PYXIS_LIB_DIR", lib);
    command.env("PX_RUNTIME_DIR", folder.join("run")).env("PX_DATA_DIR", folder.join("data"));
    command
}
