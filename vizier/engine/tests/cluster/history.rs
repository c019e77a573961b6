//! What agents did not see, and what they do not hold any more.

use std::sync::Arc;
use std::time::Duration;

use host::backend::TimeRange;
use pem_tables::{Store, StoreConfig, Value, catalog};
use vizier_engine::AgentInfo;
use vizier_engine::completeness::Completeness;
use vizier_engine::exchange::{AgentState, Limits};

use super::data::T0;
use super::harness::{Cluster, collect, id_of, info, run, within};

const S: i64 = 1_000_000_000;

fn seconds(from: i64, to: i64) -> TimeRange {
    TimeRange { start_ns: T0 + from * S, end_ns: T0 + to * S }
}

/// Without capture from second 10 to 20, told in two parts.
fn store() -> Arc<Store> {
    let store = Store::new(StoreConfig::default(), catalog::ALL);
    let mut losses = store.table("data_loss").unwrap().appender();
    for (end, lasted) in [(14, 4), (20, 6)] {
        losses
            .append(&[
                Value::Time(T0 + end * S),
                Value::Str("agent-0"),
                Value::Str("capture"),
                Value::Str("http_events"),
                Value::Str("helper_away"),
                Value::Null,
                Value::Null,
                Value::Int(lasted * S),
            ])
            .unwrap();
    }
    losses.publish(T0);
    store
}

async fn told(cluster: &Cluster, range: TimeRange, tables: &[&str]) -> Completeness {
    let query = cluster.query_over(range);
    for table in tables {
        let frame = query.backend().table(table, None).unwrap();
        collect(query.clone(), frame).await.unwrap();
    }
    query.completeness().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_told_to_every_range_that_overlaps_it_and_no_other() {
    let cluster = Cluster::start(vec![store()]).await;
    // The third ends before the row that tells of its part.
    for (from, to, unseen) in [(0, 30, 10), (12, 30, 8), (15, 18, 3), (0, 11, 1), (13, 15, 2), (19, 25, 1)] {
        let told = told(&cluster, seconds(from, to), &["http_events"]).await;
        let [loss] = &told.losses[..] else { panic!("{from}..{to}: {told:?}") };
        assert_eq!((loss.agent.as_str(), loss.table.as_str()), ("agent-0", "http_events"));
        assert_eq!((loss.reason.as_str(), loss.events, loss.bytes), ("helper_away", 0, 0));
        assert_eq!(loss.unseen_ns, unseen * S as u64, "{from}..{to}");
    }
    for (from, to) in [(0, 10), (21, 30)] {
        assert_eq!(told(&cluster, seconds(from, to), &["http_events"]).await, Completeness::default(), "{from}..{to}");
    }
    assert_eq!(told(&cluster, seconds(0, 30), &["process_stats"]).await, Completeness::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_restarted_says_since_when_it_knows() {
    let empty = || Store::new(StoreConfig::default(), catalog::ALL);
    let since = |second: i64| AgentInfo { since_ns: Some(T0 + second * S), ..info(0) };
    let mut cluster = Cluster::start(vec![]).await;
    cluster.add_as(since(100), empty(), Limits::default()).await;
    cluster.connected(1).await;
    let past = seconds(0, 300);
    // One that is new lacks nothing that anybody had.
    assert_eq!(told(&cluster, past, &["http_events"]).await, Completeness::default());

    // The same process on another link.
    relink(&mut cluster, since(100)).await;
    assert_eq!(told(&cluster, past, &["http_events"]).await, Completeness::default());

    relink(&mut cluster, since(200)).await;
    // And once more by another link, which does not bring the past back.
    for _ in 0..2 {
        let told = told(&cluster, past, &["http_events", "conn_stats"]).await;
        let expired: Vec<_> = told.expired.iter().map(|e| (e.agent.clone(), e.table.as_str(), e.oldest_ns)).collect();
        let oldest_ns = T0 + 200 * S;
        assert_eq!(expired, [(id_of(0), "conn_stats", oldest_ns), (id_of(0), "http_events", oldest_ns)]);
        relink(&mut cluster, since(200)).await;
    }
    assert_eq!(told(&cluster, seconds(200, 300), &["http_events"]).await, Completeness::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_are_told_of_what_was_read_and_when() {
    let cluster = Cluster::start(vec![store()]).await;
    let unseen = |told: Completeness| told.losses.iter().map(|loss| loss.unseen_ns / S as u64).sum::<u64>();
    // A scan that names a range of its own, beside one in the run's.
    let query = cluster.query_over(seconds(0, 5));
    for range in [None, Some(seconds(12, 15))] {
        let frame = query.backend().table("http_events", range).unwrap();
        collect(query.clone(), frame).await.unwrap();
    }
    assert_eq!(unseen(query.completeness().await.unwrap()), 3);
    // A condition narrows what was read.
    let query = cluster.query_over(seconds(0, 30));
    let at = T0 + 18 * S;
    run(query.clone(), &format!("select count(*) from http_events where time_ >= to_timestamp_nanos({at})"))
        .await
        .unwrap();
    assert_eq!(unseen(query.completeness().await.unwrap()), 2);
    // Two parts that lie apart: each second is told once, however often it was read.
    let query = cluster.query_over(seconds(0, 30));
    for (from, to) in [(9, 12), (11, 13), (17, 18), (17, 18)] {
        let frame = query.backend().table("http_events", Some(seconds(from, to))).unwrap();
        collect(query.clone(), frame).await.unwrap();
    }
    assert_eq!(unseen(query.completeness().await.unwrap()), 4);
    // A subquery's table is read too, and what was only planned is not.
    let query = cluster.query_over(seconds(0, 30));
    query.backend().table("http_events", None).unwrap().explain().unwrap();
    assert_eq!(query.completeness().await.unwrap(), Completeness::default());
    run(query.clone(), "select 1 where (select count(*) from http_events) = 0").await.unwrap();
    assert_eq!(unseen(query.completeness().await.unwrap()), 10);
    // Who asks for whatever there is hears of losses in the run's range.
    let query = cluster.query_over(seconds(13, 30));
    let whatever = TimeRange { start_ns: 0, end_ns: T0 + 30 * S };
    let frame = query.backend().table("http_events", Some(whatever)).unwrap();
    collect(query.clone(), frame).await.unwrap();
    assert_eq!(unseen(query.completeness().await.unwrap()), 7);
}

/// Ends the agent's link and dials another one as `info`.
async fn relink(cluster: &mut Cluster, info: AgentInfo) {
    let agent = cluster.agents.pop().unwrap();
    agent.served.abort();
    drop(agent);
    let registry = cluster.registry.clone();
    let gone = || registry.agents().iter().all(|agent| agent.state == AgentState::Gone);
    within(Duration::from_secs(10), "the link to end", gone).await;
    cluster.add_as(info, Store::new(StoreConfig::default(), catalog::ALL), Limits::default()).await;
    cluster.connected(1).await;
}
