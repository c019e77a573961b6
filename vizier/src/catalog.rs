//! What there is to ask about: tables, scripts, agents.

use std::sync::Arc;
use std::time::Duration;

use host::meter::Meter;
use host_manifest::{Arg, nearest};
use vizier_api::{Agent, Argument, Script, Table, TableOnAgent, ipc};
use vizier_engine::exchange::{AgentState, AgentStatus};
use vizier_engine::policy::AllowAll;
use vizier_engine::{Engine, QueryContext, Registry};

use crate::run::Clock;
use crate::runs::History;
use crate::scripts::{Loaded, Origin, Scripts};
use crate::server::now_ns;
use crate::status::Refusal;

/// How long agents are waited for when they are asked for their state: a list shall not hang on the slowest.
const REFRESH_WITHIN: Duration = Duration::from_millis(500);
/// Where a table is said to be that Vizier keeps itself.
const VIZIER: &str = "vizier";
/// How an agent captures that plays a recording all at once. One that plays it at its pace says `replay_live`: its rows are
/// of the present, and what it announced of its tables is older than they are.
const REPLAY: &str = "replay";

/// The wall clock, unless every agent plays a recording: then the end of the newest recording, so that "the last five
/// minutes" are the recording's.
pub fn clock(registry: Arc<Registry>) -> Clock {
    Arc::new(move || {
        let agents = registry.agents();
        let replays = !agents.is_empty() && agents.iter().all(|a| a.info.capture == REPLAY);
        let newest = || agents.iter().flat_map(|a| a.tables.values().filter_map(|t| t.newest_ns)).max();
        match replays.then(newest).flatten() {
            Some(newest_ns) => newest_ns + 1,
            None => now_ns(),
        }
    })
}

/// All tables, or the one of that name.
pub async fn tables(engine: &Engine, history: &History, name: &str) -> Result<Vec<Table>, Refusal> {
    let registry = engine.registry();
    registry.refresh(REFRESH_WITHIN).await;
    let agents = registry.agents();
    let now_ns = now_ns();
    let query = engine.query(QueryContext {
        range: host::backend::TimeRange { start_ns: 0, end_ns: now_ns },
        now_ns,
        deadline: tokio::time::Instant::now(),
        policy: Arc::new(AllowAll),
        meter: Arc::new(Meter::default()),
    });
    let mut infos = query.backend().tables();
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    if !name.is_empty() && !infos.iter().any(|t| t.name == name) {
        let names: Vec<&str> = infos.iter().map(|t| t.name.as_str()).collect();
        return Err(unknown("table", name, &names, "no agent is connected: see `px agents`"));
    }
    let chosen = infos.into_iter().filter(|t| name.is_empty() || t.name == name);
    chosen
        .map(|info| {
            let on = match on_vizier(history, &info.name) {
                Some(here) => vec![here],
                None => agents.iter().filter_map(|a| on_agent(a, &info.name)).collect(),
            };
            let schema = ipc::encode_schema(&info.schema)
                .map_err(|e| Refusal::from(host::error::Error::Internal(format!("schema of {}: {e}", info.name))))?;
            Ok(Table { name: info.name, description: info.description, schema, agents: on })
        })
        .collect()
}

/// State of a table that Vizier keeps itself.
fn on_vizier(history: &History, table: &str) -> Option<TableOnAgent> {
    let state = history.store().table(table)?.stats();
    Some(TableOnAgent {
        agent: VIZIER.to_owned(),
        rows: state.rows,
        bytes: state.bytes as u64,
        budget_bytes: state.budget_bytes as u64,
        oldest_time_ns: state.oldest_ns.unwrap_or_default(),
        newest_time_ns: state.newest_ns.unwrap_or_default(),
        rows_expired: state.rows_expired,
    })
}

fn on_agent(agent: &AgentStatus, table: &str) -> Option<TableOnAgent> {
    let state = agent.tables.get(table)?;
    Some(TableOnAgent {
        agent: agent.info.id.to_string(),
        rows: state.rows,
        bytes: state.bytes,
        budget_bytes: state.budget_bytes,
        oldest_time_ns: state.oldest_ns.unwrap_or_default(),
        newest_time_ns: state.newest_ns.unwrap_or_default(),
        rows_expired: state.rows_expired,
    })
}

/// All scripts, or those of that name.
pub async fn scripts(scripts: &Scripts, name: &str) -> Result<Vec<Script>, Refusal> {
    let all = scripts.list().await;
    if !name.is_empty() && !all.iter().any(|s| s.name() == name) {
        let names: Vec<&str> = all.iter().map(|s| s.name()).collect();
        return Err(unknown("script", name, &names, "this vizier has no scripts: build them with cargo xtask guests"));
    }
    Ok(all.iter().filter(|s| name.is_empty() || s.name() == name).map(|s| script(s)).collect())
}

fn script(loaded: &Loaded) -> Script {
    let manifest = loaded.manifest();
    Script {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        description: manifest.description.clone(),
        digest: loaded.digest.clone(),
        args: manifest.args.iter().map(argument).collect(),
        tables: manifest.tables.clone(),
        manifest: manifest.to_json(),
        bundled: loaded.origin == Origin::Bundled,
        installed: loaded.origin == Origin::Installed,
    }
}

fn argument(arg: &Arg) -> Argument {
    let default = match &arg.default {
        None => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    Argument {
        name: arg.name.clone(),
        r#type: arg.arg_type.as_str().to_owned(),
        default,
        required: arg.required,
        help: arg.help.clone(),
        choices: arg.choices.clone(),
    }
}

/// All agents, by id.
pub async fn agents(engine: &Engine) -> Vec<Agent> {
    engine.registry().refresh(REFRESH_WITHIN).await;
    let mut agents: Vec<_> = engine.registry().agents().into_iter().map(agent).collect();
    agents.sort_by(|a, b| a.id.cmp(&b.id));
    agents
}

fn agent(status: AgentStatus) -> Agent {
    let state = match status.state {
        AgentState::Connected => "connected",
        AgentState::Gone => "gone",
        AgentState::Expected => "expected",
    };
    Agent {
        id: status.info.id.to_string(),
        asid: status.info.asid,
        hostname: status.info.hostname,
        version: status.info.version,
        kernel: status.info.kernel,
        state: state.to_owned(),
        state_reason: status.reason,
        connected_time_ns: status.connected_time_ns,
        last_seen_time_ns: status.last_seen_time_ns,
        capture: status.info.capture,
        events: status.info.events,
        events_lost: status.info.events_lost,
        table_bytes: status.tables.values().map(|t| t.bytes).sum(),
    }
}

fn unknown(what: &str, name: &str, names: &[&str], none: &str) -> Refusal {
    let hint = match (nearest(name, names), names.is_empty()) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, true) => none.to_owned(),
        (None, false) => format!("there are {}", names.join(", ")),
    };
    Refusal::not_found(format!("there is no {what} `{name}`"), hint)
}
