//! What runs used is a table like any other.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use vizier_api::status::Code;
use vizier_api::{ExecuteRequest, ListTablesRequest};

use super::harness::{self, Harness, numbers, query};

fn texts(batches: &[RecordBatch], column: usize) -> Vec<String> {
    let of = |batch: &RecordBatch| {
        let array = cast(batch.column(column), &DataType::Utf8).unwrap();
        let array = array.as_string::<i32>();
        (0..array.len()).map(|row| array.value(row).to_owned()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_run_is_a_row_of_plugin_runs_with_what_it_used() {
    let vizier = Harness::start().await;
    let mut client = vizier.client().await;
    // Without any agent too.
    let none = harness::sql(&mut client, "select count(*) as n from plugin_runs").await;
    assert_eq!((none.code(), numbers(&none.table("result").batches, 0)), (Code::Ok, vec![0]), "{:?}", none.finished);
    let _a = vizier.agent("node-a", 1, 1000).await;
    let _b = vizier.agent("node-b", 2, 500).await;
    let good = harness::sql(&mut client, "select sum(exit_code) as s from proc_exit_events").await;
    let bad = harness::sql(&mut client, "select nonsense from proc_exit_events").await;
    assert_eq!(bad.code(), Code::Failed);
    let budget = vizier_api::Budget { rows_scanned: 10, ..Default::default() };
    let over = ExecuteRequest { budget: Some(budget), ..query("select * from proc_exit_events") };
    assert_eq!(harness::execute(&mut client, over).await.code(), Code::Exhausted);

    let text = "select run_id, kind, tenant, client, status, exhausted, error, rows_scanned, rows_output, agents, total_ns \
                from plugin_runs where name = 'sql' order by time_, status";
    let runs = harness::sql(&mut client, text).await;
    assert_eq!(runs.code(), Code::Ok, "{:?}", runs.finished);
    let rows = &runs.table("result").batches;
    let run_ids = texts(rows, 0);
    assert_eq!(run_ids.len(), 4);
    assert!(run_ids.contains(&none.started.run_id) && run_ids.contains(&bad.started.run_id));
    let at = run_ids.iter().position(|id| *id == good.started.run_id).unwrap();
    let bad = run_ids.iter().position(|id| *id == bad.started.run_id).unwrap();
    assert_eq!(texts(rows, 1)[at], "sql");
    assert_eq!(texts(rows, 2)[at], format!("uid:{}", nix_uid()));
    assert!(texts(rows, 3)[at].starts_with("pid:"), "{:?}", texts(rows, 3));
    let mut ends = texts(rows, 4);
    ends.sort();
    assert_eq!(ends, ["exhausted", "failed", "ok", "ok"]);
    assert_eq!(texts(rows, 5).iter().filter(|which| *which == "rows").count(), 1);
    assert!(texts(rows, 6)[bad].contains("nonsense") && texts(rows, 6)[at].is_empty());
    assert_eq!((numbers(rows, 7)[at], numbers(rows, 8)[at], numbers(rows, 9)[at]), (1500, 1, 2));
    assert!(numbers(rows, 10).iter().all(|ns| *ns > 0));
    // With the agents' tables, and aggregated.
    let joined = "select count(*) as n from plugin_runs r join proc_exit_events e on e.exit_code = r.rows_output";
    let joined = harness::sql(&mut client, joined).await;
    assert_eq!(joined.code(), Code::Ok, "{:?}", joined.finished);
    assert!(numbers(&joined.table("result").batches, 0)[0] >= 2);
    // It asks no agent, and lacks none.
    assert!(runs.statistics().agents.is_empty() && runs.completeness() == &Default::default());

    let tables =
        client.list_tables(ListTablesRequest { name: "plugin_runs".into() }).await.unwrap().into_inner().tables;
    assert_eq!(tables[0].agents.iter().map(|a| a.agent.as_str()).collect::<Vec<_>>(), ["vizier"]);
    assert!(tables[0].agents[0].rows >= 5 && tables[0].agents[0].budget_bytes == 4 << 20);
    vizier.stop().await;
}

fn nix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid()
}
