//! `px plugin list`.

use clap::Args;
use serde_json::json;
use vizier_api::ListPluginsRequest;

use crate::cli::Global;
use crate::client::{self, connect};
use crate::commands::listing::{ListArgs, ListFormat};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::grid::Grid;
use crate::output::human::bytes_text;
use crate::output::text::sanitize;
use crate::style::Tone;

/// List the plugins that are installed in Vizier
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  px plugin list\n  px plugin list slow_posts -o json")]
pub struct List {
    /// Only the versions of this one
    #[arg(value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    pub list: ListArgs,
}

pub async fn run(command: List, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let mut client = connect(global.vizier.as_ref()).await?;
    let request = ListPluginsRequest { name: command.name.unwrap_or_default() };
    let plugins = client.list_plugins(request).await.map_err(client::status)?.into_inner().plugins;
    if plugins.is_empty() && command.list.output == ListFormat::Table {
        terminal.note("no plugin is installed: px plugin install does that, px scripts lists what came with Pyxis");
        return Ok(Exit::Ok);
    }
    let items = plugins.iter().map(|plugin| {
        json!({
            "name": plugin.name,
            "version": plugin.version,
            "kind": plugin.kind,
            "description": plugin.description,
            "digest": plugin.digest,
            "component_digest": plugin.component_digest,
            "bytes": plugin.bytes,
            "installed_time_ns": plugin.installed_time_ns.to_string(),
            "enabled": plugin.enabled,
            "signers": plugin.signers,
            "problem": plugin.problem,
        })
    });
    command.list.print(&terminal, "plugins", items.collect(), || {
        let mut grid = Grid::new([
            ("name", false),
            ("version", false),
            ("kind", false),
            ("state", false),
            ("size", true),
            ("about", false),
        ]);
        for plugin in &plugins {
            let (state, tone) = match (plugin.enabled, plugin.problem.as_str()) {
                (true, "") => ("enabled", Tone::Good),
                (true, _) => ("broken", Tone::Bad),
                (false, _) => ("kept", Tone::Dim),
            };
            grid.push(&sanitize(&plugin.name), Tone::Bold);
            grid.push(&sanitize(&plugin.version), Tone::Plain);
            grid.push(&sanitize(&plugin.kind), Tone::Plain);
            grid.push(state, tone);
            grid.push(&bytes_text(plugin.bytes), Tone::Plain);
            let about = if plugin.problem.is_empty() { &plugin.description } else { &plugin.problem };
            grid.push(&sanitize(about.trim().lines().next().unwrap_or_default()), Tone::Plain);
        }
        grid
    })?;
    Ok(Exit::Ok)
}
