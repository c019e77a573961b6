//! `px version`.

use clap::Args;
use serde_json::json;
use vizier_api::ListAgentsRequest;

use crate::cli::Global;
use crate::client::connect;
use crate::error::Result;
use crate::exit::Exit;

use super::listing::{ListArgs, ListFormat, print};

/// Show the versions of px and of what it talks to
#[derive(Debug, Args)]
pub struct Version {
    #[command(flatten)]
    pub list: ListArgs,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub async fn run(command: Version, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    // Nobody there is an ordinary answer here.
    let agents = match connect(global.vizier.as_ref()).await {
        Ok(mut client) => client.list_agents(ListAgentsRequest {}).await.ok().map(|reply| reply.into_inner().agents),
        Err(_) => None,
    };
    let agents = agents.unwrap_or_default();
    if command.list.output != ListFormat::Table {
        let list: Vec<_> = agents.iter().map(|a| json!({ "id": a.id, "version": a.version })).collect();
        print(&format!("{}\n", json!({ "px": VERSION, "agents": list })))?;
        return Ok(Exit::Ok);
    }
    let mut text = format!("px {VERSION}\n");
    for agent in &agents {
        text.push_str(&format!("agent {} {}\n", agent.id, agent.version));
    }
    print(&text)?;
    if let Some(other) = agents.iter().find(|agent| agent.version != VERSION && !agent.version.is_empty()) {
        terminal.warn(&format!(
            "px is {VERSION}, agent {} is {}: install the same version on both",
            other.id, other.version
        ));
    }
    Ok(Exit::Ok)
}
