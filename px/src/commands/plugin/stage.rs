//! A Pyxis of one's own that plays a recording, for as long as a test of a plugin takes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use vizier_api::ListAgentsRequest;

use crate::client::{Address, Client, connect};
use crate::error::{Code, Error, Result};
use crate::paths;

/// Starting takes a second; reading a long recording takes longer.
const READY_WITHIN: Duration = Duration::from_secs(120);
const STOP_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// What of its complaints is told when it does not start.
const LOG_LINES_TOLD: usize = 20;

pub struct Stage {
    child: Child,
    folder: TempDir,
}

impl Stage {
    /// Starts `px up --replay`. `exact` keeps the recording's own times, so that every run sees the same; otherwise they are
    /// moved so that it ends now.
    pub async fn start(recording: &Path, exact: bool) -> Result<Stage> {
        let file = recording.canonicalize().map_err(|e| Error::io(format!("read {}", recording.display()), &e))?;
        let io = |e| Error::io("start a Pyxis of its own", &e);
        // Short, whatever TMPDIR is: the path of a socket has 107 bytes.
        let folder = tempfile::Builder::new().prefix("px-stage-").tempdir_in("/tmp").map_err(io)?;
        // Started by root, its parts become other users, and have to get through to what is theirs.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(io)?;
        let log = std::fs::File::create(folder.path().join("log")).map_err(io)?;
        let program = std::env::current_exe().map_err(io)?;
        let mut command = Command::new(program);
        command.env("PX_RUNTIME_DIR", folder.path().join("run")).env("NO_COLOR", "1");
        command.args(["up", "--with-parent", "--replay"]).arg(file);
        command
            .args(["--replay-mode", if exact { "exact" } else { "once" }, "--data-dir"])
            .arg(folder.path().join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(true);
        let mut stage = Stage { child: command.spawn().map_err(io)?, folder };
        stage.wait().await?;
        Ok(stage)
    }

    /// A client of its Vizier.
    pub async fn connect(&self) -> Result<Client> {
        connect(Some(&Address::Unix(self.socket()))).await
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run").join(paths::SOCKET)
    }

    async fn wait(&mut self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < READY_WITHIN {
            if let Ok(Some(_)) = self.child.try_wait() {
                return Err(self.failed("the Pyxis for the recording did not start"));
            }
            if let Ok(mut client) = self.connect().await
                && let Ok(reply) = client.list_agents(ListAgentsRequest {}).await
                && reply.into_inner().agents.iter().any(|agent| agent.state == "connected")
            {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(self.failed("the recording was not read in time"))
    }

    fn failed(&self, what: &str) -> Error {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let told = lines[lines.len().saturating_sub(LOG_LINES_TOLD)..].join("\n");
        Error::new(Code::Unavailable, what).hint(if told.is_empty() { "it said nothing".to_owned() } else { told })
    }

    /// Ends it, with all its processes.
    pub async fn stop(mut self) {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        // Dropping kills what is left.
        let _ = tokio::time::timeout(STOP_WITHIN, self.child.wait()).await;
    }
}
