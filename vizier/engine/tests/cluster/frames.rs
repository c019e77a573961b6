//! Frames give what the same SQL gives.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use host::backend::{Backend, Frame, JoinKind, Named, Op, SortKey, TimeRange};

use super::data::{self, STEP_NS, T0};
use super::harness::{Cluster, Done, collect, everything};

fn named(name: &str, expr: &str) -> Named {
    Named { name: name.into(), expr: expr.into() }
}

fn columns(frame: &dyn Frame) -> Vec<String> {
    frame.schema().fields().iter().map(|f| f.name().clone()).collect()
}

async fn same(cluster: &Cluster, sql: &str, make: impl Fn(&dyn Backend) -> Arc<dyn Frame>) -> Done {
    let query = cluster.query();
    let done = collect(query.clone(), make(query.backend().as_ref())).await.unwrap();
    let mut got = done.lines();
    let mut want = cluster.run(sql).await.unwrap().lines();
    got.sort();
    want.sort();
    assert_eq!(got, want, "{sql}");
    assert!(!got.is_empty());
    done
}

fn then(frame: Arc<dyn Frame>, ops: impl IntoIterator<Item = Op>) -> Arc<dyn Frame> {
    ops.into_iter().fold(frame, |frame, op| frame.apply(&op).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations() {
    let cluster = Cluster::start((0..3).map(|agent| data::store(agent, 2000)).collect()).await;
    same(
        &cluster,
        "select local_addr as service, path_pattern(req_path) as path, count(*) as n, \
         sum(case when resp_status >= 500 then 1 else 0 end) * 100.0 / count(*) as errors, quantile(latency, 0.99) / 1e6 as p99 \
         from http_events where trace_role = 2 group by 1, 2 having count(*) > 10 order by n desc, service limit 5",
        |backend| {
            then(
                backend.table("http_events", None).unwrap(),
                [
                    Op::Filter("trace_role = 2".into()),
                    Op::Aggregate {
                        keys: vec![named("service", "local_addr"), named("path", "path_pattern(req_path)")],
                        values: vec![
                            named("n", "count(*)"),
                            named("errors", "sum(case when resp_status >= 500 then 1 else 0 end) * 100.0 / count(*)"),
                            named("p99", "quantile(latency, 0.99) / 1e6"),
                        ],
                    },
                    Op::Filter("n > 10".into()),
                    Op::Sort(vec![
                        SortKey { expr: "n".into(), descending: true, nulls_first: false },
                        SortKey { expr: "service".into(), descending: false, nulls_first: false },
                    ]),
                    Op::Limit { skip: 0, count: 5 },
                ],
            )
        },
    )
    .await;
    same(&cluster, "select distinct resp_status + 1 as s from http_events", |backend| {
        then(
            backend.table("http_events", None).unwrap(),
            [Op::Select(vec![named("s", "resp_status + 1")]), Op::Distinct],
        )
    })
    .await;
    same(
        &cluster,
        "select a.upid, a.n, b.n as n_conn from (select upid, count(*) n from http_events group by upid) a \
         left join (select upid, count(*) n from conn_stats group by upid) b on a.upid = b.upid",
        |backend| {
            let count = |table: &str| {
                let keys = vec![named("upid", "upid")];
                let aggregate = Op::Aggregate { keys, values: vec![named("n", "count(*)")] };
                then(backend.table(table, None).unwrap(), [aggregate])
            };
            let on = vec![("upid".into(), "upid".into())];
            let join = Op::Join { right: count("conn_stats"), kind: JoinKind::Left, on, suffix: "_conn".into() };
            then(count("http_events"), [join, Op::Drop(vec!["upid_conn".into()])])
        },
    )
    .await;
    same(
        &cluster,
        "select upid, latency, row_number() over (partition by upid order by latency desc, time_) r, time_ from http_events where latency > 98000000",
        |backend| {
            then(
                backend.table("http_events", None).unwrap(),
                [
                    Op::Filter("latency > 98000000".into()),
                    Op::Select(vec![named("upid", "upid"), named("latency", "latency"), named("time_", "time_")]),
                    Op::Window(vec![named("r", "row_number() over (partition by upid order by latency desc, time_)")]),
                    Op::Select(vec![named("upid", "upid"), named("latency", "latency"), named("r", "r"), named("t", "time_")]),
                ],
            )
        },
    )
    .await;
    same(&cluster, "select upid from http_events union all select upid from conn_stats", |backend| {
        let upids = |table: &str| then(backend.table(table, None).unwrap(), [Op::Select(vec![named("upid", "upid")])]);
        then(upids("http_events"), [Op::Union(upids("conn_stats"))])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_keep_their_places_and_their_meaning() {
    let cluster = Cluster::start(vec![data::store(0, 100)]).await;
    let backend = cluster.query().backend();
    let table = backend.table("http_events", None).unwrap();
    let before = columns(table.as_ref());
    let frame = then(
        table,
        [Op::WithColumns(vec![named("ms", "latency / 1000000"), named("req_path", "path_pattern(req_path)")])],
    );
    let mut expected = before.clone();
    expected.push("ms".into());
    assert_eq!(columns(frame.as_ref()), expected);
    let schema = frame.schema();
    let latency = schema.field_with_name("latency").unwrap();
    assert_eq!(latency.metadata()["pyxis.unit"], backend.tables()[0].schema.field_with_name("latency").map_or_else(
        |_| backend.table("http_events", None).unwrap().schema().field_with_name("latency").unwrap().metadata()["pyxis.unit"].clone(),
        |f| f.metadata()["pyxis.unit"].clone(),
    ));
    assert_eq!(
        *schema.field_with_name("req_path").unwrap().data_type(),
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
    );
    assert_eq!(
        *schema.field_with_name("time_").unwrap().data_type(),
        DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_have_the_types_of_the_contract() {
    let cluster = Cluster::start((0..2).map(|agent| data::store(agent, 100)).collect()).await;
    let sql = "select row_number() over (order by local_addr) a, cast(1.5 as decimal(5, 2)) b, substr(local_addr, 1, 2) c, \
               cast(time_ as date) d, count(*) e, arrow_cast(1, 'UInt8') f, null g from http_events group by local_addr, time_ limit 3";
    let done = cluster.run(sql).await.unwrap();
    let types: Vec<_> = done.batches[0].schema().fields().iter().map(|f| f.data_type().to_string()).collect();
    assert_eq!(types, ["Int64", "Float64", "Utf8", "Timestamp(ns, \"UTC\")", "Int64", "Int64", "Utf8"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges() {
    let cluster = Cluster::start((0..2).map(|agent| data::store(agent, 1000)).collect()).await;
    let query = cluster.engine.query(vizier_engine::QueryContext {
        range: TimeRange { start_ns: T0 + 100 * STEP_NS, end_ns: T0 + 200 * STEP_NS },
        ..cluster_context()
    });
    let backend = query.backend();
    let count = |frame: Arc<dyn Frame>| {
        let frame = then(frame, [Op::Aggregate { keys: vec![], values: vec![named("n", "count(*)")] }]);
        let query = query.clone();
        async move { collect(query, frame).await.unwrap().batches[0].column(0).as_primitive::<Int64Type>().value(0) }
    };
    // Rows of agent 1 are one nanosecond late: the same count, since the end is as far.
    assert_eq!(count(backend.table("http_events", None).unwrap()).await, 200);
    assert_eq!(count(backend.sql("select * from http_events", &[]).unwrap()).await, 200);
    let sql = "select * from http_events where time_ < to_timestamp_nanos(1700000000150000000)";
    assert_eq!(count(backend.sql(sql, &[]).unwrap()).await, 100);
    // A condition narrows, it does not widen.
    let sql = "select * from http_events where time_ >= to_timestamp_nanos(1700000000000000000)";
    assert_eq!(count(backend.sql(sql, &[]).unwrap()).await, 200);
    assert_eq!(count(backend.table("http_events", Some(everything())).unwrap()).await, 2000);
    // `now()` is the query's.
    assert_eq!(
        count(
            backend
                .sql("select * from http_events where now() = to_timestamp_nanos(1700000000000000000)", &[])
                .unwrap()
        )
        .await,
        200
    );
}

fn cluster_context() -> vizier_engine::QueryContext {
    vizier_engine::QueryContext {
        range: everything(),
        now_ns: T0,
        deadline: tokio::time::Instant::now() + std::time::Duration::from_secs(30),
        policy: Arc::new(vizier_engine::policy::AllowAll),
        meter: Arc::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_the_script_join_on_agents() {
    let cluster = Cluster::start((0..3).map(|agent| data::store(agent, 1000)).collect()).await;
    let query = cluster.query();
    let backend = query.backend();
    let services: ArrayRef = Arc::new(StringArray::from(vec!["10.1.0.1", "10.1.0.2"]));
    let owners: ArrayRef = Arc::new(StringArray::from(vec!["ada", "bob"]));
    let weights: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let batch = RecordBatch::try_from_iter([("service", services), ("owner", owners), ("weight", weights)]).unwrap();
    let inline = backend.inline(batch).unwrap();
    let frame = then(
        backend.table("http_events", None).unwrap(),
        [
            Op::Join {
                right: inline,
                kind: JoinKind::Inner,
                on: vec![("local_addr".into(), "service".into())],
                suffix: "_r".into(),
            },
            Op::Aggregate { keys: vec![named("owner", "owner")], values: vec![named("n", "sum(weight)")] },
        ],
    );
    let plan = frame.explain().unwrap();
    let agent = plan.split_once("on each agent:").unwrap().1;
    assert!(agent.contains("HashJoinExec") && agent.contains("DataSourceExec"), "{plan}");
    let done = collect(query, frame).await.unwrap();
    let mut got = done.lines();
    got.sort();
    let mut want = cluster
        .run("select case local_addr when '10.1.0.1' then 'ada' else 'bob' end, sum(case local_addr when '10.1.0.1' then 1 else 2 end) from http_events where local_addr in ('10.1.0.1', '10.1.0.2') group by 1")
        .await
        .unwrap()
        .lines();
    want.sort();
    assert_eq!(got, want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_is_a_result_too() {
    let cluster = Cluster::start((0..2).map(|agent| data::store(agent, 100)).collect()).await;
    let done = cluster.run("explain select count(*) from http_events").await.unwrap();
    let plan = done.lines().join("\n");
    assert!(plan.contains("RemoteExec: agents=2") && plan.contains("on each agent:"), "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_and_expired_rows_are_told() {
    use pem_tables::{Store, StoreConfig, Value, catalog};
    let store = Store::new(StoreConfig { budget_bytes: 1 << 20, ..StoreConfig::default() }, catalog::ALL);
    data::fill_http(&store, 0, 200_000);
    let mut losses = store.table("data_loss").unwrap().appender();
    for i in 0..3 {
        losses
            .append(&[
                Value::Time(T0 + i * STEP_NS),
                Value::Str("agent-0"),
                Value::Str("ring"),
                Value::Str(if i == 2 { "conn_stats" } else { "http_events" }),
                Value::Str("full"),
                Value::Int(10),
                Value::Int(100),
                Value::Int(0),
            ])
            .unwrap();
    }
    losses.publish(T0);
    let cluster = Cluster::start(vec![store]).await;
    let read = async |range: TimeRange| {
        let query = cluster.query_over(range);
        collect(query.clone(), query.backend().table("http_events", None).unwrap()).await.unwrap();
        query.completeness().await.unwrap()
    };
    let told = read(everything()).await;
    let [loss] = &told.losses[..] else { panic!("{told:?}") };
    assert_eq!((loss.agent.as_str(), loss.table.as_str(), loss.reason.as_str()), ("agent-0", "http_events", "full"));
    assert_eq!((loss.events, loss.bytes), (20, 200));
    let [expired] = &told.expired[..] else { panic!("{told:?}") };
    assert!(expired.table == "http_events" && expired.oldest_ns > T0, "{expired:?}");
    let later = TimeRange { start_ns: T0 + 199_000 * STEP_NS, end_ns: T0 + 200_000 * STEP_NS };
    let told = read(later).await;
    assert_eq!(told, Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distinct_values_are_estimated_across_agents() {
    let cluster = Cluster::start((0..3).map(|agent| data::store(agent, 4000)).collect()).await;
    let exact = cluster.run("select count(distinct req_path) from http_events").await.unwrap();
    let exact: f64 = exact.lines()[0].parse().unwrap();
    let done =
        cluster.run("select approx_distinct(req_path) n, approx_distinct(latency) from http_events").await.unwrap();
    let estimate = done.batches[0].column(0).as_primitive::<Int64Type>().value(0) as f64;
    assert!((estimate - exact).abs() < exact * 0.05, "{estimate} for {exact}");
    assert_eq!(done.batches[0].schema().field(0).name(), "n");
}
