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

/// Build a script and run it against the running Vizier; shows the result and what it cost
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px plugin test
  px plugin test --since 1h -- --min-latency 50ms
  px up --replay FILE, then px plugin test: against a recording")]
pub struct Test {
    /// Folder of the script
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,

    #[command(flatten)]
    result: ResultArgs,

    /// Arguments of the script, after --
    #[arg(last = true, value_name = "ARGUMENTS")]
    args: Vec<String>,
}

pub async fn run(command: Test, global: &Global, terminal: Terminal) -> Result<Exit> {
    let built = super::build(&command.dir, None, &terminal)?;
    let arguments = args::parse(&command.args, None)?;
    let bytes = std::fs::read(&built.path).map_err(|e| Error::io(format!("read {}", built.path.display()), &e))?;
    let client = connect(global.vizier.as_ref()).await?;
    let mut result = command.result;
    result.follow = result.follow.map(|mode| mode.or_manifest(&built.manifest.to_json()));
    let mut job = result.job(What::Component(bytes.into()), built.manifest.name.clone(), &terminal)?;
    job.request.args = arguments;
    // What it cost is half of what one wants to know of a script that one is writing.
    job.stats = true;
    driver::run(client, job, terminal).await
}
