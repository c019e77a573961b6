//! The words of welcome of `px up`: what is captured, what failed, what to do next.

use std::path::Path;
use std::time::{Duration, Instant};

use vizier_api::{Agent, ListAgentsRequest, ListScriptsRequest, ListTablesRequest};

use crate::client::{Address, Client, connect};
use crate::output::human::plural;
use crate::output::text::sanitize;
use crate::style::{Style, Tone};
use crate::supervisor::roles::{Announce, Fatal};

/// The parts have said that they run; what is missing is the PEM's link to Vizier, which takes milliseconds, and, for a
/// recording, reading it.
const AGENT_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

pub fn run(config: Announce) -> Result<(), Fatal> {
    let sandbox = pem::sandbox::Config {
        user: config.user.map(|user| pem::sandbox::User { uid: user.uid, gid: user.gid }),
        ..pem::sandbox::Config::default()
    };
    pem::sandbox::enter(&sandbox).map_err(|e| Fatal { message: super::internal::chain(&e), ..Fatal::default() })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Fatal { message: e.to_string(), ..Fatal::default() })?;
    let text = runtime.block_on(greeting(&config));
    eprint!("{text}");
    Ok(())
}

async fn greeting(config: &Announce) -> String {
    let style = Style::new(config.color);
    let began = Instant::now();
    let mut found = None;
    while began.elapsed() < AGENT_WITHIN {
        if let Some(all) = ask(config).await
            && all.agent.state == "connected"
        {
            found = Some(all);
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let Some(found) = found else {
        return format!(
            "{} Vizier runs, but agent {} has not connected to it within {AGENT_WITHIN:?}; px agents, px up -v\n",
            style.warn("warning:"),
            config.agent
        );
    };
    render(config, &found, style)
}

struct Found {
    agent: Agent,
    scripts: usize,
    tables: usize,
}

async fn ask(config: &Announce) -> Option<Found> {
    let mut client: Client = connect(Some(&Address::Unix(config.socket.clone()))).await.ok()?;
    let agents = client.list_agents(ListAgentsRequest {}).await.ok()?.into_inner().agents;
    let agent = agents.into_iter().find(|agent| agent.id == config.agent)?;
    let scripts = client.list_scripts(ListScriptsRequest::default()).await.ok()?.into_inner().scripts.len();
    let tables = client.list_tables(ListTablesRequest::default()).await.ok()?.into_inner().tables.len();
    Some(Found { agent, scripts, tables })
}

fn render(config: &Announce, found: &Found, style: Style) -> String {
    let mut out = String::new();
    let mut line = |head: &str, text: &str| out.push_str(&format!("  {} {text}\n", style.dim(&format!("{head:<9}"))));
    if let Some(file) = &config.replay {
        line("replaying", &format!("{}", file.display()));
    } else if let Some(capture) = &config.capture {
        let how = match capture.capture.as_str() {
            "socket" => "socket tracepoints: system calls that are not a socket's pay nothing",
            "sys_exit" => "sys_exit tracepoint: every system call pays about 0.1 µs",
            "syscalls" => "tracepoints of each system call that moves bytes",
            other => other,
        };
        line("capturing", &format!("HTTP/1 and every TCP connection, by {how}"));
        let failed: Vec<_> = capture.probes.iter().filter(|probe| !probe.error.is_empty()).collect();
        let attached = capture.probes.len() - failed.len();
        line("probes", &format!("{attached} of {} attached", capture.probes.len()));
        for probe in failed {
            let text = format!("{} ({}): {}", probe.program, probe.hook, probe.error);
            line("", &style.paint(Tone::Warn, &sanitize(&text)));
        }
    }
    let agent = &found.agent;
    let mut facts = vec![plural(found.tables as u64, "table")];
    if !agent.kernel.is_empty() {
        facts.push(format!("Linux {}", sanitize(&agent.kernel)));
    }
    line("agent", &format!("{} ({})", sanitize(&agent.id), facts.join(", ")));
    if let Some(address) = config.listen {
        line("listening", &format!("http://{address}, in the clear"));
    }
    let head =
        format!("{} {}", style.paint(Tone::Good, "Pyxis is up"), style.dim(&format!("(process {})", config.pid)));
    let px = px(&config.socket);
    let mut next = vec![
        (format!("{px} run service_stats -f"), "requests, errors and latency per service"),
        (format!("{px} run http_requests"), "the latest requests"),
        (format!("{px} sql \"select * from http_events limit 5\""), ""),
        (format!("{px} tables"), "what there is to ask about"),
    ];
    if found.scripts == 0 {
        next.drain(..2);
    }
    let wide = next.iter().filter(|(_, what)| !what.is_empty()).map(|(command, _)| command.len()).max().unwrap_or(0);
    out.push_str("\nIn another terminal:\n");
    for (command, what) in next {
        let text = format!("  {}  {}", style.accent(&format!("{command:<wide$}")), style.dim(what));
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out.push_str(&style.dim("\nCtrl-C ends everything and leaves nothing behind."));
    format!("{head}\n{out}\n")
}

/// How to call px so that it finds this Vizier: as it is, when the socket lies where px looks.
fn px(socket: &Path) -> String {
    let usual = [Path::new(crate::paths::SYSTEM_RUNTIME).join(crate::paths::SOCKET)];
    if usual.iter().any(|usual| usual == socket) || crate::paths::sockets().iter().any(|usual| usual == socket) {
        "px".to_owned()
    } else {
        format!("px --vizier unix:{}", socket.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::roles::{Probe, Ready};

    #[test]
    fn the_greeting_says_what_is_captured_what_failed_and_what_to_do() {
        let probe = |program: &str, error: &str| Probe {
            program: program.into(),
            hook: format!("tp_btf:{program}"),
            error: error.into(),
        };
        let config = Announce {
            user: None,
            socket: Path::new(crate::paths::SYSTEM_RUNTIME).join(crate::paths::SOCKET),
            agent: "node".into(),
            pid: 7,
            capture: Some(Ready {
                capture: "socket".into(),
                probes: vec![probe("socket_recv", ""), probe("process_exit", "no such tracepoint")],
            }),
            replay: None,
            listen: None,
            color: false,
        };
        let agent = Agent { id: "node".into(), kernel: "6.18".into(), ..Agent::default() };
        insta::assert_snapshot!(render(&config, &Found { agent, scripts: 7, tables: 10 }, Style::plain()), @r#"
        Pyxis is up (process 7)
          capturing HTTP/1 and every TCP connection, by socket tracepoints: system calls that are not a socket's pay nothing
          probes    1 of 2 attached
                    process_exit (tp_btf:process_exit): no such tracepoint
          agent     node (10 tables, Linux 6.18)

        In another terminal:
          px run service_stats -f  requests, errors and latency per service
          px run http_requests     the latest requests
          px sql "select * from http_events limit 5"
          px tables                what there is to ask about

        Ctrl-C ends everything and leaves nothing behind.
        "#);
    }
}
