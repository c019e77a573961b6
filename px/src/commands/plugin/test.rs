//! `px plugin test`: build, run, show what came and what it cost.

use std::path::PathBuf;

use clap::Args;
use vizier_api::execute_request::What;

use crate::cli::Global;
use crate::client::connect;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::query::request::ResultArgs;
use crate::query::{args, driver};
use crate::style::Terminal;

use super::stage::Stage;

/// Build a script and run it, against the running Vizier or a recording; shows the result and what it cost
#[derive(Debug, Args)]
#[command(after_help = "\
With --replay nothing has to run: a Pyxis of its own plays the recording, and ends with the test. It keeps the recording's
times, so that the result is the same each time; with --since, --start or --stop it ends now instead.

Examples:
  px plugin test
  px plugin test --since 1h -- --min-latency 50ms
  px plugin test --replay shop.pxr -o csv > result.csv")]
pub struct Test {
    /// Folder of the script
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,

    /// Run it against this recording (px record), starting what that takes
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    replay: Option<PathBuf>,

    #[command(flatten)]
    pub result: ResultArgs,

    /// Arguments of the script, after --
    #[arg(last = true, value_name = "ARGUMENTS")]
    args: Vec<String>,
}

pub async fn run(command: Test, global: &Global, terminal: Terminal) -> Result<Exit> {
    if command.replay.is_some() && global.vizier.is_some() {
        return Err(Error::usage("--replay starts a Vizier of its own, and --vizier names another")
            .hint("leave one of them out (PX_VIZIER counts too)"));
    }
    let arguments = args::parse(&command.args, None)?;
    let mut result = command.result;
    let moved = result.since.is_some() || result.start.is_some() || result.stop.is_some();
    // Both take their second: the recording is read while the script compiles.
    let stage = command.replay.map(|file| tokio::spawn(async move { Stage::start(&file, !moved).await }));
    let built = super::build(&command.dir, None, false, &terminal)?;
    let bytes = std::fs::read(&built.path).map_err(|e| Error::io(format!("read {}", built.path.display()), &e))?;
    let stage = match stage {
        Some(stage) => Some(stage.await.map_err(|e| Error::internal(e.to_string()))??),
        None => None,
    };
    let client = match &stage {
        Some(stage) => stage.connect().await?,
        None => connect(global.vizier.as_ref()).await?,
    };
    result.follow = result.follow.map(|mode| mode.or_manifest(&built.manifest.to_json()));
    let mut job = result.job(What::Component(bytes.into()), built.manifest.name.clone(), &terminal)?;
    job.request.args = arguments;
    // What it cost is half of what one wants to know of a script that one is writing.
    job.stats = true;
    let ended = driver::run(client, job, terminal).await;
    if let Some(stage) = stage {
        stage.stop().await;
    }
    ended
}
