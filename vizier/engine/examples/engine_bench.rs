//! What a query costs: frames against the same SQL, latency over 1, 4 and 16 agents, bytes from each agent.
//!
//! `cargo run -p vizier-engine --example engine_bench -- [rows per agent] [runs]`. Everything is in one process, over
//! loopback TCP. Figures are medians of interleaved runs; nothing is asserted.

#[path = "../tests/cluster/data.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod data;

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use host::backend::{Backend, Frame, Named, Op, SortKey, TimeRange};
use host::meter::Meter;
use tokio::net::{TcpListener, TcpStream};
use vizier_engine::exchange::{AgentState, Limits, serve};
use vizier_engine::policy::AllowAll;
use vizier_engine::{AgentId, AgentInfo, Engine, EngineConfig, Query, QueryContext, Registry};

const SERVICE_STATS: &str = "select local_addr as service, path_pattern(req_path) as path, count(*) as requests, \
    sum(case when resp_status >= 500 then 1 else 0 end) * 100.0 / count(*) as errors, quantile(latency, 0.5) as p50, \
    quantile(latency, 0.9) as p90, quantile(latency, 0.99) as p99, sum(resp_body_size) as bytes from http_events \
    where trace_role = 2 group by 1, 2 order by requests desc limit 100";

const QUERIES: [(&str, &str); 7] = [
    ("service_stats", SERVICE_STATS),
    ("count by service", "select local_addr, count(*) from http_events group by local_addr"),
    (
        "avg by service, filter",
        "select local_addr, count(*), avg(latency) from http_events where resp_status = 200 group by local_addr",
    ),
    (
        "slow requests",
        "select time_, upid_pid(upid), req_method, req_path, resp_status, latency from http_events order by latency desc limit 50",
    ),
    (
        "time bins",
        "select date_bin(interval '10 seconds', time_) t, local_addr, count(*) from http_events group by 1, 2",
    ),
    (
        "join by upid",
        "select c.remote_addr, count(*), sum(c.bytes_sent) from conn_stats c join (select upid, count(*) n from http_events group by upid) h on c.upid = h.upid group by 1",
    ),
    (
        "last rows",
        "select time_, local_addr, req_path, latency from http_events where time_ > to_timestamp_nanos(1700000000000000000) limit 100",
    ),
];

struct Cluster {
    engine: Engine,
}

impl Cluster {
    async fn start(agents: u32, rows: u64) -> Self {
        let registry = Registry::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for agent in 0..agents {
            let store = data::store(agent, rows);
            let info = AgentInfo {
                id: AgentId::new(format!("agent-{agent}")),
                asid: agent + 1,
                hostname: String::new(),
                version: String::new(),
                kernel: String::new(),
                capture: "replay".into(),
                events: 0,
                events_lost: 0,
                since_ns: None,
            };
            let socket = TcpStream::connect(address).await.unwrap();
            socket.set_nodelay(true).unwrap();
            tokio::spawn(serve(socket, store, move || info.clone(), Limits::default(), Arc::default()));
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            registry.adopt(socket, None).await.unwrap();
        }
        assert!(registry.agents().iter().all(|a| a.state == AgentState::Connected));
        Self { engine: Engine::new(registry, EngineConfig::default()).unwrap() }
    }

    fn query(&self) -> Arc<Query> {
        self.engine.query(QueryContext {
            range: TimeRange { start_ns: data::T0, end_ns: i64::MAX },
            now_ns: data::T0,
            deadline: tokio::time::Instant::now() + Duration::from_secs(60),
            policy: Arc::new(AllowAll),
            meter: Arc::new(Meter::default()),
        })
    }
}

fn service_stats(backend: &dyn Backend) -> Arc<dyn Frame> {
    let named = |name: &str, expr: &str| Named { name: name.into(), expr: expr.into() };
    let ops = [
        Op::Filter("trace_role = 2".into()),
        Op::Aggregate {
            keys: vec![named("service", "local_addr"), named("path", "path_pattern(req_path)")],
            values: vec![
                named("requests", "count(*)"),
                named("errors", "sum(case when resp_status >= 500 then 1 else 0 end) * 100.0 / count(*)"),
                named("p50", "quantile(latency, 0.5)"),
                named("p90", "quantile(latency, 0.9)"),
                named("p99", "quantile(latency, 0.99)"),
                named("bytes", "sum(resp_body_size)"),
            ],
        },
        Op::Sort(vec![SortKey { expr: "requests".into(), descending: true, nulls_first: false }]),
        Op::Limit { skip: 0, count: 100 },
    ];
    ops.iter().fold(backend.table("http_events", None).unwrap(), |frame, op| frame.apply(op).unwrap())
}

/// The same rows in plain Arrow under stock DataFusion, one thread each; runs take turns.
async fn against_stock(count: u64, runs: usize) {
    println!(
        "against stock DataFusion over plain Arrow in memory, 1 agent x {count} rows, one partition each, medians"
    );
    let store = data::store(0, count);
    let table = store.table("http_events").unwrap();
    let batches = table.scan(pem_tables::TimeRange::ALL, None).collect();
    let memory = MemTable::try_new(table.schema(), vec![batches]).unwrap();
    let stock = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    stock.register_table("http_events", Arc::new(memory)).unwrap();
    let cluster = Cluster::start(1, count).await;
    for (name, sql) in [
        ("count by service", "select local_addr, count(*) from http_events group by local_addr"),
        (
            "three by service, method",
            "select local_addr, req_method, count(*), sum(latency), max(latency) from http_events group by 1, 2",
        ),
        (
            "filter, count by path",
            "select req_path, count(*) from http_events where resp_status = 500 group by req_path",
        ),
        ("filter, count", "select count(*) from http_events where resp_status = 500 and local_addr = '10.1.0.7'"),
        ("top 20", "select time_, latency from http_events order by latency desc limit 20"),
    ] {
        let (mut ours, mut theirs) = (vec![], vec![]);
        for run in 0..runs + 2 {
            let t = Instant::now();
            let query = cluster.query();
            let frame = query.backend().sql(sql, &[]).unwrap();
            rows(&query, frame.as_ref()).await;
            let our = t.elapsed();
            let t = Instant::now();
            stock.sql(sql).await.unwrap().collect().await.unwrap();
            if run >= 2 {
                ours.push(our);
                theirs.push(t.elapsed());
            }
        }
        let (ours, theirs) = (median(&mut ours), median(&mut theirs));
        let rate = |time: Duration| count as f64 / time.as_secs_f64() / 1e6;
        println!(
            "  {name:<26} ours {ours:>10.2?} ({:>6.0} M rows/s)   stock {theirs:>10.2?} ({:>6.0} M rows/s)",
            rate(ours),
            rate(theirs)
        );
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn tail(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

async fn rows(query: &Arc<Query>, frame: &dyn Frame) -> usize {
    let batches: Vec<_> = query.execute(frame).try_collect().await.unwrap();
    batches.iter().map(|b| b.num_rows()).sum()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let per_agent = arguments.first().copied().unwrap_or(100_000);
    let runs = arguments.get(1).copied().unwrap_or(100) as usize;

    println!("frames against SQL, 1 agent x 1000 rows, {runs} runs, medians");
    let cluster = Cluster::start(1, 1000).await;
    let (mut frame_build, mut sql_build, mut frame_run, mut sql_run) = (vec![], vec![], vec![], vec![]);
    let (mut frame_plan, mut sql_plan) = (vec![], vec![]);
    for run in 0..runs + 20 {
        let query = cluster.query();
        let backend = query.backend();
        let t = Instant::now();
        let frame = service_stats(backend.as_ref());
        let built = t.elapsed();
        frame.explain().unwrap();
        let planned = t.elapsed();
        let t = Instant::now();
        let sql = backend.sql(SERVICE_STATS, &[]).unwrap();
        let sql_built = t.elapsed();
        sql.explain().unwrap();
        let sql_planned = t.elapsed();
        let t = Instant::now();
        let frame = service_stats(backend.as_ref());
        rows(&query, frame.as_ref()).await;
        let ran = t.elapsed();
        let t = Instant::now();
        let sql = backend.sql(SERVICE_STATS, &[]).unwrap();
        rows(&query, sql.as_ref()).await;
        let sql_ran = t.elapsed();
        if run >= 20 {
            frame_build.push(built);
            frame_plan.push(planned);
            sql_build.push(sql_built);
            sql_plan.push(sql_planned);
            frame_run.push(ran);
            sql_run.push(sql_ran);
        }
    }
    println!("  build    frames {:>9.1?}   SQL {:>9.1?}", median(&mut frame_build), median(&mut sql_build));
    println!("  + plan   frames {:>9.1?}   SQL {:>9.1?}", median(&mut frame_plan), median(&mut sql_plan));
    println!("  + run    frames {:>9.1?}   SQL {:>9.1?}", median(&mut frame_run), median(&mut sql_run));

    against_stock(per_agent * 10, runs.min(20)).await;

    for agents in [1, 4, 16] {
        let each = if agents == 16 { per_agent / 4 } else { per_agent };
        println!("{agents} agents x {each} rows");
        println!(
            "  {:<24} {:>10} {:>10} {:>8} {:>14} {:>14}",
            "query", "p50", "p99", "rows", "B/agent", "scanned/agent"
        );
        let cluster = Cluster::start(agents, each).await;
        for (name, sql) in QUERIES {
            let mut times = vec![];
            let (mut count, mut sent, mut scanned) = (0, 0, 0);
            for run in 0..runs + 5 {
                let query = cluster.query();
                let t = Instant::now();
                let frame = query.backend().sql(sql, &[]).unwrap();
                count = rows(&query, frame.as_ref()).await;
                if run >= 5 {
                    times.push(t.elapsed());
                }
                assert!(query.missing().is_empty(), "{:?}", query.missing());
                let statistics = query.statistics();
                sent = statistics.values().map(|s| s.bytes_sent).sum::<u64>() / u64::from(agents);
                scanned = statistics.values().map(|s| s.rows_scanned).sum::<u64>() / u64::from(agents);
            }
            let p50 = median(&mut times);
            println!("  {name:<24} {p50:>10.2?} {:>10.2?} {count:>8} {sent:>14} {scanned:>14}", tail(&times));
        }
    }
}
