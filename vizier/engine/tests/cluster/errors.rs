//! Mistakes get an answer that says what to do, and where.

use host::backend::{Named, Op, Scalar};
use host::error::Error;

use super::data;
use super::harness::Cluster;

async fn cluster() -> Cluster {
    Cluster::start(vec![data::store(0, 100)]).await
}

fn shown(error: Error) -> (String, String, Option<(u32, u32)>) {
    match error {
        Error::Invalid { message, hint, position } => {
            (message, hint.unwrap_or_default(), position.map(|p| (p.line, p.column)))
        }
        Error::NotFound { message, hint } => (message, hint.unwrap_or_default(), None),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_in_sql() {
    let cluster = cluster().await;
    let backend = cluster.query().backend();
    for (sql, message, hint, position) in [
        (
            "select latncy from http_events",
            "no column `latncy` in http_events",
            "did you mean `latency`?",
            Some((1, 8)),
        ),
        (
            "select 1,\n  sum(latncy)\nfrom http_events",
            "no column `latncy` in http_events",
            "did you mean `latency`?",
            Some((2, 7)),
        ),
        ("select h.latncy from http_events h", "no column `latncy` in h", "did you mean `latency`?", Some((1, 10))),
        ("select * from htp_events", "no table `htp_events`", "did you mean `http_events`?", Some((1, 15))),
        (
            "select * from public.http_events",
            "no table `public.http_events`",
            "did you mean `http_events`?",
            Some((1, 22)),
        ),
        ("select cuont(*) from http_events", "no function `cuont`", "did you mean `count`?", Some((1, 8))),
        ("selec 1", "syntax: ", "", Some((1, 1))),
        ("select from where", "", "", None),
        ("select (1", "syntax: ", "", Some((1, 10))),
        ("select 1; select 2", "there is more than one statement", "run them one by one", None),
        ("", "the query is empty", "write a SELECT", None),
        ("drop table http_events", "only SELECT is allowed, not DROP", "", None),
        ("insert into http_events select * from http_events", "only SELECT is allowed, not INSERT", "", None),
        ("create table x as select 1", "only SELECT is allowed, not CREATE", "", None),
        (
            "create external table x stored as csv location '/etc/passwd'",
            "only SELECT is allowed, not CREATE",
            "",
            None,
        ),
        ("copy (select 1) to '/tmp/x'", "only SELECT is allowed, not COPY", "", None),
        ("set datafusion.execution.batch_size = 1", "only SELECT is allowed, not SET", "", None),
        ("show tables", "only SELECT is allowed, not SHOW", "", None),
        ("explain analyze select 1", "EXPLAIN ANALYZE is not there", "", None),
        ("select * from information_schema.tables", "no table `information_schema.tables`", "", None),
        ("select * from '/etc/passwd'", "no table `/etc/passwd`", "", None),
        ("select random()", "no function `random`", "", Some((1, 8))),
        (
            "select latency from http_events where latency = $1",
            "parameter $1 has no value",
            "no parameters were given",
            Some((1, 49)),
        ),
        ("select quantile(latency, 2) from http_events", "the share of quantile(x, q) must be from 0 to 1", "", None),
        ("select upid_pid(latency) from http_events", "upid_pid takes a upid, not Int64", "", None),
    ] {
        let result = match backend.sql(sql, &[]) {
            Ok(frame) => frame.explain().map(|_| ()),
            Err(e) => Err(e),
        };
        let error = result.expect_err(sql);
        let (got, got_hint, got_position) = shown(error);
        assert!(got.starts_with(message), "{sql}: {got}");
        assert!(got_hint.starts_with(hint), "{sql}: {got_hint}");
        if position.is_some() {
            assert_eq!(got_position, position, "{sql}: {got}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_in_expressions() {
    let cluster = cluster().await;
    let frame = cluster.query().backend().table("http_events", None).unwrap();
    let named = |name: &str, expr: &str| Named { name: name.into(), expr: expr.into() };
    for (op, message, hint, position) in [
        (Op::Filter("latncy > 3".into()), "no column `latncy`", "did you mean `latency`?", Some((1, 1))),
        (Op::Filter("latency +".into()), "syntax: ", "", Some((1, 10))),
        (Op::Filter("latency".into()), "a filter must be true or false", "compare", None),
        (Op::Filter("latency > 'abc' and".into()), "syntax: ", "", None),
        (Op::Filter("sum(latency) > 3".into()), "a filter is over rows", "", None),
        (Op::Select(vec![named("a", "latency"), named("a", "upid")]), "two columns are called `a`", "", None),
        (Op::Select(vec![named("a", "max(latency)")]), "`max(", "use aggregate", None),
        (Op::Select(vec![named("a", "1 +\n  upid_pid(latency)")]), "upid_pid takes a upid, not Int64", "", None),
        (Op::Select(vec![named("a", "latency as b")]), "an expression has its name beside it", "", None),
        (Op::Drop(vec!["reqpath".into()]), "no column `reqpath`", "did you mean `req_path`?", None),
        (
            Op::Aggregate { keys: vec![named("s", "local_addr")], values: vec![named("x", "latency / 2")] },
            "column `latency` is neither a key nor inside an aggregate",
            "add it to the keys",
            Some((1, 1)),
        ),
        (
            Op::Aggregate { keys: vec![named("s", "local_addr")], values: vec![named("s", "count(*)")] },
            "two columns are called `s`",
            "",
            None,
        ),
        (Op::Filter("latency > $1".into()), "parameter $1 has no value", "", None),
        (Op::Filter("latency > (select max(latency) from nowhere)".into()), "no table `nowhere`", "", Some((1, 37))),
    ] {
        let (got, got_hint, got_position) = shown(frame.apply(&op).err().expect(message));
        assert!(got.starts_with(message), "{message}: {got}");
        assert!(got_hint.starts_with(hint), "{message}: {got_hint}");
        if position.is_some() {
            assert_eq!(got_position, position, "{message}: {got}");
        }
    }
    let (message, hint, _) = shown(cluster.query().backend().table("http_evnts", None).err().unwrap());
    assert_eq!((message.as_str(), hint.as_str()), ("no table `http_evnts`", "did you mean `http_events`?"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_values_not_text() {
    let cluster = cluster().await;
    let backend = cluster.query().backend();
    let sql = "select count(*) from http_events where local_addr = $service and latency >= $least";
    let evil = "x' or 'a' = 'a";
    let parameters = [("service".to_owned(), Scalar::Utf8(evil.into())), ("least".to_owned(), Scalar::Int64(0))];
    let query = cluster.query();
    let frame = query.backend().sql(sql, &parameters).unwrap();
    let done = super::harness::collect(query.clone(), frame).await.unwrap();
    assert_eq!(done.lines(), ["0"]);
    let upid = data::upid(0, 3);
    let frame = query
        .backend()
        .sql("select count(*) > 0 from http_events where upid = $1", &[("1".into(), Scalar::UInt128(upid))])
        .unwrap();
    assert_eq!(super::harness::collect(query, frame).await.unwrap().lines(), ["true"]);
    let (message, hint, _) = shown(backend.sql("select $b", &[("a".into(), Scalar::Int64(1))]).err().unwrap());
    assert_eq!((message.as_str(), hint.as_str()), ("parameter $b has no value", "parameters given: $a"));
}
