//! `px scripts`.

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};
use vizier_api::{ListScriptsRequest, Script};

use crate::cli::Global;
use crate::client::{self, connect};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::grid::Grid;
use crate::output::text::sanitize;
use crate::query::args;
use crate::style::Tone;

use super::listing::{ListArgs, ListFormat, print};

/// List the scripts, or the arguments of one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px scripts                    what there is to run
  px scripts service_stats      its arguments and the tables it reads")]
pub struct Scripts {
    /// Show the arguments of this script
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(super::completion::scripts))]
    pub name: Option<String>,

    #[command(flatten)]
    pub list: ListArgs,
}

pub async fn run(command: Scripts, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let mut client = connect(global.vizier.as_ref()).await?;
    if let Some(name) = &command.name {
        let script = super::run::script(&mut client, name).await?;
        match command.list.output {
            ListFormat::Table => print(&args::help(&script, terminal.out))?,
            ListFormat::Json => print(&format!("{:#}\n", to_json(&script)))?,
            ListFormat::Ndjson => print(&format!("{}\n", to_json(&script)))?,
        }
        return Ok(Exit::Ok);
    }
    let reply = client.list_scripts(ListScriptsRequest::default()).await.map_err(client::status)?;
    let mut scripts = reply.into_inner().scripts;
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    if scripts.is_empty() {
        terminal.note("no scripts: none were found beside the program (PYXIS_LIB_DIR says where to look)");
    }
    command.list.print(&terminal, "scripts", scripts.iter().map(to_json).collect(), || {
        let mut grid = Grid::new([("name", false), ("version", false), ("arguments", false), ("what it shows", false)]);
        for script in &scripts {
            let arguments: Vec<String> = script.args.iter().map(|a| a.name.replace('_', "-")).collect();
            grid.push(&sanitize(&script.name), Tone::Bold);
            grid.push(&sanitize(&script.version), Tone::Dim);
            grid.push(&sanitize(&arguments.join(" ")), Tone::Plain);
            let line = script.description.trim().lines().next().unwrap_or_default();
            grid.push(&sanitize(line), Tone::Plain);
        }
        grid
    })?;
    if command.list.output == ListFormat::Table && terminal.out_tty && !scripts.is_empty() {
        terminal.note(&terminal.err.dim("px run NAME runs one, px run NAME -- --help tells its arguments"));
    }
    Ok(Exit::Ok)
}

fn to_json(script: &Script) -> Value {
    let args = script.args.iter().map(|a| {
        json!({
            "name": a.name,
            "type": a.r#type,
            "default": a.default,
            "required": a.required,
            "help": a.help,
            "choices": a.choices,
        })
    });
    json!({
        "name": script.name,
        "version": script.version,
        "description": script.description,
        "digest": script.digest,
        "args": args.collect::<Vec<_>>(),
        "tables": script.tables,
        "bundled": script.bundled,
        // As it was written; a manifest that does not parse is given as its text.
        "manifest": serde_json::from_str::<Value>(&script.manifest).unwrap_or_else(|_| json!(script.manifest)),
    })
}
