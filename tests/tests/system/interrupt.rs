//! Ctrl-C of a px that waits for a result: the query ends on Vizier and on the PEM, and px says so by its exit code.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use tests::proc::Pid;
use tests::{Need, Pyxis, Result, needs, programs};

/// 128 + SIGINT, as shells report it.
const INTERRUPTED: i32 = 130;
/// From the signal to the end of px: it waits two seconds for Vizier's word at most.
const ENDED_MAX: Duration = Duration::from_secs(5);
/// A query that computes uses a core. What is left of one, and everything else that goes on, must stay below this share.
const IDLE_SHARE_MAX: f64 = 0.3;

/// More rows than could be made in a day, on the PEM.
fn endless() -> String {
    let rows: Vec<_> = (0..200).map(|i| format!("({i})")).collect();
    let rows = rows.join(", ");
    let tables: Vec<_> = (0..4).map(|i| format!("(VALUES {rows}) t{i}(x)")).collect();
    format!(
        "SELECT count(*), sum(t0.x + t1.x * t2.x - t3.x) FROM http_events CROSS JOIN {}",
        tables.join(" CROSS JOIN ")
    )
}

/// Processor time of these, over some time, as a share of one core.
fn share(pids: &[Pid], over: Duration) -> f64 {
    let cpu = || pids.iter().map(|pid| pid.cpu()).sum::<Duration>();
    let (before, start) = (cpu(), Instant::now());
    thread::sleep(over);
    (cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64()
}

/// Waits for the end of px after Ctrl-C, and gives its exit code and what it said.
fn interrupt(mut px: Child) -> Result<(Option<i32>, String)> {
    kill(nix::unistd::Pid::from_raw(Pid::from(&px).0), Signal::SIGINT)?;
    let start = Instant::now();
    while px.try_wait()?.is_none() {
        ensure!(start.elapsed() < ENDED_MAX, "px is still there {ENDED_MAX:?} after Ctrl-C");
        thread::sleep(Duration::from_millis(10));
    }
    let output = px.wait_with_output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn ctrl_c_ends_the_query_on_vizier_and_on_the_pem() -> Result {
    needs!(Need::Replay);
    let pyxis = Pyxis::replay(&programs::capture())?;
    let parts = [pyxis.role("vizier").context("no vizier")?, pyxis.role("pem").context("no pem")?];
    let endless = endless();
    let args = ["sql", &endless, "--since", "1h", "--timeout", "10m"];
    let px = pyxis.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let start = Instant::now();
    while share(&parts, Duration::from_millis(200)) < 0.5 {
        ensure!(start.elapsed() < Duration::from_secs(20), "the query does not compute; px up said:\n{}", pyxis.said());
    }
    let (code, said) = interrupt(px)?;
    assert_eq!(code, Some(INTERRUPTED), "{said}");
    assert!(said.contains("cancelled") && !said.contains("panicked"), "{said}");
    let start = Instant::now();
    let mut left = share(&parts, Duration::from_millis(500));
    while left > IDLE_SHARE_MAX && start.elapsed() < Duration::from_secs(5) {
        left = share(&parts, Duration::from_millis(500));
    }
    assert!(left <= IDLE_SHARE_MAX, "Vizier and the PEM still use {left:.2} of a core");
    let rows = pyxis.sql("SELECT status FROM plugin_runs WHERE kind = 'sql' ORDER BY time_ DESC LIMIT 1")?;
    assert_eq!(rows[0]["status"], "cancelled", "{rows:?}");
    assert!(pyxis.number("SELECT count(*) FROM http_events")? > 0, "and all is as before");
    Ok(())
}

#[test]
fn ctrl_c_ends_what_is_followed() -> Result {
    needs!(Need::Replay);
    let pyxis = Pyxis::replay(&programs::capture())?;
    let args = ["run", "service_stats", "--since", "1h", "--follow", "-o", "ndjson"];
    let mut px = pyxis.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let out = px.stdout.take().context("asked for a pipe")?;
    let (sender, lines) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(out)).map_while(|line| line.ok()) {
            let _ = sender.send(line);
        }
    });
    // It shows something.
    lines.recv_timeout(Duration::from_secs(20)).context("nothing is shown")?;
    let (code, said) = interrupt(px)?;
    assert_eq!(code, Some(INTERRUPTED), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    reader.join().expect("it only reads");
    let rows = pyxis.sql("SELECT status FROM plugin_runs WHERE name = 'service_stats' ORDER BY time_ DESC LIMIT 1")?;
    assert_eq!(rows[0]["status"], "cancelled", "{rows:?}");
    Ok(())
}
