//! Runs that go on.

use std::time::Duration;

use vizier_api::execute_response::Event;
use vizier_api::{ExecuteRequest, Follow, follow::Mode, ipc};

use super::harness::{Harness, numbers, query};

fn following(sql: &str, mode: Mode) -> ExecuteRequest {
    ExecuteRequest { follow: Some(Follow { mode: mode as i32, interval_ms: 100 }), ..query(sql) }
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_gives_the_whole_result_again() {
    let vizier = Harness::start().await;
    let a = vizier.agent("node-a", 1, 10).await;
    let mut client = vizier.client().await;
    let request = following("select count(*) as n from proc_exit_events", Mode::Refresh);
    let mut stream = client.execute(request).await.unwrap().into_inner();
    let (mut counts, mut rounds, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    while rounds.len() < 3 {
        match stream.message().await.unwrap().unwrap().event.unwrap() {
            Event::Table(table) => tables.push(table.round),
            Event::Batch(batch) => counts.extend(numbers(&ipc::decode_batches(&batch.ipc).unwrap(), 0)),
            Event::Round(round) => {
                assert_eq!(round.completeness, Some(Default::default()));
                rounds.push(round.round);
                a.append(10 * rounds.len() as i64, 10);
            }
            _ => {}
        }
    }
    assert_eq!(counts, [10, 20, 30]);
    assert_eq!((rounds, tables), (vec![0, 1, 2], vec![0, 1, 2]));
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_gives_each_row_once() {
    let vizier = Harness::start().await;
    let a = vizier.agent("node-a", 1, 10).await;
    let mut client = vizier.client().await;
    let request = following("select exit_code from proc_exit_events", Mode::Tail);
    let mut stream = client.execute(request).await.unwrap().into_inner();
    let (mut seen, mut rounds) = (Vec::new(), 0);
    while seen.len() < 40 {
        let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await.expect("rows come");
        match message.unwrap().unwrap().event.unwrap() {
            Event::Batch(batch) => seen.extend(numbers(&ipc::decode_batches(&batch.ipc).unwrap(), 0)),
            Event::Round(_) => {
                rounds += 1;
                if rounds <= 3 {
                    a.append(10 * rounds, 10);
                }
            }
            _ => {}
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    vizier.stop().await;
}
