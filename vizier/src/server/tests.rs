//! The service as a client sees it, over a real Unix socket, with agents that dial in over real mutual TLS. What stands in
//! for a PEM is the engine's own serving side over tables filled by hand, behind a proxy that can be cut or frozen.

mod follow;
mod harness;
mod history;
mod limits;
mod partial;
mod plugins;
mod scripts;

use vizier_api::execute_request::What;
use vizier_api::status::Code;
use vizier_api::{CancelRequest, ExecuteRequest, Follow, ListAgentsRequest, ListTablesRequest, follow::Mode};

use self::harness::{Harness, numbers};

#[tokio::test(flavor = "multi_thread")]
async fn sql_over_two_agents_gives_one_result_with_statistics() {
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 1000).await;
    let _b = vizier.agent("node-b", 2, 500).await;
    let mut client = vizier.client().await;
    let result = harness::sql(&mut client, "select count(*) as n, sum(exit_code) as s from proc_exit_events").await;
    assert_eq!(result.code(), Code::Ok, "{:?}", result.finished);
    assert_eq!(result.table("result").schema_fields(), ["n", "s"]);
    assert_eq!(numbers(&result.table("result").batches, 0), [1500]);
    assert_eq!(numbers(&result.table("result").batches, 1), [(0..1000).sum::<i64>() + (0..500).sum::<i64>()]);
    let statistics = result.statistics();
    assert_eq!(statistics.agents.len(), 2);
    assert_eq!(statistics.agents.iter().map(|a| a.rows_scanned).sum::<u64>(), 1500);
    assert!(statistics.agents.iter().all(|a| a.bytes_sent > 0));
    assert_eq!(statistics.rows_output, 1);
    assert_eq!(result.completeness(), &Default::default());
    assert!(!result.started.run_id.is_empty() && result.started.start_time_ns < result.started.end_time_ns);
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_agents_are_listed_with_their_state() {
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 1000).await;
    let mut client = vizier.client().await;
    let tables = client.list_tables(ListTablesRequest { name: String::new() }).await.unwrap().into_inner().tables;
    let exits = tables.iter().find(|t| t.name == "proc_exit_events").unwrap();
    assert!(!exits.description.is_empty());
    assert_eq!((exits.agents[0].agent.as_str(), exits.agents[0].rows), ("node-a", 1000));
    let schema = vizier_api::ipc::decode_schema(&exits.schema).unwrap();
    assert!(schema.field_with_name("time_").is_ok());
    let one = client.list_tables(ListTablesRequest { name: "proc_exit_events".into() }).await.unwrap().into_inner();
    assert_eq!(one.tables.len(), 1);
    let none = client.list_tables(ListTablesRequest { name: "proc_exit_event".into() }).await.unwrap_err();
    assert_eq!(none.code(), tonic::Code::NotFound);
    assert_eq!(harness::hint(&none), "did you mean `proc_exit_events`?");

    let agents = client.list_agents(ListAgentsRequest {}).await.unwrap().into_inner().agents;
    assert_eq!(agents.len(), 1);
    assert_eq!((agents[0].id.as_str(), agents[0].asid, agents[0].state.as_str()), ("node-a", 1, "connected"));
    assert!(agents[0].table_bytes > 0);
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_a_query_comes_back_with_its_place_and_the_nearest_name() {
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 10).await;
    let mut client = vizier.client().await;
    for (sql, near) in
        [("select * from proc_exit_event", "proc_exit_events"), ("select exit_cod from proc_exit_events", "exit_code")]
    {
        let result = harness::sql(&mut client, sql).await;
        let status = result.finished.status.clone().unwrap();
        assert_eq!(status.code(), Code::Failed, "{status:?}");
        let text = format!("{} {}", status.message, status.hint);
        assert!(text.contains(near), "{sql}: {text}");
    }
    let result = harness::sql(&mut client, "select exit_code from proc_exit_events where exit_code >").await;
    let status = result.finished.status.unwrap();
    assert_eq!(status.code(), Code::Failed);
    assert!(!status.message.is_empty());
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_agents_there_is_a_clear_answer() {
    let vizier = Harness::start().await;
    let mut client = vizier.client().await;
    let result = harness::sql(&mut client, "select * from http_events").await;
    let status = result.finished.status.unwrap();
    assert_ne!(status.code(), Code::Internal, "{status:?}");
    assert!(status.code() != Code::Ok || !status.message.is_empty(), "{status:?}");
    let result = harness::sql(&mut client, "select 1 + 1 as two").await;
    assert_eq!(numbers(&result.table("result").batches, 0), [2], "{:?}", result.finished);
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_served() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    let vizier = Harness::start().await;
    let mut health = HealthClient::new(vizier.channel().await);
    let service = vizier_api::server::SERVICE_NAME.to_owned();
    let answer = health.check(HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response::MessageResponse};
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(vizier.channel().await);
    let mut answers = reflection.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    assert!(list.service.iter().any(|s| s.name == vizier_api::server::SERVICE_NAME), "{list:?}");
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_vizier_ends_runs_that_go_on_and_removes_its_socket() {
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 10).await;
    let mut client = vizier.client().await;
    let request = ExecuteRequest {
        what: Some(What::Sql("select count(*) from proc_exit_events".into())),
        follow: Some(Follow { mode: Mode::Refresh as i32, interval_ms: 100 }),
        ..Default::default()
    };
    let stream = client.execute(request).await.unwrap().into_inner();
    let reading = tokio::spawn(harness::read(stream));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let socket = vizier.socket();
    vizier.stop().await;
    let result = reading.await.unwrap();
    assert_eq!(result.code(), Code::Cancelled);
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_what_does_not_run_is_not_found() {
    let vizier = Harness::start().await;
    let mut client = vizier.client().await;
    let status = client.cancel(CancelRequest { run_id: "nonsense".into() }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert!(status.message().contains("nonsense"));
    vizier.stop().await;
}
