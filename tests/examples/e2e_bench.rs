//! What Pyxis costs and how fresh it is: nginx under an open-loop load of numbered requests, with and without, in turns.
//!
//! `cargo xtask bench e2e [-- --rate N --requests N --rounds N]`. Needs root, BTF and nginx. Figures are medians of the
//! rounds, each round one run without and one with (ABAB), on one machine at one time.
#![forbid(unsafe_code)]

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tests::load::Load;
use tests::needs::met;
use tests::proc::Pid;
use tests::server::V4;
use tests::{Need, Pyxis, Result, Server};

/// Switches the kernel's own clock for BPF programs; each run of one then costs 55 to 80 ns more.
const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// Longer than from an event to its row.
const SETTLED: Duration = Duration::from_secs(2);
const FRESHNESS_SAMPLES: usize = 60;

struct Options {
    rate: u32,
    requests: u64,
    rounds: usize,
}

/// One run of the load.
#[derive(Debug, Default, Clone)]
struct Run {
    p50_us: f64,
    p99_us: f64,
    /// Requests per second that were answered.
    rate: f64,
    nginx_us: f64,
    pem_us: f64,
    helper_us: f64,
    rows: i64,
    distinct: i64,
    lost: i64,
    rss_mib: f64,
}

fn main() -> Result<()> {
    let options = options()?;
    if !met("bench e2e", &[Need::Live, Need::Program("nginx")]) {
        return Ok(());
    }
    let server = Server::nginx(V4)?;
    let mut without = Vec::new();
    let mut with = Vec::new();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        without.push(run(&server, &options, &format!("off{round}"), None)?);
        let pyxis = Pyxis::live()?;
        with.push(run(&server, &options, &format!("on{round}"), Some(&pyxis))?);
    }
    let bpf = bpf_time(&server, &options)?;
    let (idle, freshness) = idle_and_freshness(&server)?;
    print(&options, &without, &with, bpf, idle, &freshness)
}

fn run(server: &Server, options: &Options, name: &str, pyxis: Option<&Pyxis>) -> Result<Run> {
    let worker = worker(server)?;
    let role = |role: &str| pyxis.and_then(|pyxis| pyxis.role(role));
    let (pem, helper) = (role("pem"), role("helper"));
    let cpu = |pid: Option<Pid>| pid.map_or(Duration::ZERO, Pid::cpu);
    let before = (worker.cpu(), cpu(pem), cpu(helper));
    let load =
        Load { target: server.address, run: name, requests: options.requests, rate: options.rate, connections: 50 };
    let report = load.send()?;
    thread::sleep(SETTLED);
    let per_request =
        |after: Duration, before: Duration| (after - before).as_secs_f64() * 1e6 / options.requests as f64;
    let mut run = Run {
        p50_us: report["p50_us"].as_f64().unwrap_or(0.0),
        p99_us: report["p99_us"].as_f64().unwrap_or(0.0),
        rate: report["rate"].as_f64().unwrap_or(0.0),
        nginx_us: per_request(worker.cpu(), before.0),
        pem_us: per_request(cpu(pem), before.1),
        helper_us: per_request(cpu(helper), before.2),
        ..Run::default()
    };
    if let Some(pyxis) = pyxis {
        let seen = format!(
            "FROM http_events WHERE local_port = {} AND trace_role = 2 AND req_path LIKE '/seq/{name}/%'",
            server.port()
        );
        run.rows = number(pyxis, &format!("SELECT count(*) {seen}"))?;
        run.distinct = number(pyxis, &format!("SELECT count(DISTINCT req_path) {seen}"))?;
        run.lost = number(pyxis, "SELECT coalesce(sum(events), 0) FROM data_loss")?;
        let rss: u64 = [pem, helper, role("vizier")].into_iter().flatten().map(Pid::rss_bytes).sum();
        run.rss_mib = rss as f64 / f64::from(1 << 20);
    }
    Ok(run)
}

/// As `Pyxis::number`, but a result that says what was lost is what is asked for here.
fn number(pyxis: &Pyxis, query: &str) -> Result<i64> {
    let text = pyxis.text(&["sql", query, "--since", "1h", "--allow-partial", "-o", "csv", "--no-headers"])?;
    text.trim().parse().with_context(|| format!("not a number: {text}"))
}

/// Time in BPF programs per request, on both sides of loopback together, and by program.
fn bpf_time(server: &Server, options: &Options) -> Result<(f64, Vec<(String, f64, f64)>)> {
    let earlier = fs::read_to_string(BPF_STATS).unwrap_or_else(|_| "0".to_owned());
    if fs::write(BPF_STATS, "1").is_err() {
        eprintln!("SKIPPED: BPF time: {BPF_STATS} cannot be written");
        return Ok((0.0, Vec::new()));
    }
    let pyxis = Pyxis::live()?;
    let helper = pyxis.role("helper").context("no helper")?;
    let before = programs(helper);
    Load { target: server.address, run: "bpf", requests: options.requests, rate: options.rate, connections: 50 }
        .send()?;
    let after = programs(helper);
    let _ = fs::write(BPF_STATS, earlier.trim());
    let mut spent = Vec::new();
    for (id, time, count) in after {
        let (time_before, count_before) =
            before.iter().find(|program| program.0 == id).map_or((0, 0), |program| (program.1, program.2));
        let requests = options.requests as f64;
        let (time, count) = ((time - time_before) as f64 / requests, (count - count_before) as f64 / requests);
        if count > 0.01 {
            spent.push((format!("program {id}"), time, count));
        }
    }
    Ok((spent.iter().map(|program| program.1).sum::<f64>() / 1_000.0, spent))
}

/// Id, run time and runs of each program that a process holds.
fn programs(pid: Pid) -> Vec<(u64, u64, u64)> {
    let mut found: Vec<(u64, u64, u64)> = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", pid.0)).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(time), Some(count)) = (field("prog_id:"), field("run_time_ns:"), field("run_cnt:"))
            && !found.iter().any(|(known, ..)| *known == id)
        {
            found.push((id, time, count));
        }
    }
    found
}

/// Share of a core while nothing happens, and the time from a request to the first query that sees it.
fn idle_and_freshness(server: &Server) -> Result<(f64, Vec<f64>)> {
    let pyxis = Pyxis::live()?;
    let all: Vec<Pid> = ["pem", "helper", "vizier"].into_iter().filter_map(|role| pyxis.role(role)).collect();
    let cpu = || all.iter().map(|pid| pid.cpu()).sum::<Duration>();
    let (start, before) = (Instant::now(), cpu());
    thread::sleep(Duration::from_secs(10));
    let idle = (cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;

    let mut samples = Vec::new();
    for n in 0..FRESHNESS_SAMPLES {
        let path = format!("/fresh/{n}");
        let sent = Instant::now();
        let output = Command::new("curl").args(["--silent", "--output", "/dev/null", &server.url(&path)]).status()?;
        if !output.success() {
            bail!("curl failed");
        }
        let query = format!("SELECT count(*) FROM http_events WHERE req_path = '{path}' AND trace_role = 2");
        loop {
            // The state that a query sees is that of its start: px's own start is in the figure, its answer's way is not.
            let asked = Instant::now();
            if number(&pyxis, &query)? > 0 {
                samples.push((asked - sent).as_secs_f64() * 1e3);
                break;
            }
            if sent.elapsed() > Duration::from_secs(10) {
                bail!("{path} did not become visible within ten seconds");
            }
        }
        // Not in step with any timer of ours.
        thread::sleep(Duration::from_millis(37 + (n as u64 * 53) % 101));
    }
    samples.sort_by(f64::total_cmp);
    Ok((idle, samples))
}

fn print(
    options: &Options,
    without: &[Run],
    with: &[Run],
    bpf: (f64, Vec<(String, f64, f64)>),
    idle: f64,
    freshness: &[f64],
) -> Result<()> {
    let median = |runs: &[Run], figure: fn(&Run) -> f64| {
        let mut figures: Vec<f64> = runs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let at = |share: f64| freshness[((freshness.len() as f64 * share) as usize).min(freshness.len() - 1)];
    println!("{} requests at {}/s through nginx, {} rounds, medians", options.requests, options.rate, options.rounds);
    println!("{:34} {:>10} {:>10}", "", "without", "with");
    let rows: [(&str, fn(&Run) -> f64); 4] = [
        ("answered per second", |run| run.rate),
        ("latency p50, µs", |run| run.p50_us),
        ("latency p99, µs", |run| run.p99_us),
        ("nginx CPU per request, µs", |run| run.nginx_us),
    ];
    for (name, figure) in rows {
        println!("{name:34} {:>10.1} {:>10.1}", median(without, figure), median(with, figure));
    }
    let agent: fn(&Run) -> f64 = |run| run.pem_us + run.helper_us;
    println!("{:34} {:>10} {:>10.2}", "agent CPU per request, µs", "", median(with, agent));
    println!("{:34} {:>10} {:>10.2}", "  PEM", "", median(with, |run| run.pem_us));
    println!("{:34} {:>10} {:>10.2}", "BPF time per request, µs", "", bpf.0);
    for (name, ns, runs) in &bpf.1 {
        println!("{:34} {:>10} {:>10.2}  {runs:.2} runs per request", format!("  {name}"), "", ns / 1_000.0);
    }
    println!("{:34} {:>10} {:>10.1}", "RSS of all processes, MiB", "", median(with, |run| run.rss_mib));
    println!("{:34} {:>10} {:>10.2}", "idle, % of a core", "", idle);
    println!("{:34} {:>10} {:>10.0}", "request to queryable p50, ms", "", at(0.5));
    println!("{:34} {:>10} {:>10.0}", "request to queryable p99, ms", "", at(0.99));
    for run in with {
        println!("rows {} ({} numbers) of {}, lost and counted {}", run.rows, run.distinct, options.requests, run.lost);
    }
    if let Some(file) = std::env::var_os("PYXIS_BENCH_JSON") {
        let runs = |runs: &[Run]| -> Vec<Value> {
            runs.iter()
                .map(|run| {
                    json!({
                        "rate": run.rate, "p50_us": run.p50_us, "p99_us": run.p99_us, "nginx_us": run.nginx_us,
                        "pem_us": run.pem_us, "helper_us": run.helper_us, "rows": run.rows, "distinct": run.distinct,
                        "lost": run.lost, "rss_mib": run.rss_mib,
                    })
                })
                .collect()
        };
        let figures = json!({
            "name": "e2e", "rate": options.rate, "requests": options.requests, "without": runs(without), "with": runs(with),
            "bpf_us": bpf.0, "idle_percent": idle, "freshness_ms": freshness,
        });
        fs::write(file, serde_json::to_vec_pretty(&figures)?)?;
    }
    Ok(())
}

/// nginx's worker: the master does no work.
fn worker(server: &Server) -> Result<Pid> {
    server.pid().children().into_iter().next().context("nginx has no worker")
}

fn options() -> Result<Options> {
    let mut options = Options { rate: 5_000, requests: 50_000, rounds: 5 };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().with_context(|| format!("{arg} takes a number"))?;
        match arg.as_str() {
            "--rate" => options.rate = value.parse()?,
            "--requests" => options.requests = value.parse()?,
            "--rounds" => options.rounds = value.parse()?,
            _ => bail!("usage: e2e_bench [--rate N] [--requests N] [--rounds N]"),
        }
    }
    if options.rounds == 0 || options.requests == 0 || options.rate == 0 {
        bail!("--rate, --requests and --rounds take at least 1");
    }
    Ok(options)
}
