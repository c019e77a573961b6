//! One child process: started, listened to, ended.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use crate::output::text::sanitize;
use crate::style::{Terminal, Tone};

use super::roles::{FATAL, Fatal, READY, RECORDED, Ready, Recorded, Role};

/// Longer lines of a log are cut: a child must not be able to fill our memory.
const LOG_LINE_MAX: usize = 8 << 10;
/// Vizier gives its clients 5 s to read the end of their runs; whoever takes longer hangs.
const STOP_GRACE: Duration = Duration::from_secs(7);
/// Most things a child can have to say at once to the supervisor: one "ready" or one "fatal" per life.
const SAID_MAX: usize = 8;

/// The children are being ended: that one misses another is no news then.
static ENDING: AtomicBool = AtomicBool::new(false);

/// From now on what children say about one another's end is not shown.
pub fn ending() {
    ENDING.store(true, Ordering::Relaxed);
}

/// How to start a child.
#[derive(Debug, Clone)]
pub struct Spec {
    pub role: Role,
    /// Its configuration: one line of JSON.
    pub config: String,
    /// Through sudo: `true` may ask for a password on the terminal.
    pub sudo: Option<Sudo>,
    /// What it may log, as `tracing` filters have it.
    pub log: String,
    /// It talks to the person itself, not to us.
    pub inherit_stderr: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sudo {
    MayAsk,
    MustNotAsk,
}

/// What a child says to the supervisor.
#[derive(Debug, Clone)]
pub enum Said {
    Ready(Ready),
    Fatal(Fatal),
    Recorded(Recorded),
}

/// See [`Running::next`].
#[derive(Debug)]
pub enum Next {
    Said(Said),
    Ended(io::Result<ExitStatus>),
}

pub struct Running {
    role: Role,
    child: Child,
    /// Its end is the end of the child.
    lifeline: Option<ChildStdin>,
    pub said: mpsc::Receiver<Said>,
}

/// This program: by its path, which gives children its name, or, when something else lies there by now, as what runs here.
fn own_program() -> PathBuf {
    const SELF: &str = "/proc/self/exe";
    let same = |path: &PathBuf| {
        let inode = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        inode(path).is_some_and(|there| Some(there) == inode(Path::new(SELF)))
    };
    std::env::current_exe().ok().filter(same).unwrap_or_else(|| PathBuf::from(SELF))
}

/// Starts it. Must be called on the main thread, which lives as long as the process: a child asks the kernel to be ended with
/// the thread that started it.
pub async fn start(spec: &Spec, terminal: Terminal) -> io::Result<Running> {
    let mut command = match spec.sudo {
        None => {
            let mut command = Command::new(own_program());
            // As `ps` and people know it.
            command.arg0("px");
            // Ctrl-C on the terminal is for the supervisor, which ends its children in order.
            command.process_group(0);
            command
        }
        Some(sudo) => {
            let mut command = Command::new("sudo");
            if sudo == Sudo::MustNotAsk {
                command.arg("-n");
            }
            command.args(["-p", "[sudo] password for %p, to load Pyxis' kernel probes: ", "--"]);
            // Here the path matters: it is what sudo shows, logs and checks.
            command.arg(std::env::current_exe()?);
            command
        }
    };
    command.arg(spec.role.argument()).env("PX_LOG", &spec.log);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
    command.stderr(if spec.inherit_stderr { Stdio::inherit() } else { Stdio::piped() });
    let mut child = command.spawn()?;
    let mut lifeline = child.stdin.take().expect("it is piped");
    // A child that ends before it has read this tells why by itself.
    let _ = lifeline.write_all(format!("{}\n", spec.config).as_bytes()).await;
    let _ = lifeline.flush().await;
    let (sender, said) = mpsc::channel(SAID_MAX);
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(forward(spec.role, BufReader::new(stderr), sender, terminal));
    }
    Ok(Running { role: spec.role, child, lifeline: Some(lifeline), said })
}

impl Running {
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// What comes next: something it says, or its end. What it says before its end comes before it, unless it is still in
    /// the pipe.
    pub async fn next(&mut self) -> Next {
        tokio::select! {
            biased;
            Some(said) = self.said.recv() => Next::Said(said),
            status = self.child.wait() => Next::Ended(status),
        }
    }

    /// Asks it to end, and makes it end when it does not.
    pub async fn stop(&mut self, terminal: &Terminal) -> Option<ExitStatus> {
        drop(self.lifeline.take());
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // Not allowed behind sudo; the end of the lifeline says the same.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        match tokio::time::timeout(STOP_GRACE, self.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                terminal.warn(&format!("{} did not end within {STOP_GRACE:?} and is killed", self.role.title()));
                let _ = self.child.kill().await;
                None
            }
        }
    }
}

/// Hands a child's log on, line by line, and takes out what is for the supervisor.
async fn forward(role: Role, mut log: impl AsyncBufRead + Unpin, said: mpsc::Sender<Said>, terminal: Terminal) {
    let mut line = Vec::new();
    while let Ok(true) = next_line(&mut log, &mut line).await {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        let message = if let Some(json) = text.strip_prefix(READY) {
            serde_json::from_str(json).ok().map(Said::Ready)
        } else if let Some(json) = text.strip_prefix(FATAL) {
            serde_json::from_str(json).ok().map(Said::Fatal)
        } else if let Some(json) = text.strip_prefix(RECORDED) {
            serde_json::from_str(json).ok().map(Said::Recorded)
        } else {
            None
        };
        if let Some(message) = message {
            let _ = said.send(message).await;
        } else if !text.is_empty() && (terminal.verbose > 0 || !ENDING.load(Ordering::Relaxed)) {
            eprintln!("{}", prefixed(role, text, &terminal));
        }
    }
}

fn prefixed(role: Role, text: &str, terminal: &Terminal) -> String {
    let text = sanitize(text.trim_start());
    let (level, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let tone = match level {
        "ERROR" => Tone::Bad,
        "WARN" => Tone::Warn,
        "INFO" | "DEBUG" | "TRACE" => Tone::Dim,
        _ => return format!("{} {text}", terminal.err.dim(&format!("{}:", role.name()))),
    };
    let level = terminal.err.paint(tone, &level.to_lowercase());
    format!("{} {level} {}", terminal.err.dim(&format!("{}:", role.name())), rest.trim_start())
}

/// The next line without its end, at most [`LOG_LINE_MAX`] bytes of it; false at the end of the stream.
async fn next_line(log: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = log.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        let room = LOG_LINE_MAX.saturating_sub(line.len());
        line.extend_from_slice(&piece[..piece.len().min(room)]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        log.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_none_is_lost() {
        let text = format!("one\n{}\nthree", "x".repeat(100_000));
        let mut log = BufReader::new(text.as_bytes());
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while next_line(&mut log, &mut line).await.unwrap() {
            lines.push(line.len());
        }
        assert_eq!(lines, [3, LOG_LINE_MAX, 5]);
    }

    #[tokio::test]
    async fn what_is_for_the_supervisor_is_not_printed() {
        let plain = crate::style::Style::plain();
        let terminal = Terminal { out: plain, err: plain, out_tty: false, err_tty: false, quiet: false, verbose: 0 };
        let text =
            format!("{FATAL}{}\n", serde_json::to_string(&Fatal { message: "no".into(), ..Fatal::default() }).unwrap());
        let (send, mut said) = mpsc::channel(SAID_MAX);
        forward(Role::Pem, BufReader::new(text.as_bytes()), send, terminal).await;
        assert!(matches!(said.recv().await, Some(Said::Fatal(fatal)) if fatal.message == "no"));
        assert_eq!(prefixed(Role::Pem, "  WARN a b\x1b[2J", &terminal), "pem: warn a b\\u{1b}[2J");
        assert_eq!(prefixed(Role::Helper, "helper: x", &terminal), "helper: helper: x");
    }
}
