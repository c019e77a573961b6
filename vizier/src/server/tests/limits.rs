//! What is bounded stays bounded, and says so.

use std::time::{Duration, Instant};

use host::meter::Budget;
use vizier_api::status::Code;
use vizier_api::{ExecuteRequest, Follow, follow::Mode};

use super::harness::{self, Harness, query};
use crate::Limits;

const ALL: &str = "select * from proc_exit_events";

#[tokio::test(flavor = "multi_thread")]
async fn rows_beyond_the_limit_are_cut_and_marked() {
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 5000).await;
    let mut client = vizier.client().await;
    let result = harness::execute(&mut client, ExecuteRequest { limit_rows: 100, ..query(ALL) }).await;
    assert_eq!(result.code(), Code::Ok);
    assert_eq!(result.table("result").rows(), 100);
    assert_eq!(result.completeness().truncated, ["result"]);
    // Exactly as many as there are is not cut.
    let result = harness::execute(&mut client, ExecuteRequest { limit_rows: 5000, ..query(ALL) }).await;
    assert_eq!(result.table("result").rows(), 5000);
    assert!(result.completeness().truncated.is_empty());
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_budget_ends_a_run_with_what_was_sent() {
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 100_000).await;
    let budget = vizier_api::Budget { output_bytes: 1 << 20, ..Default::default() };
    let request = ExecuteRequest { limit_rows: 1_000_000, budget: Some(budget), ..query(ALL) };
    let result = harness::execute(&mut vizier.client().await, request).await;
    assert_eq!(result.code(), Code::Exhausted, "{:?}", result.finished.status);
    let status = result.finished.status.clone().unwrap();
    assert_eq!(status.exhausted, "output");
    assert!(!status.hint.is_empty());
    let rows = result.table("result").rows();
    assert!(rows > 0 && rows < 100_000, "{rows}");
    assert_eq!(result.completeness().truncated, ["result"]);
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scan_budget_ends_a_run() {
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 200_000).await;
    let budget = vizier_api::Budget { rows_scanned: 1000, ..Default::default() };
    let request = ExecuteRequest { budget: Some(budget), ..query("select sum(exit_code) from proc_exit_events") };
    let result = harness::execute(&mut vizier.client().await, request).await;
    assert_eq!(result.code(), Code::Exhausted, "{:?}", result.finished);
    assert_eq!(result.finished.status.unwrap().exhausted, "rows");
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_is_told_when_it_has_too_many_runs() {
    let vizier = Harness::with_limits(Limits { runs_per_client: 2, ..Limits::default() }).await;
    let _a = vizier.agent("node-a", 1, 10).await;
    let mut client = vizier.client().await;
    let follow = ExecuteRequest {
        follow: Some(Follow { mode: Mode::Refresh as i32, interval_ms: 500 }),
        ..query("select count(*) from proc_exit_events")
    };
    let first = client.execute(follow.clone()).await.unwrap().into_inner();
    let _second = client.execute(follow.clone()).await.unwrap().into_inner();
    let refused = client.execute(follow.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("at most 2"), "{refused:?}");
    assert!(!harness::hint(&refused).is_empty());
    // A dropped stream ends its run, and its place is free again.
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(5);
    while client.execute(follow.clone()).await.is_err() {
        assert!(Instant::now() < deadline, "the dropped stream still holds its place");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_off_and_hurts_nobody() {
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 500_000).await;
    let mut client = vizier.client().await;
    let request = ExecuteRequest { limit_rows: 10_000_000, timeout_ms: 500, ..query(ALL) };
    let mut stalled = client.execute(request).await.unwrap().into_inner();
    stalled.message().await.unwrap();
    let began = Instant::now();
    let result = harness::sql(&mut vizier.client().await, "select count(*) as n from proc_exit_events").await;
    assert_eq!(harness::numbers(&result.table("result").batches, 0), [500_000]);
    assert!(began.elapsed() < Duration::from_secs(5));
    // Deadline, twice the grace, and the time for the last word.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let (mut rows, mut finished) = (0, None);
    while let Ok(Some(message)) = stalled.message().await {
        match message.event.unwrap() {
            vizier_api::execute_response::Event::Batch(batch) => rows += batch.rows,
            vizier_api::execute_response::Event::Finished(last) => finished = last.status,
            _ => {}
        }
    }
    assert!(rows < 500_000, "the whole result was kept for a client that did not read it");
    assert!(finished.is_none_or(|status| status.code() == Code::TimedOut));
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_vizier_says_that_it_is_busy() {
    let limits = Limits {
        runs: 1,
        runs_waiting: 0,
        budget: Budget { wall_ns: 5_000_000_000, ..Limits::default().budget },
        ..Limits::default()
    };
    let vizier = Harness::with_limits(limits).await;
    let mut client = vizier.client().await;
    let follow = Follow { mode: Mode::Refresh as i32, interval_ms: 500 };
    let _first = client.execute(ExecuteRequest { follow: Some(follow), ..query("select 1") }).await.unwrap();
    let refused = client.execute(query("select 1")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("busy"), "{refused:?}");
    vizier.stop().await;
}
