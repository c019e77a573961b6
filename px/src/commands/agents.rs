//! `px agents`.

use clap::Args;
use serde_json::{Value, json};
use vizier_api::{Agent, ListAgentsRequest};

use crate::cli::Global;
use crate::client::{self, connect};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::grid::Grid;
use crate::output::human::{bytes_text, count, duration_text, time_utc};
use crate::output::text::sanitize;
use crate::style::Tone;
use crate::when::now_ns;

use super::listing::ListArgs;

/// List the agents that watch, and how they fare
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  px agents\n  px agents -o json | jq '.agents[].state'")]
pub struct Agents {
    #[command(flatten)]
    pub list: ListArgs,
}

pub async fn run(command: Agents, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let mut client = connect(global.vizier.as_ref()).await?;
    let reply = client.list_agents(ListAgentsRequest {}).await.map_err(client::status)?;
    let mut agents = reply.into_inner().agents;
    agents.sort_by(|a, b| a.id.cmp(&b.id));
    if agents.is_empty() {
        terminal.note("no agent has connected yet");
    }
    command.list.print(&terminal, "agents", agents.iter().map(to_json).collect(), || grid(&agents))?;
    Ok(Exit::Ok)
}

fn grid(agents: &[Agent]) -> Grid {
    let mut grid = Grid::new([
        ("agent", false),
        ("host", false),
        ("state", false),
        ("capture", false),
        ("events", true),
        ("lost", true),
        ("tables", true),
        ("up", true),
        ("seen", true),
        ("kernel", false),
        ("version", false),
    ]);
    let now = now_ns();
    let ago = |ns: i64| match now.checked_sub(ns) {
        Some(age @ 0..) if ns > 0 => duration_text(age as u64),
        _ => "-".to_owned(),
    };
    for agent in agents {
        let connected = agent.state == "connected";
        let state = match agent.state_reason.as_str() {
            "" => agent.state.clone(),
            reason => format!("{}: {reason}", agent.state),
        };
        grid.push(&sanitize(&agent.id), Tone::Bold);
        grid.push(&sanitize(&agent.hostname), Tone::Plain);
        grid.push(&sanitize(&state), if connected { Tone::Good } else { Tone::Bad });
        grid.push(&sanitize(&agent.capture), if agent.capture == "none" { Tone::Bad } else { Tone::Plain });
        grid.push(&count(agent.events), Tone::Plain);
        grid.push(&count(agent.events_lost), if agent.events_lost > 0 { Tone::Warn } else { Tone::Plain });
        grid.push(&bytes_text(agent.table_bytes), Tone::Plain);
        grid.push(&if connected { ago(agent.connected_time_ns) } else { "-".into() }, Tone::Plain);
        grid.push(&ago(agent.last_seen_time_ns), Tone::Plain);
        grid.push(&sanitize(&agent.kernel), Tone::Dim);
        grid.push(&sanitize(&agent.version), Tone::Dim);
    }
    grid
}

fn to_json(agent: &Agent) -> Value {
    let time = |ns: i64| {
        let mut text = String::new();
        time_utc(&mut text, ns);
        if ns > 0 { Value::from(text) } else { Value::Null }
    };
    json!({
        "id": agent.id,
        "asid": agent.asid,
        "hostname": agent.hostname,
        "version": agent.version,
        "kernel": agent.kernel,
        "state": agent.state,
        "state_reason": agent.state_reason,
        "connected_time": time(agent.connected_time_ns),
        "last_seen_time": time(agent.last_seen_time_ns),
        "capture": agent.capture,
        "events": agent.events,
        "events_lost": agent.events_lost,
        "table_bytes": agent.table_bytes,
    })
}
