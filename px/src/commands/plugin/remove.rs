//! `px plugin remove`.

use clap::Args;
use vizier_api::RemovePluginRequest;

use crate::cli::Global;
use crate::client::{self, connect};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::text::sanitize;

/// Remove a plugin from Vizier, or one version of it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px plugin remove slow_posts           all its versions
  px plugin remove slow_posts@0.2.0     this one; the newest that is left is enabled")]
pub struct Remove {
    /// NAME or NAME@VERSION
    #[arg(value_name = "NAME[@VERSION]")]
    plugin: String,
}

pub async fn run(command: Remove, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let (name, version) = command.plugin.split_once('@').unwrap_or((&command.plugin, ""));
    let mut client = connect(global.vizier.as_ref()).await?;
    let request = RemovePluginRequest { name: name.to_owned(), version: version.to_owned() };
    let reply = client.remove_plugin(request).await.map_err(client::status)?.into_inner();
    let gone = reply.versions.iter().map(|version| sanitize(version)).collect::<Vec<_>>().join(", ");
    terminal.note(&match reply.enabled_version.as_str() {
        "" => format!("removed {name} {gone}"),
        enabled => format!("removed {name} {gone}; {} is enabled", sanitize(enabled)),
    });
    Ok(Exit::Ok)
}
