//! `px plugin dev`: rebuilds and runs a script at every save, and shows what that changed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use vizier_api::execute_request::What;

use crate::cli::Global;
use crate::client::{Client, connect};
use crate::commands::listing::print;
use crate::error::{Code, Error, Result};
use crate::exit::Exit;
use crate::output::Options;
use crate::query::request::Job;
use crate::query::selection::Selection;
use crate::query::{args, driver};
use crate::signals::Interrupts;
use crate::style::Terminal;
use crate::when::{now_ns, parse_duration};

use super::outcome::{Keeper, Outcome};
use super::stage::Stage;
use super::watch;

/// As a script is run by default.
const SINCE_DEFAULT: Duration = Duration::from_secs(300);

/// Rebuild and run a script whenever a file of it is saved, and show what that changed in its result
#[derive(Debug, Args)]
#[command(after_help = "\
Every run looks at the same stretch of time, that before the first run, so that what differs is your change and not the
traffic since; --moving looks at the present each time.

Examples:
  px plugin dev
  px plugin dev slow_posts --since 1h -- --min-latency 50ms
  px plugin dev --replay shop.pxr")]
pub struct Dev {
    /// Folder of the script
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,

    /// Run it against this recording (px record), starting what that takes
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    replay: Option<PathBuf>,

    /// How far back to look: 30s, 5m, 1h30m, 2d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,

    /// Look at the present each time
    #[arg(long, conflicts_with = "replay")]
    moving: bool,

    /// Rows per table
    #[arg(long, value_name = "ROWS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,

    /// Arguments of the script, after --
    #[arg(last = true, value_name = "ARGUMENTS")]
    args: Vec<String>,
}

pub async fn run(command: Dev, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    if command.replay.is_some() && global.vizier.is_some() {
        return Err(Error::usage("--replay starts a Vizier of its own, and --vizier names another")
            .hint("leave one of them out (PX_VIZIER counts too)"));
    }
    if !command.dir.is_dir() {
        return Err(Error::new(Code::NotFound, format!("there is no folder {}", command.dir.display()))
            .hint("px plugin new NAME makes one"));
    }
    let stage = match &command.replay {
        Some(file) => Some(Stage::start(file, command.since.is_none()).await?),
        None => None,
    };
    let client = match &stage {
        Some(stage) => stage.connect().await,
        None => connect(global.vizier.as_ref()).await,
    };
    let ended = match client {
        Ok(client) => watch_and_run(&command, client, &terminal).await,
        Err(error) => Err(error),
    };
    if let Some(stage) = stage {
        stage.stop().await;
    }
    ended
}

async fn watch_and_run(command: &Dev, client: Client, terminal: &Terminal) -> Result<Exit> {
    let mut interrupts = Interrupts::new()?;
    let arguments = args::parse(&command.args, None)?;
    let since = i64::try_from(command.since.unwrap_or(SINCE_DEFAULT).as_nanos()).unwrap_or(i64::MAX);
    let range = |now: i64| (now.saturating_sub(since).max(1), now);
    // A recording that keeps its times ends where it ends.
    let recorded = command.replay.is_some() && command.since.is_none();
    let fixed = range(now_ns());
    let mut before: Option<Outcome> = None;
    loop {
        // Before the build: what is saved meanwhile is a change.
        let state = watch::state(&command.dir);
        let (start, stop) = match (recorded, command.moving) {
            (true, _) => (0, 0),
            (false, true) => range(now_ns()),
            (false, false) => fixed,
        };
        match once(command, &arguments, client.clone(), (start, stop), terminal).await {
            Ok((Exit::Interrupted, _)) => return Ok(Exit::Interrupted),
            Ok((_, outcome)) => {
                print(&shown(&outcome, before.as_ref(), terminal)?)?;
                before = Some(outcome);
            }
            // Vizier is gone: nothing that the author could mend in the script.
            Err(error) if error.code == Code::Unavailable => return Err(error),
            Err(error) => eprint!("{}", error.render(terminal.err)),
        }
        terminal.note(&terminal.err.dim(&format!("watching {}; Ctrl-C ends", command.dir.display())));
        tokio::select! {
            () = interrupts.next() => return Ok(Exit::Interrupted),
            _ = watch::changed(&command.dir, state) => {}
        }
    }
}

fn shown(outcome: &Outcome, before: Option<&Outcome>, terminal: &Terminal) -> Result<String> {
    let Some(before) = before else { return outcome.render(terminal) };
    let changes = outcome.changes(before, terminal.out)?;
    Ok(if changes.is_empty() { format!("{}\n", terminal.out.dim("the same result")) } else { changes })
}

async fn once(
    command: &Dev,
    arguments: &std::collections::HashMap<String, String>,
    client: Client,
    (start_time_ns, end_time_ns): (i64, i64),
    terminal: &Terminal,
) -> Result<(Exit, Outcome)> {
    let built = super::build(&command.dir, None, false, terminal)?;
    let bytes = std::fs::read(&built.path).map_err(|e| Error::io(format!("read {}", built.path.display()), &e))?;
    let request = vizier_api::ExecuteRequest {
        what: Some(What::Component(bytes.into())),
        args: arguments.clone(),
        start_time_ns,
        end_time_ns,
        limit_rows: command.limit,
        ..Default::default()
    };
    let options = Options {
        format: crate::output::Format::Table,
        headers: true,
        follow: false,
        tail: false,
        one_table: false,
        directory: None,
        title: built.manifest.name,
    };
    let selection = Selection::new(None, Vec::new());
    let job = Job { request, options, selection, allow_partial: false, stats: true };
    let keeper = Keeper::default();
    let exit = driver::run_into(client, job, *terminal, Box::new(keeper.clone())).await?;
    Ok((exit, keeper.take()))
}
