//! A node that fails is a named gap; the query's own error is an error.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use host::error::{Error, Exhausted};
use host::meter::{Budget, Meter};
use pem_tables::{Store, StoreConfig, catalog};
use tokio::net::{TcpListener, TcpStream};
use vizier_engine::exchange::{AdoptError, AgentState, Limits, serve};
use vizier_engine::policy::AllowAll;
use vizier_engine::{AgentId, QueryContext, Registry};

use super::data;
use super::harness::{Cluster, Wire, collect, everything, id_of, info, run, within};

const GROUPED: &str = "select local_addr, count(*) c from http_events group by local_addr";

async fn cluster(agents: u32, rows: u64) -> Cluster {
    Cluster::start((0..agents).map(|agent| data::store(agent, rows)).collect()).await
}

async fn total(cluster: &Cluster) -> String {
    cluster.run("select count(*) from http_events").await.unwrap().lines()[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_never_connected_is_named() {
    let cluster = cluster(2, 1000).await;
    cluster.registry.expect([AgentId::from("agent-0"), AgentId::from("ghost")]);
    let done = cluster.run(GROUPED).await.unwrap();
    assert_eq!(done.rows(), 20);
    assert_eq!(done.missing(), [("ghost".to_owned(), "never connected".to_owned())].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_without_tables_misses_nobody() {
    let cluster = cluster(1, 10).await;
    cluster.registry.expect([AgentId::from("ghost")]);
    let done = cluster.run("select 1 + 1").await.unwrap();
    assert_eq!((done.lines(), done.missing().len()), (vec!["2".to_owned()], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_before_the_query() {
    let cluster = cluster(4, 1000).await;
    cluster.agents[1].wire.send(Wire::Cut).unwrap();
    cluster.connected(3).await;
    let done = cluster.run("select count(*) from http_events").await.unwrap();
    assert_eq!(done.lines(), ["3000"]);
    assert_eq!(done.missing(), [("agent-1".to_owned(), "gone: its link was closed".to_owned())].into());
    let gone = cluster.registry.agents().into_iter().find(|a| a.info.id == id_of(1)).unwrap();
    assert_eq!(gone.state, AgentState::Gone);
    assert!(gone.last_seen_time_ns >= gone.connected_time_ns && gone.connected_time_ns > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_agent_at_all_is_an_empty_result_that_says_so() {
    let cluster = cluster(2, 100).await;
    cluster.agents.iter().for_each(|agent| agent.wire.send(Wire::Cut).unwrap());
    cluster.connected(0).await;
    let done = cluster.run("select count(*) from http_events").await.unwrap();
    assert_eq!((done.lines(), done.missing().len()), (vec!["0".to_owned()], 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_in_the_middle_of_a_query() {
    let cluster = cluster(3, 100_000).await;
    let query = cluster.query();
    let frame = query.backend().sql("select time_, upid, req_path, latency from http_events", &[]).unwrap();
    let mut stream = query.execute(frame.as_ref());
    let first = stream.next().await.unwrap().unwrap();
    cluster.agents[2].wire.send(Wire::Cut).unwrap();
    let cut = Instant::now();
    let mut rows = first.num_rows();
    while let Some(batch) = stream.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert!((200_000..300_000).contains(&rows), "{rows} rows");
    let missing = query.missing();
    assert_eq!(missing.keys().collect::<Vec<_>>(), [&id_of(2)]);
    assert!(missing[&id_of(2)].starts_with("link lost"), "{missing:?}");
    assert!(cut.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_agent_costs_the_deadline_and_no_more() {
    let cluster = cluster(3, 1000).await;
    cluster.agents[0].wire.send(Wire::Frozen).unwrap();
    let started = Instant::now();
    let query = cluster.query_with(Duration::from_millis(700), Arc::new(AllowAll));
    let done = run(query, "select count(*) from http_events").await.unwrap();
    let took = started.elapsed();
    assert_eq!(done.lines(), ["2000"]);
    assert_eq!(done.missing(), [("agent-0".to_owned(), "no answer before the deadline".to_owned())].into());
    assert!(took >= Duration::from_millis(690) && took < Duration::from_millis(1500), "{took:?}");
    cluster.agents[0].wire.send(Wire::Whole).unwrap();
    assert_eq!(total(&cluster).await, "3000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_back_after_its_restart() {
    let mut cluster = cluster(2, 1000).await;
    cluster.agents[0].served.abort();
    // The wire may have ended with it.
    let _ended = cluster.agents[0].wire.send(Wire::Cut);
    cluster.connected(1).await;
    assert_eq!(total(&cluster).await, "1000");
    cluster.add(0, data::store(0, 500), Limits::default()).await;
    cluster.connected(2).await;
    let done = cluster.run("select count(*) from http_events").await.unwrap();
    assert_eq!((done.lines(), done.missing().len()), (vec!["1500".to_owned()], 0));
    assert_eq!(cluster.registry.agents().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_link_replaces_the_first() {
    let mut cluster = cluster(1, 1000).await;
    cluster.add(0, data::store(0, 300), Limits::default()).await;
    let rows = |cluster: &Cluster| {
        cluster.registry.tables().iter().find(|t| t.name == "http_events").unwrap().agents[0].1.rows
    };
    within(Duration::from_secs(5), "the second link", || rows(&cluster) == 300).await;
    assert_eq!(total(&cluster).await, "300");
    // The first is let go, so that nothing is left of it on the agent.
    let first = cluster.agents.remove(0);
    tokio::time::timeout(Duration::from_secs(5), first.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_result_stops_scans() {
    let cluster = cluster(2, 400_000).await;
    let running = |cluster: &Cluster| -> u64 {
        cluster.agents.iter().map(|a| a.activity.fragments_running.load(Ordering::SeqCst)).sum()
    };
    let query = cluster.query();
    // Every row travels, so the agents are held back by the unread stream.
    let frame = query.backend().sql("select * from http_events", &[]).unwrap();
    let mut stream = query.execute(frame.as_ref());
    stream.next().await.unwrap().unwrap();
    assert!(running(&cluster) > 0);
    drop(stream);
    let dropped = Instant::now();
    within(Duration::from_secs(5), "scans to stop", || running(&cluster) == 0).await;
    eprintln!("scans stopped {:?} after the result was dropped", dropped.elapsed());
    let scanned: u64 = cluster.agents.iter().map(|a| a.activity.rows_scanned.load(Ordering::SeqCst)).sum();
    assert!(scanned < 800_000, "{scanned} of 800,000 rows were scanned");
    // A selective filter gives nothing to send: stopping must not wait for that.
    let query = cluster.query();
    let sql = "select count(*) from http_events where regexp_like(req_path, '(a|b)*z') or regexp_like(resp_message, '(c|d)*z')";
    let frame = query.backend().sql(sql, &[]).unwrap();
    let mut stream = query.execute(frame.as_ref());
    drop(tokio::time::timeout(Duration::from_millis(5), stream.next()).await);
    drop(stream);
    let dropped = Instant::now();
    within(Duration::from_secs(5), "busy scans to stop", || running(&cluster) == 0).await;
    eprintln!("busy scans stopped {:?} after the result was dropped", dropped.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_ends_the_stream() {
    let cluster = cluster(2, 100_000).await;
    let query = cluster.query();
    let frame = query.backend().sql("select * from http_events", &[]).unwrap();
    let mut stream = query.execute(frame.as_ref());
    stream.next().await.unwrap().unwrap();
    query.cancel();
    let mut last = None;
    while let Some(item) = stream.next().await {
        last = Some(item);
    }
    assert!(matches!(last, Some(Err(Error::Cancelled))), "{last:?}");
    let agents = &cluster.agents;
    within(Duration::from_secs(5), "scans to stop", || {
        agents.iter().all(|a| a.activity.fragments_running.load(Ordering::SeqCst) == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_divides_by_zero_fails() {
    for agents in [1, 3] {
        let cluster = cluster(agents, 100).await;
        let error = cluster.run("select latency / (resp_status - resp_status) from http_events").await.err().unwrap();
        let Error::Invalid { message, .. } = &error else { panic!("{error:?}") };
        assert!(message.contains("Divide by zero"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_agent_is_a_gap_only_for_what_it_lacks() {
    let mut cluster = cluster(2, 100).await;
    cluster.add(2, data::old_store(2, 50), Limits::default()).await;
    cluster.connected(3).await;
    let done =
        cluster.run("select resp_status, count(*) from http_events where resp_status = 200 group by 1").await.unwrap();
    assert!(done.missing().is_empty(), "{:?}", done.missing());
    let done = cluster.run("select count(*), max(latency) from http_events").await.unwrap();
    assert!(done.lines()[0].starts_with("200|"), "{:?}", done.lines());
    assert_eq!(
        done.missing(),
        [("agent-2".to_owned(), "its table http_events has no column latency".to_owned())].into()
    );
    let done = cluster.run("select count(*) from conn_stats").await.unwrap();
    assert_eq!(done.missing(), [("agent-2".to_owned(), "it has no table conn_stats".to_owned())].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_short_of_memory_is_a_gap() {
    let mut cluster = cluster(2, 20_000).await;
    let limits = Limits { memory_bytes: 64 << 10, ..Limits::default() };
    cluster.add(2, data::store(2, 20_000), limits).await;
    cluster.connected(3).await;
    let done = cluster.run("select req_path, upid, latency, count(*) from http_events group by 1, 2, 3").await.unwrap();
    let missing = done.missing();
    assert_eq!(missing.keys().collect::<Vec<_>>(), ["agent-2"], "{missing:?}");
    assert!(missing["agent-2"].contains("more memory than this agent gives"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_beyond_the_budget_end_the_run() {
    let cluster = cluster(2, 50_000).await;
    let budget = Budget { rows_scanned: 20_000, ..Budget::default() };
    let meter = Arc::new(Meter::new(budget));
    let query = cluster.engine.query(QueryContext {
        range: everything(),
        now_ns: data::T0,
        deadline: tokio::time::Instant::now() + Duration::from_secs(30),
        policy: Arc::new(AllowAll),
        meter: meter.clone(),
    });
    let frame = query.backend().sql("select max(latency) from http_events", &[]).unwrap();
    let error = collect(query.clone(), frame).await.err().unwrap();
    assert!(matches!(error, Error::Exhausted(Exhausted::Rows)), "{error:?}");
    let used = meter.rows_scanned.load(Ordering::SeqCst);
    // Each agent may go a batch beyond.
    assert!(used < 20_000 * 2 + 2 * 8192, "{used} rows were scanned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_is_charged_and_told_per_agent() {
    let cluster = cluster(2, 5000).await;
    let done = cluster.run(GROUPED).await.unwrap();
    let statistics = done.query.statistics();
    assert_eq!(statistics.len(), 2);
    for (agent, used) in &statistics {
        assert_eq!(used.rows_scanned, 5000, "{agent}");
        assert!(used.bytes_scanned > 5000 && used.bytes_sent > 100 && used.elapsed_ns > 0, "{agent}: {used:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_cannot_be_taken_are_refused_with_a_reason() {
    let mut cluster = cluster(1, 10).await;
    // The same short id, another agent.
    let twin = vizier_engine::AgentInfo { id: AgentId::from("twin"), ..info(0) };
    cluster.add_as(twin, data::store(0, 10), Limits::default()).await;
    let twin = cluster.agents.pop().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), twin.served).await.unwrap().unwrap();
    let reason = ended.unwrap_err().to_string();
    assert!(reason.contains("refused") && reason.contains("short id 1 is that of agent agent-0"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identity_and_silence_are_checked() {
    let registry = Registry::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let store = Store::new(StoreConfig::default(), catalog::ALL);
    let agent = tokio::spawn(serve(dialled, store, || info(0), Limits::default(), Arc::default()));
    let error = registry.adopt(accepted, Some(&AgentId::from("someone-else"))).await.unwrap_err();
    assert!(
        matches!(&error, AdoptError::Refused { id, reason } if *id == id_of(0) && reason.contains("certificate")),
        "{error}"
    );
    assert!(agent.await.unwrap().is_err());
    assert!(registry.agents().is_empty());

    // Somebody who dials and hangs up.
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    drop(dialled);
    let error = registry.adopt(accepted, None).await.unwrap_err();
    assert!(matches!(error, AdoptError::Silent(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_unread_queries_do_not_starve_another() {
    let cluster = cluster(1, 100_000).await;
    let mut held = vec![];
    for _ in 0..30 {
        let query = cluster.query();
        let frame = query.backend().sql("select * from http_events", &[]).unwrap();
        let mut stream = query.execute(frame.as_ref());
        stream.next().await.unwrap().unwrap();
        held.push((query, stream));
    }
    // Thirty hold a place each; the limit of fragments is above that.
    let done = tokio::time::timeout(Duration::from_secs(10), cluster.run("select count(*) from http_events")).await;
    assert_eq!(done.expect("not starved").unwrap().lines(), ["100000"]);
}

/// 200 rows joined with themselves: 3.2 * 10^11 rows.
fn explosion(first: &str) -> String {
    let rows: Vec<_> = (0..200).map(|i| format!("({i})")).collect();
    let rows = rows.join(", ");
    let tables: Vec<_> = (0..4).map(|i| format!("(values {rows}) t{i}(x)")).collect();
    format!("select count(*), sum(t0.x + t1.x * t2.x - t3.x) from {first} cross join {}", tables.join(" cross join "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_explodes_ends_at_its_deadline() {
    let cluster = cluster(2, 1000).await;
    let started = Instant::now();
    let query = cluster.query_with(Duration::from_millis(300), Arc::new(AllowAll));
    let error = run(query, &explosion("(select 1)")).await.err().unwrap();
    assert!(matches!(error, Error::Exhausted(Exhausted::Deadline)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    let started = Instant::now();
    let query = cluster.query_with(Duration::from_millis(300), Arc::new(AllowAll));
    let done = run(query, &explosion("http_events")).await.unwrap();
    assert_eq!(done.missing().len(), 2, "{:?}", done.missing());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let agents = &cluster.agents;
    within(Duration::from_secs(5), "fragments to stop", || {
        agents.iter().all(|a| a.activity.fragments_running.load(Ordering::SeqCst) == 0)
    })
    .await;
    // And the agents are as good as before.
    assert_eq!(total(&cluster).await, "2000");
}
