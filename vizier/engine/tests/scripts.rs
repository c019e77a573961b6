//! The bundled scripts over the engine: each gives what its columns promise, from two nodes.

#[path = "cluster/data.rs"]
#[allow(dead_code, reason = "the engine's own tests use more of it")]
mod data;
#[path = "cluster/harness.rs"]
#[allow(dead_code, reason = "the engine's own tests use more of it")]
mod harness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use host::backend::{Frame, Level, Sink};
use host::error::Error;
use host::manifest::View;
use host::{Config, RunRequest, Runtime};
use pem_tables::{Store, StoreConfig, Value, catalog};

use data::{STEP_NS, T0};
use harness::{Cluster, collect};

const SCRIPTS: &[&str] =
    &["agent_status", "connections", "http_requests", "processes", "service_stats", "slow_requests", "top_talkers"];

/// One hundred seconds, so that rates are easily read.
const END: i64 = T0 + 100_000_000_000;

fn script(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let out = BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let say = |line: &str| eprintln!("{line}");
        let toolchain = plugins_build::Toolchain::find(&root.join("target/guests"), &say).expect("a toolchain");
        let folders: Vec<PathBuf> = SCRIPTS.iter().map(|name| root.join("plugins").join(name)).collect();
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        let out = root.join("target/test-guests");
        plugins_build::build_guests(&folders, &out, &toolchain, &say).expect("the scripts build");
        out
    });
    std::fs::read(out.join(format!("{name}.wasm"))).expect("the builder wrote it")
}

/// A process of a node.
fn upid(node: u32, process: u32) -> u128 {
    u128::from(node + 1) << 96 | u128::from(1000 + process) << 64 | 7
}

/// Three processes on a node: a systemd service, an interpreter's script, and one in a container.
fn node(node: u32) -> Arc<Store> {
    let store = Store::new(StoreConfig::default(), catalog::ALL);
    let at = |seconds: i64| T0 + seconds * 1_000_000_000;
    let mut processes = store.table("processes").unwrap().appender();
    let known = [
        ("nginx", "/usr/sbin/nginx", "nginx: worker process", "", "nginx.service"),
        ("python3", "/usr/bin/python3.11", "python3 -u /srv/app/cart.py --port 80", "", "session-3.scope"),
        ("redis-server", "/usr/bin/redis-server", "redis-server *:6379", "3f2a41c07b9e5566", ""),
    ];
    for (i, (comm, exe, cmdline, container, unit)) in known.into_iter().enumerate() {
        processes
            .append(&[
                // Long before the range: a process is written down when it starts.
                Value::Time(T0 - 3_600_000_000_000),
                Value::U128(upid(node, i as u32)),
                Value::Int(1000 + i as i64),
                Value::Int(1),
                Value::Int(0),
                Value::Str(comm),
                Value::Str(exe),
                Value::Str(cmdline),
                Value::Str(""),
                Value::Str(container),
                Value::Str(unit),
                Value::Time(T0 - 3_600_000_000_000),
                Value::Bool(false),
                Value::Null,
            ])
            .unwrap();
    }
    processes.publish(T0);
    let mut http = store.table("http_events").unwrap().appender();
    for i in 0..100i64 {
        // The nginx of each node serves, its python asks nginx: the same request from both ends.
        for (process, role) in [(0, 2), (1, 1)] {
            http.append(&[
                Value::Time(T0 + i * STEP_NS * 100),
                Value::U128(upid(node, process)),
                Value::Str("10.9.9.9"),
                Value::Int(40_000),
                Value::Str("10.1.0.1"),
                Value::Int(80),
                Value::Int(role),
                Value::Bool(false),
                Value::Int(1),
                Value::Int(1),
                Value::Int(1),
                Value::Str("{}"),
                Value::Str(if i % 2 == 0 { "GET" } else { "POST" }),
                Value::Str(&format!("/orders/{i}?page=2")),
                Value::Str(""),
                Value::Int(100),
                Value::Str("{}"),
                Value::Int(if i % 10 == 0 { 503 } else { 200 }),
                Value::Str("OK"),
                Value::Str(""),
                Value::Int(1000),
                Value::Int((i + 1) * 2_000_000),
            ])
            .unwrap();
        }
    }
    http.publish(T0);
    let mut conns = store.table("conn_stats").unwrap().appender();
    for sample in 0..2i64 {
        conns
            .append(&[
                Value::Time(at(10 + sample * 50)),
                Value::U128(upid(node, 2)),
                Value::Str("10.0.0.7"),
                Value::Int(0),
                Value::Int(2),
                Value::Int(2),
                Value::Int(7),
                Value::Bool(false),
                Value::Int(3 + sample),
                Value::Int(1),
                Value::Int(2 + sample),
                Value::Int(1_000 + sample * 5_000),
                Value::Int(500 + sample * 100),
            ])
            .unwrap();
    }
    conns.publish(T0);
    let mut stats = store.table("process_stats").unwrap().appender();
    for sample in 0..2i64 {
        stats
            .append(&[
                Value::Time(at(10 + sample * 50)),
                Value::U128(upid(node, 2)),
                Value::Int(0),
                Value::Int(0),
                Value::Int(1_000_000_000 + sample * 20_000_000_000),
                Value::Int(sample * 5_000_000_000),
                Value::Int(4),
                Value::Int(1 << 30),
                Value::Int((64 + sample) << 20),
                Value::Int(0),
                Value::Int(0),
                Value::Int(sample * 50_000),
                Value::Int(0),
            ])
            .unwrap();
    }
    stats.publish(T0);
    let mut agents = store.table("agent_stats").unwrap().appender();
    // When, processor time in ms, MiB, events, lost, rows. No two agents have the same samples; the second's began anew between
    // the last two.
    let samples: &[[i64; 6]] = match node {
        0 => &[[10, 0, 30, 0, 0, 0], [60, 500, 31, 100_000, 3, 50_000]],
        _ => &[[10, 40_000, 50, 1_000_000, 7, 500], [35, 41_000, 55, 1_010_000, 9, 700], [60, 250, 20, 5_000, 1, 300]],
    };
    for [second, cpu_ms, mib, events, lost, rows] in samples {
        agents
            .append(&[
                Value::Time(at(*second)),
                Value::Str(&format!("node-{node}")),
                Value::Str("pem"),
                Value::Int(cpu_ms * 1_000_000),
                Value::Int(mib << 20),
                Value::Int(0),
                Value::Int(*events),
                Value::Int(*lost),
                Value::Int(*rows),
            ])
            .unwrap();
    }
    agents.publish(T0);
    let mut loss = store.table("data_loss").unwrap().appender();
    loss.append(&[
        Value::Time(at(20)),
        Value::Str("node"),
        Value::Str("ring"),
        Value::Str("http_events"),
        Value::Str("full"),
        Value::Int(3),
        Value::Int(300),
        Value::Int(1_000_000_000),
    ])
    .unwrap();
    loss.publish(T0);
    let mut probes = store.table("probe_status").unwrap().appender();
    for (probe, status, error) in [("sys_exit", 0, ""), ("kprobe:tcp_sendmsg", 5, "not configured in this kernel")] {
        probes
            .append(&[
                Value::Time(T0 - 60_000_000_000),
                Value::U128(upid(node, 99)),
                Value::Str("socket_tracer"),
                Value::Str(probe),
                Value::Int(status),
                Value::Str(error),
                Value::Str("{}"),
            ])
            .unwrap();
    }
    probes.publish(T0);
    store
}

#[derive(Default)]
struct Output {
    displayed: Mutex<Vec<(String, Arc<dyn Frame>)>>,
}

impl Sink for Output {
    fn display(&self, name: &str, frame: Arc<dyn Frame>) -> Result<(), Error> {
        self.displayed.lock().unwrap().push((name.into(), frame));
        Ok(())
    }
    fn emit(&self, _: &str, _: RecordBatch) -> Result<(), Error> {
        unreachable!("no bundled script computes rows of its own")
    }
    fn view(&self, _: &str) -> Result<(), Error> {
        unreachable!("bundled scripts declare their views in the manifest")
    }
    fn log(&self, _: Level, message: &str) {
        panic!("bundled scripts have nothing to say: {message}");
    }
}

/// Runs a script over two nodes; output tables as printed.
async fn run(name: &str, args: &[(&str, &str)]) -> BTreeMap<String, String> {
    let cluster = Cluster::start(vec![node(0), node(1)]).await;
    let runtime = Runtime::new(Config::default()).unwrap();
    let script = runtime.load(&script(name)).unwrap();
    let query = cluster.engine.query(vizier_engine::QueryContext {
        range: host::backend::TimeRange { start_ns: T0, end_ns: END },
        now_ns: END,
        deadline: tokio::time::Instant::now() + std::time::Duration::from_secs(60),
        policy: Arc::new(vizier_engine::policy::AllowAll),
        meter: Arc::new(host::meter::Meter::new(host::meter::Budget::default())),
    });
    let output = Arc::new(Output::default());
    let mut request = RunRequest::new(query.backend(), output.clone());
    request.args = args.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    request.now_ns = END;
    request.range = host::backend::TimeRange { start_ns: T0, end_ns: END };
    let report = script.run(request).await;
    assert!(report.result.is_ok(), "{name} {args:?}: {report:?}");
    let displayed = std::mem::take(&mut *output.displayed.lock().unwrap());
    let mut tables = BTreeMap::new();
    for (table, frame) in displayed {
        let view = script.manifest().views.iter().find(|v| v.table == table).expect("every output has a view");
        shows(view, &*frame);
        let done = collect(Arc::clone(&query), frame).await.unwrap();
        assert!(done.missing().is_empty());
        tables.insert(table, pretty_format_batches(&done.batches).unwrap().to_string());
    }
    let declared: Vec<&str> = script.manifest().outputs.iter().map(|o| o.name.as_str()).collect();
    assert!(declared.iter().all(|name| tables.contains_key(*name)), "{declared:?}");
    tables
}

/// A view names columns there are. A column may be left out by an argument (`by`), so only those shown by default count.
fn shows(view: &View, frame: &dyn Frame) {
    let schema = frame.schema();
    let missing: Vec<&str> =
        view.columns.iter().map(|c| c.name.as_str()).filter(|name| schema.index_of(name).is_err()).collect();
    assert!(missing.iter().all(|name| ["path", "side", "remote_addr"].contains(name)), "{}: {missing:?}", view.table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_stats_count_each_request_once_by_service_and_pattern() {
    let tables = run("service_stats", &[]).await;
    let text = &tables["service_stats"];
    // 100 requests on each of two nodes in 100 s, every tenth failed; latencies 2, 4, ... 200 ms.
    let row = text.lines().find(|line| line.contains("nginx")).expect(text);
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!(&cells[1..6], ["nginx", "/orders/*", "200", "2.0", "0.1"], "{text}");
    let p50: f64 = cells[6].parse().unwrap();
    assert!((0.98e8..1.03e8).contains(&p50), "{text}");
    assert_eq!(&cells[9..11], ["200.0", "2000.0"], "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
    let clients = run("service_stats", &[("side", "client"), ("by", "service"), ("service", "art")]).await;
    assert!(clients["service_stats"].contains("cart.py"), "{}", clients["service_stats"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_filtered_by_what_is_asked() {
    let all = run("http_requests", &[("limit", "30")]).await;
    assert_eq!(all["http_requests"].lines().count(), 34, "{}", all["http_requests"]);
    let few =
        run("http_requests", &[("path", "orders/5"), ("method", "get"), ("side", "both"), ("min-status", "500")]).await;
    let text = &few["http_requests"];
    // /orders/50 from two ends on two nodes.
    assert_eq!(text.matches("/orders/50").count(), 4, "{text}");
    assert_eq!(text.lines().count(), 8, "{text}");
    assert!(text.contains("client") && text.contains("server"), "{text}");
    let slow = run("slow_requests", &[("min-latency", "190ms"), ("limit", "3")]).await;
    let text = &slow["slow_requests"];
    assert!(text.lines().nth(3).expect(text).contains("200000000"), "{text}");
    assert_eq!(text.lines().count(), 7, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_talkers_name_service_and_remote() {
    let tables = run("connections", &[("open", "true")]).await;
    let text = &tables["connections"];
    let row = text.lines().find(|line| line.contains("redis-server@3f2a41c07b9e")).expect(text);
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!(&cells[2..12], ["1002", "server", "redis", "10.0.0.7", "0", "3", "4", "1", "6000", "600"], "{text}");
    let tables = run("top_talkers", &[]).await;
    let text = &tables["top_talkers"];
    let row = text.lines().find(|line| line.contains("redis-server@")).expect(text);
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    // 5,100 bytes on each of two nodes, in 100 s.
    assert_eq!(&cells[2..8], ["server", "10.0.0.7", "10200", "100.0", "2.0", "2"], "{text}");
    run("top_talkers", &[("by", "service")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_show_what_they_used_between_samples() {
    for sort in ["cpu", "memory", "disk"] {
        let tables = run("processes", &[("sort", sort)]).await;
        let text = &tables["processes"];
        let row = text.lines().find(|line| line.contains("redis-server@")).expect(text);
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        // 25 s of processor in 50 s, 65 MiB, 4 threads, 1,000 bytes/s read.
        assert_eq!(&cells[2..8], ["1002", "0.5", "68157440", "4", "1000.0", "0.0"], "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_status_shows_cost_loss_and_broken_probes() {
    let tables = run("agent_status", &[]).await;
    let cost: Vec<Vec<&str>> =
        tables["cost"].lines().skip(3).map(|line| line.split('|').map(str::trim).collect()).collect();
    let text = &tables["cost"];
    assert_eq!(&cost[0][1..9], ["node-0", "pem", "0.01", "32505856", "0", "2000.0", "3", "1000.0"], "{text}");
    // 1 s and 0.25 s of processor, 10,000 and 5,000 events, 2 and 1 lost, 200 and 300 rows, in 50 s.
    assert_eq!(&cost[1][1..9], ["node-1", "pem", "0.025", "20971520", "0", "300.0", "3", "10.0"], "{text}");
    let loss: Vec<&str> = tables["loss"].lines().nth(3).unwrap().split('|').map(str::trim).collect();
    assert_eq!(&loss[1..7], ["node", "http_events", "ring", "full", "6", "600"]);
    assert!(
        tables["probes"].contains("not configured") && !tables["probes"].contains("sys_exit"),
        "{}",
        tables["probes"]
    );
    assert!(run("agent_status", &[("all-probes", "true")]).await["probes"].contains("sys_exit"));
}
