//! Agents that die, hang, or are not who they say: partial results and refusals, never a hang.

use std::time::{Duration, Instant};

use vizier_api::status::Code;
use vizier_api::{CancelRequest, ExecuteRequest, ListAgentsRequest};

use super::harness::{self, Harness, numbers, query};
use crate::pki;

const COUNT: &str = "select count(*) as n from proc_exit_events";

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_cut_off_is_named_and_the_others_answer() {
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 100).await;
    let b = vizier.agent("node-b", 2, 50).await;
    b.proxy.cut.cancel();
    vizier.wait_for("node-b", "gone").await;
    let result = harness::sql(&mut vizier.client().await, COUNT).await;
    assert_eq!(result.code(), Code::Ok);
    assert_eq!(numbers(&result.table("result").batches, 0), [100]);
    let missing = &result.completeness().missing;
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].agent, "node-b");
    assert!(!missing[0].reason.is_empty());
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_is_named_at_the_deadline() {
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 100).await;
    let b = vizier.agent("node-b", 2, 50).await;
    b.proxy.freeze.cancel();
    let began = Instant::now();
    let request = ExecuteRequest { timeout_ms: 700, ..query(COUNT) };
    let result = harness::execute(&mut vizier.client().await, request).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(result.code(), Code::Ok, "{:?}", result.finished);
    assert_eq!(numbers(&result.table("result").batches, 0), [100]);
    let missing: Vec<_> = result.completeness().missing.iter().map(|m| m.agent.as_str()).collect();
    assert_eq!(missing, ["node-b"]);
    b.proxy.cut.cancel();
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_can_be_cancelled_by_its_id() {
    let vizier = Harness::start().await;
    let a = vizier.agent("node-a", 1, 100).await;
    a.proxy.freeze.cancel();
    let mut client = vizier.client().await;
    let mut stream = client.execute(query(COUNT)).await.unwrap().into_inner();
    let vizier_api::execute_response::Event::Started(started) = stream.message().await.unwrap().unwrap().event.unwrap()
    else {
        panic!("Started comes first");
    };
    let began = Instant::now();
    client.cancel(CancelRequest { run_id: started.run_id.clone() }).await.unwrap();
    let result = harness::read(stream).await;
    assert_eq!(result.code(), Code::Cancelled);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let again = client.cancel(CancelRequest { run_id: started.run_id }).await;
    // The stream's end and the end of the run's record are moments apart.
    assert!(again.is_ok() || again.unwrap_err().code() == tonic::Code::NotFound);
    a.proxy.cut.cancel();
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expected_agent_that_never_came_is_missing() {
    let vizier = Harness::with(|config| config.agents_expected = vec!["node-a".into(), "node-c".into()]).await;
    let _a = vizier.agent("node-a", 1, 100).await;
    let result = harness::sql(&mut vizier.client().await, COUNT).await;
    let missing: Vec<_> = result.completeness().missing.iter().map(|m| m.agent.as_str()).collect();
    assert_eq!(missing, ["node-c"]);
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_of_our_authority_get_in() {
    let vizier = Harness::start().await;
    let other = tempfile::tempdir().unwrap();
    let foreign = pki::create(other.path(), None, &["node-a"]).unwrap().agents.remove(0).1;
    // The foreign agent would trust our Vizier; it is Vizier that must not trust the agent.
    let foreign = pki::Identity { ca: vizier.pki.vizier.ca.clone(), ..foreign };
    let mut agent = vizier.dial(&foreign, "node-a", 1, harness::store(1)).await;
    let _ = agent.ended().await;
    // An agent that does not trust this Vizier says so itself.
    let stranger = pki::create(&other.path().join("second"), None, &["node-b"]).unwrap().agents.remove(0).1;
    let mut agent = vizier.dial(&stranger, "node-b", 2, harness::store(1)).await;
    assert!(agent.ended().await.unwrap_err().contains("certificate"));
    let agents = vizier.client().await.list_agents(ListAgentsRequest {}).await.unwrap().into_inner().agents;
    assert!(agents.is_empty(), "{agents:?}");
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_not_call_itself_by_anothers_name() {
    let vizier = Harness::start().await;
    let mut agent = vizier.dial(&vizier.identity("node-a"), "node-b", 1, harness::store(1)).await;
    let reason = agent.ended().await.unwrap_err();
    assert!(reason.contains("certificate is for node-a"), "{reason}");
    let agents = vizier.client().await.list_agents(ListAgentsRequest {}).await.unwrap().into_inner().agents;
    assert!(agents.iter().all(|a| a.state != "connected"), "{agents:?}");
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_never_shake_hands_do_not_keep_agents_out() {
    let vizier = Harness::with_limits(crate::Limits { handshakes: 3, ..Default::default() }).await;
    let addr = vizier.agents_addr();
    // More than there are places, and none of them says a word.
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(tokio::net::TcpStream::connect(addr).await.unwrap());
    }
    for _ in 0..5 {
        let mut bogus = tokio::net::TcpStream::connect(addr).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut bogus, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    }
    let began = std::time::Instant::now();
    let _a = vizier.agent("node-a", 1, 1).await;
    // Long before the idle ones are given up.
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_beyond_the_limit_are_refused_with_what_to_do() {
    let vizier = Harness::with_limits(crate::Limits { agents: 1, ..Default::default() }).await;
    let first = vizier.agent("node-a", 1, 1).await;
    let mut second = vizier.dial(&vizier.identity("node-b"), "node-b", 2, harness::store(1)).await;
    let reason = second.ended().await.unwrap_err();
    assert!(reason.contains("has 1 agents, and takes no more"), "{reason}");
    // One that is known may come again: it is no further one.
    let _again = vizier.agent("node-a", 1, 1).await;
    drop(first);
    vizier.stop().await;
}
