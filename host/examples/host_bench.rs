//! What a script costs beyond the query it asks for: `cargo xtask bench host`.
//!
//! The engine is a fake one whose planning is free, so that what is measured is the host: making a guest ready, calling it,
//! its calls back, and what a guest that computes for ever costs others. Prints a table, and writes JSON to the file `PYXIS_BENCH_JSON`
//! names.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use host::meter::{Budget, Meter};
use host::tenant::{self, Tenant};
use host::{Config, RunReport, RunRequest, Runtime, Script};
use tokio_util::sync::CancellationToken;

#[path = "../tests/host/support.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod support;

use support::{Engine, Output, guest};

/// Runs of one figure. A median of so many is stable to a few per cent.
const RUNS: usize = 2_000;
/// Interleaved rounds where two things are compared.
const ROUNDS: usize = 7;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut table = Table(Vec::new());
    let dir = std::env::temp_dir().join(format!("host-bench-{}", std::process::id()));
    let config = || Config { cache_dir: Some(dir.clone()), ..Config::default() };
    let probe = guest("probe");

    let cold = Runtime::new(config()).expect("a runtime").load(&probe).expect("it loads");
    table.add("load, compiled new", cold.ready_ns() as f64, "ns");
    let runtime = Runtime::new(config()).expect("a runtime");
    let script = runtime.load(&probe).expect("it loads");
    assert!(script.cached());
    table.add("load, compiled before (from disk)", script.ready_ns() as f64, "ns");
    let mut again = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        runtime.load(&probe).expect("it loads");
        again.push(nanos(began.elapsed()));
    }
    table.add("load, loaded before (hash of the bytes)", median(&mut again), "ns");
    let digest = script.digest().to_owned();
    let began = Instant::now();
    for _ in 0..1_000 {
        assert!(runtime.script(&digest).is_some());
    }
    table.add("find by digest", nanos(began.elapsed()) / 1_000.0, "ns");

    for _ in 0..200 {
        run(&script, "nothing").await;
    }
    for (what, calls) in
        [("nothing", "a script that does nothing"), ("plan", "a script that plans (6 frames, displayed)")]
    {
        let (mut ready, mut total, mut cpu, mut host) = (vec![], vec![], vec![], vec![]);
        for _ in 0..RUNS {
            let began = Instant::now();
            let report = run(&script, what).await;
            total.push(nanos(began.elapsed()));
            ready.push(report.instantiate_ns as f64);
            cpu.push(report.guest_cpu_ns as f64);
            host.push(report.host_cpu_ns as f64);
        }
        table.add(&format!("{calls}: guest ready, p50"), median(&mut ready), "ns");
        table.add(&format!("{calls}: guest ready, p99"), quantile(&mut ready, 0.99), "ns");
        table.add(&format!("{calls}: whole run on the wall, p50"), median(&mut total), "ns");
        table.add(&format!("{calls}: whole run on the wall, p99"), quantile(&mut total, 0.99), "ns");
        table.add(&format!("{calls}: processor time of the guest, p50"), median(&mut cpu), "ns");
        table.add(&format!("{calls}: processor time of host calls, p50"), median(&mut host), "ns");
    }

    let evil = runtime.load(&guest("evil")).expect("it loads");
    for what in ["plan", "work"] {
        let (mut alone, mut beside) = (vec![], vec![]);
        for _ in 0..ROUNDS {
            sample(&script, what, &mut alone).await;
            let runaway = Runaway::start(&evil).await;
            sample(&script, what, &mut beside).await;
            runaway.stop().await;
        }
        let (alone, beside) = (median(&mut alone), median(&mut beside));
        table.add(&format!("{what}, alone, p50"), alone, "ns");
        table.add(&format!("{what}, beside one that loops for ever, p50"), beside, "ns");
        table.add(&format!("{what}, slowed by"), beside / alone, "x");
    }

    let mut over = vec![];
    for _ in 0..20 {
        let mut request = request("attack", "spin");
        request.meter = Arc::new(Meter::new(Budget { guest_cpu_ns: 20_000_000, ..Budget::default() }));
        let report = evil.run(request).await;
        over.push(report.guest_cpu_ns as f64 - 20_000_000.0);
    }
    table.add("a runaway's overrun of its budget, p50", median(&mut over), "ns");
    table.add("a runaway's overrun of its budget, most", quantile(&mut over, 1.0), "ns");
    tenants(&mut table, &script, &evil).await;
    let _ = std::fs::remove_dir_all(&dir);
    table.print();
}

fn request(arg: &str, value: &str) -> RunRequest {
    // One for all: its tables are made when it is, and that is not what is measured.
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    let engine = Arc::clone(ENGINE.get_or_init(Engine::new));
    let mut request = RunRequest::new(engine, Arc::new(Output::default()));
    request.args = [(arg.into(), value.into())].into();
    request
}

async fn run(script: &Script, what: &str) -> RunReport {
    let report = script.run(request("what", what)).await;
    assert!(report.result.is_ok(), "{report:?}");
    report
}

async fn sample(script: &Script, what: &str, into: &mut Vec<f64>) {
    for _ in 0..50 {
        let request = request("what", what);
        let began = Instant::now();
        let report = script.run(request).await;
        into.push(nanos(began.elapsed()));
        assert!(report.result.is_ok());
        // As requests come: not in a row.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// 64 runs at once: one tenant's loop for ever and are begun again as they end, another's come as requests do. What the other's
/// take against when it is alone.
async fn tenants(table: &mut Table, script: &Arc<Script>, evil: &Arc<Script>) {
    const HOSTILE: usize = 56;
    const OTHERS: usize = 8;
    for what in ["plan", "count"] {
        let (mut alone, mut beside) = (vec![], vec![]);
        for _ in 0..ROUNDS {
            others(script, what, OTHERS, &mut alone).await;
            let stop = CancellationToken::new();
            let budget = tenant::Budget { runs: HOSTILE, ..tenant::Budget::UNLIMITED };
            let hostile = Arc::new(Tenant::new("hostile", budget));
            let runaways: Vec<_> = (0..HOSTILE)
                .map(|_| {
                    let (evil, hostile, stop) = (Arc::clone(evil), Arc::clone(&hostile), stop.clone());
                    tokio::spawn(async move {
                        while !stop.is_cancelled() {
                            let mut request = request("attack", "spin");
                            // Ended and begun again, so that none is known for long as one that computes.
                            let budget = Budget { guest_cpu_ns: 20_000_000, ..Budget::default() };
                            request.meter = Arc::new(Meter::of(Arc::clone(&hostile), budget));
                            request.cancel = stop.child_token();
                            drop(evil.run(request).await);
                        }
                    })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(100)).await;
            others(script, what, OTHERS, &mut beside).await;
            stop.cancel();
            for runaway in runaways {
                runaway.await.expect("it ends");
            }
        }
        let label = format!("{what}, 64 runs at once, two tenants, one hostile");
        for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
            let (alone, beside) = (quantile(&mut alone, q), quantile(&mut beside, q));
            table.add(&format!("{label}: the other's {name}, alone"), alone, "ns");
            table.add(&format!("{label}: the other's {name}, beside"), beside, "ns");
            table.add(&format!("{label}: {name} slowed by"), beside / alone, "x");
        }
    }
}

/// Runs of a tenant of their own, so many at a time.
async fn others(script: &Arc<Script>, what: &'static str, at_once: usize, into: &mut Vec<f64>) {
    let tenant = Arc::new(Tenant::new("other", tenant::Budget::UNLIMITED));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..at_once {
        let (script, tenant) = (Arc::clone(script), Arc::clone(&tenant));
        tasks.spawn(async move {
            let mut took = Vec::new();
            for _ in 0..50 {
                let mut request = request("what", what);
                request.meter = Arc::new(Meter::of(Arc::clone(&tenant), Budget::default()));
                let began = Instant::now();
                let report = script.run(request).await;
                took.push(nanos(began.elapsed()));
                assert!(report.result.is_ok(), "{report:?}");
                tokio::time::sleep(Duration::from_millis(3 + n as u64 % 3)).await;
            }
            took
        });
    }
    while let Some(took) = tasks.join_next().await {
        into.extend(took.expect("it ends"));
    }
}

struct Runaway(CancellationToken, tokio::task::JoinHandle<()>);

impl Runaway {
    async fn start(evil: &Arc<Script>) -> Self {
        let mut request = request("attack", "spin");
        request.meter =
            Arc::new(Meter::new(Budget { guest_cpu_ns: u64::MAX, wall_ns: 60_000_000_000, ..Budget::default() }));
        let cancel = request.cancel.clone();
        let script = Arc::clone(evil);
        let task = tokio::spawn(async move { drop(script.run(request).await) });
        tokio::time::sleep(Duration::from_millis(50)).await;
        Self(cancel, task)
    }

    async fn stop(self) {
        self.0.cancel();
        self.1.await.expect("it ends");
    }
}

fn nanos(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q) as usize]
}

struct Table(Vec<(String, f64, &'static str)>);

impl Table {
    fn add(&mut self, what: &str, value: f64, unit: &'static str) {
        self.0.push((what.into(), value, unit));
    }

    fn print(&self) {
        for (what, value, unit) in &self.0 {
            match *unit {
                "ns" => println!("{what:72} {:>12.2} us", value / 1e3),
                unit => println!("{what:72} {value:>12.2} {unit}"),
            }
        }
        let rows: Vec<String> = self
            .0
            .iter()
            .map(|(what, value, unit)| {
                format!("  {{\"what\": \"{what}\", \"value\": {value:.3}, \"unit\": \"{unit}\"}}")
            })
            .collect();
        let Some(path) = std::env::var_os("PYXIS_BENCH_JSON") else { return };
        if let Err(e) = std::fs::write(&path, format!("[\n{}\n]\n", rows.join(",\n"))) {
            eprintln!("{}: {e}", Path::new(&path).display());
        }
    }
}
