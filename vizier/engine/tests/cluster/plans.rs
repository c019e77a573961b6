//! What runs where, and that bytes grow with groups, not with rows.

use super::data;
use super::harness::Cluster;

async fn explained(cluster: &Cluster, sql: &str) -> String {
    cluster.query().backend().sql(sql, &[]).unwrap().explain().unwrap()
}

/// The part of a plan that runs on Vizier, and the operators of its stages.
fn sides(plan: &str) -> (String, String) {
    let (mut vizier, mut agent, mut depth) = (vec![], vec![], None);
    for line in plan.lines().filter(|line| !line.starts_with("note:")) {
        let indent = line.len() - line.trim_start().len();
        if depth.is_some_and(|d| indent <= d) {
            depth = None;
        }
        let name = line.trim_start().split([':', ' ']).next().unwrap();
        match depth {
            Some(_) => agent.push(name),
            None if name == "on" => depth = Some(indent),
            None => vizier.push(name),
        }
    }
    (vizier.join(" "), agent.join(" "))
}

async fn four() -> Cluster {
    Cluster::start((0..4).map(|agent| data::store(agent, 2000)).collect()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_made_on_agents() {
    let cluster = four().await;
    let plan = explained(
        &cluster,
        "select local_addr, count(*) c from http_events where resp_status = 500 group by local_addr",
    )
    .await;
    assert_eq!(
        plan,
        "ProjectionExec: expr=[local_addr@0 as local_addr, count(Int64(1))@1 as c]\n  \
         AggregateExec: mode=FinalPartitioned, gby=[local_addr@0 as local_addr], aggr=[count(Int64(1))]\n    \
         RepartitionExec: partitioning=Hash([local_addr@0], 2), input_partitions=4\n      \
         RemoteExec: agents=4\n        \
         on each agent:\n          \
         AggregateExec: mode=Partial, gby=[local_addr@0 as local_addr], aggr=[count(Int64(1))]\n            \
         PemScanExec: table=http_events, columns=[local_addr], filter=resp_status@1 = 500"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_local_to_a_node_runs_there() {
    let cluster = four().await;
    for (sql, on_vizier, on_agents) in [
        (
            "select time_, latency from http_events order by latency desc limit 3",
            "SortPreservingMergeExec RemoteExec",
            "SortExec PemScanExec",
        ),
        (
            "select upid, count(*) from http_events group by upid",
            "RemoteExec",
            "ProjectionExec AggregateExec AggregateExec PemScanExec",
        ),
        (
            "select h.upid, c.remote_addr from http_events h join conn_stats c on h.upid = c.upid",
            "RemoteExec",
            "ProjectionExec HashJoinExec PemScanExec PemScanExec",
        ),
        (
            "select v.t, count(*) from http_events h join (values ('10.1.0.1', 'x')) v(s, t) on h.local_addr = v.s group by v.t",
            "ProjectionExec AggregateExec RepartitionExec RemoteExec",
            "AggregateExec HashJoinExec ProjectionExec DataSourceExec PemScanExec",
        ),
        (
            "select upid, row_number() over (partition by upid order by time_) n from http_events",
            "RemoteExec",
            "ProjectionExec BoundedWindowAggExec SortExec PemScanExec",
        ),
    ] {
        let plan = explained(&cluster, sql).await;
        assert_eq!(sides(&plan), (on_vizier.to_owned(), on_agents.to_owned()), "{sql}\n{plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_only_called_upid_is_not_trusted() {
    let cluster = four().await;
    // `upid` here is the same constant on every node: a join by it on each node alone would lose pairs.
    let sql = "select count(*) from (select arrow_cast(arrow_cast('0123456789abcdef', 'Binary'), 'FixedSizeBinary(16)') upid, time_ from http_events where latency < 3000000) a \
               join (select arrow_cast(arrow_cast('0123456789abcdef', 'Binary'), 'FixedSizeBinary(16)') upid, time_ t from conn_stats where bytes_sent < 100000) b on a.upid = b.upid and a.time_ > b.t";
    let (on_vizier, _) = sides(&explained(&cluster, sql).await);
    assert!(on_vizier.contains("Join"), "{on_vizier}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_agent_runs_everything() {
    let cluster = Cluster::start(vec![data::store(0, 2000)]).await;
    for sql in [
        "select local_addr, count(*) c from http_events group by local_addr order by c desc limit 3",
        "select a.local_addr, sum(a.latency) over (order by a.time_) from http_events a join conn_stats b on a.resp_status = b.remote_port",
    ] {
        let plan = explained(&cluster, sql).await;
        assert!(plan.starts_with("RemoteExec: agents=1\n  on each agent:\n"), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scalar_subqueries_are_shown_and_only_values_travel() {
    let cluster = four().await;
    let sql = "select count(*) from http_events where latency > (select avg(latency) from http_events)";
    let plan = explained(&cluster, sql).await;
    assert!(plan.starts_with("subquery_1, evaluated first:\n"), "{plan}");
    assert!(plan.contains("filter=CAST(latency") && plan.contains("> subquery_1()"), "{plan}");
    let done = cluster.run(sql).await.unwrap();
    assert!(done.bytes_sent() < 8_000, "{} bytes", done.bytes_sent());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_that_ship_rows_are_pointed_out() {
    let cluster = four().await;
    let plan = explained(&cluster, "select local_addr, median(latency) from http_events group by 1").await;
    let note = "note: median keeps every value, and each agent sends them all: use quantile(x, 0.5)";
    assert!(plan.ends_with(note), "{plan}");
    let plan = explained(&cluster, "select local_addr, quantile(latency, 0.5) from http_events group by 1").await;
    assert!(!plan.contains("note:"), "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_quantiles_are_one_sketch() {
    let cluster = four().await;
    let sql = "select local_addr, quantile(latency, 0.5), quantile(latency, 0.9) q, quantile(latency, 0.99) from http_events group by 1";
    let plan = explained(&cluster, sql).await;
    assert!(plan.contains("aggr=[sketch(http_events.latency)]"), "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_grow_with_groups_not_rows() {
    let small = Cluster::start((0..4).map(|agent| data::store(agent, 2000)).collect()).await;
    let large = Cluster::start((0..4).map(|agent| data::store(agent, 40_000)).collect()).await;
    for sql in [
        "select local_addr, count(*), avg(latency) from http_events group by local_addr",
        "select count(distinct resp_status), quantile(latency, 0.9) from http_events",
        "select h.local_addr, count(*) from http_events h join conn_stats c on h.upid = c.upid group by h.local_addr",
        "select time_, latency from http_events order by latency limit 20",
        "select count(*) from http_events where latency > (select avg(latency) from http_events)",
    ] {
        let (few, many) = (small.run(sql).await.unwrap(), large.run(sql).await.unwrap());
        let scanned: u64 = many.query.statistics().values().map(|s| s.rows_scanned).sum();
        assert!(scanned >= 160_000, "{scanned} rows scanned for {sql}");
        // Twenty times the rows: sketches fill a few more buckets, nothing else grows.
        assert!(
            many.bytes_sent() < few.bytes_sent() * 2,
            "{} bytes for 2,000 rows, {} for 40,000: {sql}",
            few.bytes_sent(),
            many.bytes_sent()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_stops_scans() {
    let cluster = Cluster::start((0..2).map(|agent| data::store(agent, 200_000)).collect()).await;
    let done = cluster.run("select time_, latency from http_events limit 10").await.unwrap();
    assert_eq!(done.rows(), 10);
    let scanned: u64 = done.query.statistics().values().map(|s| s.rows_scanned).sum();
    assert!(scanned <= 2 * 16_384, "{scanned} rows scanned");
}
