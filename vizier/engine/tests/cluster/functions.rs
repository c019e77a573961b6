//! Functions of plugins: inside fragments and on Vizier, the well behaved and the others.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use host::error::Error;
use host::meter::{Budget, Meter};
use tokio::net::TcpStream;
use vizier_engine::exchange::{Limits, serve};
use vizier_engine::policy::AllowAll;
use vizier_engine::{FunctionComponent, QueryContext};

use super::data::{T0, store};
use super::harness::{Cluster, Done, everything, info, run, runtime};

/// Builds both plugins, once for all tests.
fn component(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let out = BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let say = |line: &str| eprintln!("{line}");
        let toolchain = plugins_build::Toolchain::find(&root.join("target/guests"), &say).expect("a toolchain");
        let out = root.join("target/test-functions");
        let dirs = [root.join("plugins/text"), root.join("host/tests/guests/unruly")];
        let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
        plugins_build::build_guests(&dirs, &out, &toolchain, &say).expect("the plugins build");
        out
    });
    std::fs::read(out.join(format!("{name}.wasm"))).expect("the builder wrote it")
}

fn plugin(name: &str) -> FunctionComponent {
    let component = component(name);
    FunctionComponent { plugin: runtime().load_function(&component).unwrap(), component: component.into() }
}

async fn cluster(agents: u32) -> Cluster {
    let cluster = Cluster::start((0..agents).map(|agent| store(agent, 5_000)).collect()).await;
    assert_eq!(cluster.engine.set_functions(vec![plugin("text"), plugin("unruly")]), []);
    cluster
}

async fn lines(cluster: &Cluster, sql: &str) -> Vec<String> {
    let done = cluster.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    assert_eq!(done.missing(), Default::default(), "{sql}");
    done.lines()
}

async fn budgeted(cluster: &Cluster, sql: &str, budget: Budget) -> Result<Done, Error> {
    let query = cluster.engine.query(QueryContext {
        range: everything(),
        now_ns: T0,
        deadline: tokio::time::Instant::now() + Duration::from_secs(60),
        policy: Arc::new(AllowAll),
        meter: Arc::new(Meter::new(budget)),
    });
    run(query, sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_run_inside_the_fragment() {
    let cluster = cluster(4).await;
    let sql = "select shout(req_method) as m, count(*) from http_events where twice(resp_status) >= 800 group by 1 order by 1";
    let frame = cluster.query().backend().sql(sql, &[]).unwrap();
    let plan = frame.explain().unwrap();
    let (above, fragment) = plan.split_once("RemoteExec").expect("the plan is cut");
    assert!(fragment.contains("shout(") && fragment.contains("twice("), "{plan}");
    assert!(!above.contains("twice("), "{plan}");
    let native = sql.replace("shout(", "upper(").replace("twice(resp_status)", "2 * resp_status");
    assert_eq!(lines(&cluster, sql).await, lines(&cluster, &native).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_merged_over_four_nodes_are_those_of_one() {
    let four = cluster(4).await;
    let sql = "select req_method, most_common(req_path), counted(resp_status) from http_events group by 1 order by 1";
    let native = "select req_method, req_path, n, total from (select req_method, req_path, n, sum(n) over (partition by req_method) as total, \
                  row_number() over (partition by req_method order by n desc, req_path) as place \
                  from (select req_method, req_path, count(*) as n from http_events group by 1, 2)) where place = 1 order by 1";
    let expected: Vec<String> = lines(&four, native)
        .await
        .iter()
        .map(|line| {
            let cells: Vec<_> = line.split('|').collect();
            format!("{}|{}|{}", cells[0], cells[1], cells[3])
        })
        .collect();
    assert_eq!(lines(&four, sql).await, expected);
    let whole = "select most_common(req_method), counted(latency) from http_events";
    let native = "select (select req_method from http_events group by 1 order by count(*) desc, 1 limit 1), count(latency) from http_events";
    assert_eq!(lines(&four, whole).await, lines(&four, native).await);
    // Without rows, and as a window.
    assert_eq!(lines(&four, "select most_common(req_path) from http_events where resp_status < 0").await, ["NULL"]);
    let window = "select n, counted(n) over (order by n) from (values (1), (2), (3)) as t(n) order by n";
    assert_eq!(lines(&four, window).await, ["1|1", "2|2", "3|3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dictionary_gives_what_plain_text_gives() {
    let cluster = cluster(2).await;
    for function in ["shout", "redact_pii"] {
        let coded = format!("select {function}(local_addr) as a, count(*) from http_events group by 1 order by 1");
        let plain = coded.replace("(local_addr)", "(concat(local_addr, ''))");
        let rows = lines(&cluster, &coded).await;
        assert_eq!(rows, lines(&cluster, &plain).await, "{function}");
        assert!(!rows.is_empty());
    }
    let redacted = lines(&cluster, "select distinct redact_pii(local_addr) from http_events").await;
    assert_eq!(redacted, ["<REDACTED_IPV4>"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_are_as_declared() {
    let cluster = cluster(1).await;
    let values = "(values (1), (null), (3)) as t(n)";
    assert_eq!(lines(&cluster, &format!("select twice(n) from {values}")).await, ["2", "NULL", "6"]);
    assert_eq!(lines(&cluster, &format!("select told(n) from {values}")).await, ["1", "0", "1"]);
    assert_eq!(lines(&cluster, &format!("select counted(n) from {values}")).await, ["2"]);
    assert_eq!(lines(&cluster, "select twice(null), twice(4)").await, ["NULL|8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn table_functions_give_rows() {
    let cluster = cluster(1).await;
    let sql = "select count(*), min(bin_start), max(bin_end) from time_bins(timestamp '2024-01-01 00:00:30', \
               timestamp '2024-01-02 00:00:00', interval '1 minute')";
    assert_eq!(lines(&cluster, sql).await, ["1440|2024-01-01T00:00:00Z|2024-01-02T00:00:00Z"]);
    // An endless one ends with the limit.
    assert_eq!(lines(&cluster, "select n from endless() limit 2").await, ["0", "1"]);
    let error = cluster.run("select * from time_bin()").await.err().unwrap();
    assert!(format!("{error:?}").contains("time_bins"), "{error:?}");
    let error = cluster.run("select * from time_bins('soon', 'later', 'long')").await.err().unwrap();
    assert!(error.to_string().contains("time_bins takes time-ns for `start`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_breaks_its_promise_ends_its_query_by_name() {
    let cluster = cluster(2).await;
    let budget = Budget { guest_cpu_ns: 100_000_000, memory_bytes: 32 << 20, ..Budget::default() };
    for (function, says) in [
        ("boom", "trapped: "),
        ("short", "gave a column that has"),
        ("spin", "exhausted: cpu"),
        ("hog", "exhausted: memory"),
        ("absent", "the code has no function `absent`"),
    ] {
        // Inside the fragment, and on Vizier.
        for from in ["http_events", "(values (1)) as t(resp_status)"] {
            let began = Instant::now();
            let sql = format!("select {function}(resp_status) from {from}");
            let error =
                budgeted(&cluster, &sql, budget).await.err().unwrap_or_else(|| panic!("{sql} worked")).to_string();
            let named = error.contains(&format!("function `{function}` of plugin `unruly`"));
            assert!(named && error.contains(says), "{sql}: {error}");
            assert!(began.elapsed() < Duration::from_secs(10), "{sql}");
            // Nothing else is hurt.
            assert_eq!(lines(&cluster, "select twice(21)").await, ["42"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_uses_is_charged_to_the_run() {
    let cluster = cluster(2).await;
    let query = cluster.query();
    let sql = "select sum(length(redact_pii(concat(req_path, 'jo@mail.example.org')))) from http_events";
    let done = run(query, sql).await.unwrap();
    assert_eq!(done.rows(), 1);
    let meter = Arc::new(Meter::new(Budget::default()));
    let query = cluster.engine.query(QueryContext {
        range: everything(),
        now_ns: T0,
        deadline: tokio::time::Instant::now() + Duration::from_secs(60),
        policy: Arc::new(AllowAll),
        meter: meter.clone(),
    });
    run(query, sql).await.unwrap();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert!(load(&meter.guest_cpu_ns) > 0 && load(&meter.memory_peak_bytes) > 0, "{meter:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_refused() {
    let cluster = cluster(1).await;
    let refused = cluster.engine.set_functions(vec![plugin("text"), plugin("text")]);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].1.contains("`redact_pii` is one of plugin `text` already"), "{refused:?}");
    assert!(cluster.engine.functions().contains("redact_pii"));
    assert_eq!(cluster.engine.set_functions(vec![]), []);
    let error = cluster.run("select redact_pii('x')").await.err().unwrap();
    assert!(error.to_string().contains("no function `redact_pii`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_told_while_planning() {
    let cluster = cluster(1).await;
    for (sql, says) in [
        ("select twice('x')", "twice takes int64 for `n`"),
        ("select twice(1, 2)", "twice takes 1 arguments, not 2"),
        ("select twcie(1)", "no function `twcie`"),
    ] {
        let error = cluster.run(sql).await.err().unwrap();
        assert!(error.to_string().contains(says), "{sql}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_load_a_plugin_is_a_named_gap() {
    let mut cluster = cluster(2).await;
    // One without WebAssembly.
    let socket = TcpStream::connect(cluster.vizier).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let last = store(2, 5_000);
    tokio::spawn(serve(socket, last.clone(), || info(2), Limits::default(), Arc::default()));
    cluster.stores.push(last);
    cluster.connected(3).await;
    let done = cluster.run("select count(*) from http_events where twice(resp_status) > 0").await.unwrap();
    assert_eq!(done.lines(), ["10000"]);
    let missing = done.missing();
    assert_eq!(missing.keys().collect::<Vec<_>>(), ["agent-2"]);
    assert!(missing["agent-2"].contains("cannot load the plugin `unruly`"), "{missing:?}");
    let done = cluster.run("select count(*) from http_events").await.unwrap();
    assert_eq!((done.lines(), done.missing().len()), (vec!["15000".to_owned()], 0));
}
