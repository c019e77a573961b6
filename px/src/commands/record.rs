//! `px record`: what the probes see, into a file that `px up --replay` shows again.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::Global;
use crate::error::{Code, Error, Result};
use crate::exit::Exit;
use crate::output::human::{bytes_text, plural};
use crate::paths;
use crate::signals::Interrupts;
use crate::style::Terminal;
use crate::supervisor::child::{self, Said};
use crate::supervisor::folders::Folders;
use crate::supervisor::roles::{self, Fatal, Recorded, Role};
use crate::supervisor::users::Users;
use crate::when::parse_duration;

use super::up::{Capture, given_up, helper, log_filter, spec};

/// Record what the probes see into a file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px record shop.pxr --for 30s     thirty seconds
  px record shop.pxr               until Ctrl-C
  px up --replay shop.pxr          show it again, anywhere, without root

A recording holds what programs said to one another, in the clear: only its owner can read the file.")]
pub struct Record {
    /// The file, which is replaced
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,

    /// How long [default: until Ctrl-C]
    #[arg(long = "for", alias = "duration", value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// How to see socket calls
    #[arg(long, value_enum, default_value_t = Capture::Auto, value_name = "HOW")]
    pub capture: Capture,

    /// As root: the user that reads and writes [default: who called sudo, else nobody]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Do not ask sudo
    #[arg(long)]
    pub no_sudo: bool,
}

/// Loading and attaching takes about a second.
const HELPER_WITHIN: Duration = Duration::from_secs(30);

pub async fn run(command: Record, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let users = Users::choose(command.user.as_deref())?;
    let mut runtime = paths::runtime_dir().into_os_string();
    runtime.push(format!("-record-{}", std::process::id()));
    let runtime = PathBuf::from(runtime);
    let plan = helper(command.capture, command.no_sudo, &users, &runtime, &terminal)?;
    create(&command, &users)?;
    let mut interrupts = Interrupts::new()?;
    let _folders = Folders::take(&runtime, users)?;
    let log = log_filter(&terminal);
    let socket = plan.role.socket.clone();
    let failed = |e: std::io::Error| Error::io("start a child", &e);
    let mut helper = child::start(&spec(Role::Helper, &plan.role, plan.sudo, &log), terminal).await.map_err(failed)?;
    let ready = tokio::select! {
        ready = ready(&mut helper, plan.sudo.is_none()) => ready,
        () = interrupts.next() => Err(Error::new(Code::Interrupted, "interrupted")),
    };
    if let Err(error) = ready {
        helper.stop(&terminal).await;
        return Err(error);
    }
    let role = roles::Record {
        user: users.become_user(),
        helper: socket,
        token: plan.role.token.clone(),
        file: command.file.clone(),
        seconds: command.duration.map(|time| time.as_secs_f64()),
    };
    let mut recorder = child::start(&spec(Role::Record, &role, None, &log), terminal).await.map_err(failed)?;
    match command.duration {
        Some(time) => terminal.note(&format!("recording for {time:?} into {}", command.file.display())),
        None => terminal.note(&format!("recording into {}; Ctrl-C ends it", command.file.display())),
    }
    tokio::select! {
        _ = recorder.wait() => {}
        _ = helper.wait() => terminal.warn("the probe helper has ended: the recording ends here"),
        () = interrupts.next() => {}
    }
    recorder.stop(&terminal).await;
    helper.stop(&terminal).await;
    match said(&mut recorder).await {
        Some(Said::Recorded(recorded)) => {
            report(&command, &recorded, &terminal);
            Ok(if recorded.events_lost > 0 { Exit::Partial } else { Exit::Ok })
        }
        Some(Said::Fatal(fatal)) => Err(Error::new(Code::Io, fatal.message).hint_some(fatal.hint)),
        _ => Err(Error::internal("the recording ended badly")
            .hint(format!("what was written of {} may still be read: px up --replay", command.file.display()))),
    }
}

/// The file is made by us, with the rights we have, for whom it is meant. One that is there already is closed to others.
fn create(command: &Record, users: &Users) -> Result<()> {
    let failed = |e| Error::io(format!("write {}", command.file.display()), &e);
    pem::agent::create_recording(&command.file).map_err(failed)?;
    let asked = command.user.is_some() || std::env::var_os("SUDO_UID").is_some();
    if let (Some(user), true) = (users.become_user(), asked) {
        std::os::unix::fs::chown(&command.file, Some(user.uid), Some(user.gid)).map_err(failed)?;
    }
    Ok(())
}

async fn ready(helper: &mut child::Running, bounded: bool) -> Result<()> {
    let answer = async {
        loop {
            match helper.said.recv().await {
                Some(Said::Ready(_)) => return Ok(()),
                Some(Said::Fatal(fatal)) => return Err(given_up(Role::Helper, fatal)),
                Some(Said::Recorded(_)) => {}
                None => {
                    let message = "the probe helper ended before it was ready".to_owned();
                    return Err(given_up(Role::Helper, Fatal { message, ..Fatal::default() }));
                }
            }
        }
    };
    if !bounded {
        // Somebody may be looking for the password.
        return answer.await;
    }
    tokio::time::timeout(HELPER_WITHIN, answer)
        .await
        .unwrap_or_else(|_| Err(Error::new(Code::TimedOut, "the probe helper is not ready after 30 s")))
}

/// The last thing a child that has ended said.
async fn said(child: &mut child::Running) -> Option<Said> {
    let mut last = None;
    while let Some(said) = child.said.recv().await {
        last = Some(said);
    }
    last
}

fn report(command: &Record, recorded: &Recorded, terminal: &Terminal) {
    let what = format!("{}, {}", plural(recorded.events, "event"), bytes_text(recorded.bytes));
    terminal.note(&format!("{}  {}", command.file.display(), terminal.err.dim(&what)));
    if recorded.events_lost > 0 {
        let lost = plural(recorded.events_lost, "event");
        terminal.warn(&format!("{lost} came faster than they could be written, and are not in the recording"));
    }
    terminal.note(&terminal.err.dim(&format!("px up --replay {} shows it", command.file.display())));
}
