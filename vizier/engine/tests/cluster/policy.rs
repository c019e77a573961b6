//! There is no way past policy.

use std::sync::Arc;
use std::time::Duration;

use host::backend::{JoinKind, Named, Op, TimeRange};
use host::error::Error;
use vizier_engine::policy::{Access, Policy, Scope};

use super::data::{self, T0};
use super::harness::{Cluster, Done, collect, everything, run};

/// Sees requests of one service only, without their paths and upids, and no connections.
#[derive(Debug)]
struct OneService;

impl Policy for OneService {
    fn access(&self, table: &str) -> Access {
        match table {
            "http_events" => Access::Granted(Scope {
                predicate: Some("local_addr = '10.1.0.7' and req_path is not null".into()),
                masked: vec!["req_path".into(), "resp_status".into()],
            }),
            "process_stats" => Access::Granted(Scope::default()),
            _ => Access::Denied,
        }
    }
}

async fn cluster() -> Cluster {
    Cluster::start((0..2).map(|agent| data::store(agent, 2000)).collect()).await
}

async fn sql(cluster: &Cluster, text: &str) -> Result<Done, Error> {
    run(cluster.query_with(Duration::from_secs(30), Arc::new(OneService)), text).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_naming_a_table_is_covered() {
    let cluster = cluster().await;
    let visible = cluster.run("select count(*) from http_events where local_addr = '10.1.0.7'").await.unwrap().lines();
    for text in [
        "select count(*) from http_events",
        "select count(*) from http_events h",
        "select count(*) from \"http_events\"",
        "select count(*) from (select * from http_events) x",
        "with a as (select * from http_events) select count(*) from a",
        "with a as (select * from http_events), b as (select * from a) select count(*) from b",
        "select count(*) from (select * from http_events union all select * from http_events where false)",
        "select (select count(*) from http_events)",
        "select max(n) from (values (0)) v(x) cross join (select count(*) n from http_events)",
        "select count(*) from http_events a where exists (select 1 from http_events b where b.time_ = a.time_ and b.upid = a.upid)",
        "select count(*) from http_events where upid in (select upid from http_events)",
        "select count(*) from http_events where time_ > (select min(time_) from http_events) or true",
        "select count(a.time_) from (select time_, upid, latency from http_events) a left join (values (1)) v(x) on true",
    ] {
        let done = sql(&cluster, text).await.unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!(done.lines(), visible, "{text}");
    }
    let done = sql(&cluster, "select distinct local_addr from http_events").await.unwrap();
    assert_eq!(done.lines(), ["10.1.0.7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masked_columns_read_as_null_everywhere() {
    let cluster = cluster().await;
    for text in [
        "select count(req_path) + count(resp_status) from http_events",
        "select count(*) from http_events where req_path like '/api%' or resp_status = 200",
        "select count(distinct path_pattern(req_path)) from http_events",
        "select count(*) from http_events a join http_events b on a.req_path = b.req_path",
        "select count(h.req_path) from http_events as h where h.resp_status is null",
    ] {
        assert_eq!(sql(&cluster, text).await.unwrap().lines(), ["0"], "{text}");
    }
    // The predicate itself sees what is masked.
    let done = sql(&cluster, "select count(*) > 0 from http_events").await.unwrap();
    assert_eq!(done.lines(), ["true"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denied_tables_do_not_exist() {
    let cluster = cluster().await;
    for text in [
        "select * from conn_stats",
        "select count(*) from http_events h join conn_stats c on h.upid = c.upid",
        "select * from http_events where upid in (select upid from conn_stats)",
        "with c as (select * from conn_stats) select 1",
        "select (select count(*) from conn_stats)",
        "select * from http_events union all select * from conn_stats",
        "select * from information_schema.columns",
        "explain select * from conn_stats",
    ] {
        let error = sql(&cluster, text).await.err().unwrap_or_else(|| panic!("{text} ran"));
        let Error::Invalid { message, hint, .. } = error else { panic!("{text}: {error:?}") };
        assert!(message.starts_with("no table"), "{text}: {message}");
        assert!(!hint.unwrap_or_default().contains("conn_stats"), "{text}");
    }
    let query = cluster.query_with(Duration::from_secs(30), Arc::new(OneService));
    let backend = query.backend();
    assert!(matches!(backend.table("conn_stats", None), Err(Error::NotFound { .. })));
    let tables: Vec<_> = backend.tables().into_iter().map(|t| t.name).collect();
    assert_eq!(tables, ["http_events", "process_stats"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_covered_too() {
    let cluster = cluster().await;
    let visible = cluster.run("select count(*) from http_events where local_addr = '10.1.0.7'").await.unwrap().lines();
    let query = cluster.query_with(Duration::from_secs(30), Arc::new(OneService));
    let backend = query.backend();
    let count = Op::Aggregate { keys: vec![], values: vec![Named { name: "n".into(), expr: "count(*)".into() }] };
    let table = |range: Option<TimeRange>| backend.table("http_events", range).unwrap();
    for frame in [
        table(None),
        table(Some(everything())),
        table(Some(TimeRange { start_ns: T0, end_ns: i64::MAX })),
        table(None).apply(&Op::Filter("latency > (select min(latency) from http_events) - 1".into())).unwrap(),
        table(None)
            .apply(&Op::Join {
                right: table(None),
                kind: JoinKind::Semi,
                on: vec![("time_".into(), "time_".into()), ("upid".into(), "upid".into())],
                suffix: "_r".into(),
            })
            .unwrap(),
    ] {
        let frame = frame.apply(&count).unwrap();
        assert_eq!(collect(query.clone(), frame).await.unwrap().lines(), visible);
    }
    // The predicate went all the way down: it is part of the scan on the agents.
    let plan = table(None).apply(&count).unwrap().explain().unwrap();
    assert!(plan.contains("filter=local_addr@") && plan.contains("10.1.0.7"), "{plan}");
}

#[derive(Debug)]
struct Broken;

impl Policy for Broken {
    fn access(&self, _: &str) -> Access {
        Access::Granted(Scope { predicate: Some("no_such_column = 1".into()), masked: vec![] })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_does_not_fit_denies() {
    let cluster = cluster().await;
    let query = cluster.query_with(Duration::from_secs(30), Arc::new(Broken));
    let error = run(query, "select * from http_events").await.err().unwrap();
    assert!(matches!(&error, Error::Denied(why) if why.contains("policy for table http_events is wrong")), "{error:?}");
}
