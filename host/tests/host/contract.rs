//! A guest that keeps its promises gets what the contract says.

use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::DataType;
use host::RunRequest;
use host::backend::TimeRange;
use host::error::Error;
use host::meter::Budget;

use crate::support::{Engine, Output, Rows, Run, run, script, wide};

async fn probe(what: &str) -> Run {
    run("probe", &[("what", what)], Budget::default()).await
}

#[tokio::test]
async fn a_script_that_plans_shows_a_frame_and_reads_nothing() {
    let run = probe("plan").await;
    run.report.result.clone().unwrap();
    let displayed = run.output.displayed.lock().unwrap();
    let (name, frame) = &displayed[0];
    assert_eq!((displayed.len(), name.as_str()), (1, "plan"));
    assert_eq!(frame.as_any().downcast_ref::<Rows>().unwrap().ops, 4);
    assert!(
        run.report.host_calls < 20 && run.report.guest_cpu_ns > 0 && run.report.memory_peak > 0,
        "{:?}",
        run.report
    );
}

#[tokio::test]
async fn arguments_are_typed_and_defaults_filled_in() {
    let run = probe("args").await;
    run.report.result.unwrap();
    assert_eq!(run.output.logged(), ["10 0.5 true 300000000000 None"]);
    let given = [("what", "args"), ("limit", "1_000"), ("flag", "no"), ("older", "90s"), ("service", "cart")];
    let run = crate::support::run("probe", &given, Budget::default()).await;
    assert_eq!(run.output.logged(), ["1000 0.5 false 90000000000 Some(\"cart\")"]);
}

#[tokio::test]
async fn wrong_arguments_never_start_the_script() {
    let given = [("what", "args"), ("limt", "3")];
    let run = crate::support::run("probe", &given, Budget::default()).await;
    match &run.report.result {
        Err(Error::Invalid { message, hint, .. }) => {
            assert_eq!(message, "script `probe` has no argument `limt`");
            assert_eq!(hint.as_deref(), Some("did you mean `limit`?"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(run.report.host_calls, 0);
}

#[tokio::test]
async fn every_type_survives_the_way_in_and_out() {
    let run = probe("copy").await;
    run.report.result.unwrap();
    let emitted = run.output.emitted.lock().unwrap();
    let (copy, original) = (&emitted["copy"][0], wide());
    for (i, field) in original.schema().fields().iter().enumerate() {
        // What came as dictionary leaves as text here, since the guest wrote it so.
        let as_is = matches!(field.data_type(), DataType::Dictionary(..));
        let column =
            if as_is { cast(original.column(i), &DataType::Utf8).unwrap() } else { original.column(i).clone() };
        assert_eq!(copy.column(i), &column, "{}", field.name());
    }
    assert_eq!(run.output.logged(), ["ipc true"]);
}

#[tokio::test]
async fn codes_mean_the_same_in_all_batches_of_a_stream() {
    let run = probe("count").await;
    run.report.result.unwrap();
    let emitted = run.output.emitted.lock().unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&emitted["counts"]).unwrap().to_string();
    let expected = "\
+----------+------+
| name     | rows |
+----------+------+
| cart     | 250  |
| catalog  | 250  |
| checkout | 250  |
| mail     | 250  |
+----------+------+";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn only_tables_of_the_manifest_are_listed() {
    let run = probe("tables").await;
    assert_eq!(run.output.logged(), ["events 3", "many 3", "wide 7"]);
}

#[tokio::test]
async fn time_is_the_querys() {
    let output = Arc::new(Output::default());
    let mut request = RunRequest::new(Engine::new(), output.clone());
    request.args = [("what".into(), "clock".into())].into();
    request.now_ns = 5_000;
    request.range = TimeRange { start_ns: 1_000, end_ns: 5_000 };
    script("probe").run(request).await.result.unwrap();
    assert_eq!(output.logged(), ["5000 1000..5000"]);
}

#[tokio::test]
async fn a_mistake_keeps_its_position_and_hint_through_the_guest() {
    match probe("mistake").await.report.result {
        Err(Error::Invalid { message, hint, position: Some(at) }) => {
            assert_eq!(message, "expected an expression, found the end");
            assert_eq!(hint.as_deref(), Some("complete it"));
            assert_eq!((at.text.as_str(), at.line, at.column), ("n >=", 1, 5));
        }
        other => panic!("{other:?}"),
    }
    match probe("missing").await.report.result {
        Err(Error::NotFound { message, hint }) => {
            assert_eq!(message, "there is no table `evnets`");
            assert_eq!(hint.as_deref(), Some("did you mean `events`?"));
        }
        other => panic!("{other:?}"),
    }
    let run = probe("handled").await;
    run.report.result.unwrap();
    assert_eq!(run.output.logged(), ["handled expected an expression, found the end at Some((1, 5))"]);
}

#[tokio::test]
async fn a_script_fails_in_its_own_words() {
    match probe("fail").await.report.result {
        Err(Error::Invalid { message, .. }) => assert_eq!(message, "no requests on Sundays"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rows_of_its_own_become_a_frame() {
    let run = probe("inline").await;
    run.report.result.unwrap();
    assert_eq!(run.output.logged(), [r#"["n", "name"]"#]);
    assert_eq!(run.output.displayed.lock().unwrap()[0].1.schema().field(0).data_type(), &DataType::Int64);
}

#[tokio::test]
async fn what_does_not_fit_together_is_said() {
    for (what, says) in [
        ("twice", "`a` was displayed or emitted before"),
        ("uneven", "column `name` has 1 rows, the ones before have 2"),
        ("bad-view", "unknown key `view.wigdet`"),
    ] {
        match probe(what).await.report.result {
            Err(Error::Invalid { message, .. }) => assert!(message.contains(says), "{what}: {message}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    let run = probe("view").await;
    run.report.result.unwrap();
    assert_eq!(run.output.views.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn fuel_is_the_same_every_time() {
    let runtime = host::Runtime::new(host::Config { fuel: true, ..host::Config::default() }).unwrap();
    let script = runtime.load(&crate::support::guest("probe")).unwrap();
    let mut used = Vec::new();
    for _ in 0..3 {
        let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
        request.args = [("what".into(), "plan".into())].into();
        let report = script.run(request).await;
        report.result.unwrap();
        used.push(report.fuel_used.unwrap());
    }
    assert!(used[0] > 1_000 && used.iter().all(|u| *u == used[0]), "{used:?}");
    let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
    request.args = [("what".into(), "work".into())].into();
    request.fuel = Some(100_000);
    let report = script.run(request).await;
    assert!(matches!(report.result, Err(Error::Exhausted(host::error::Exhausted::Cpu))), "{:?}", report.result);
}

#[tokio::test]
async fn many_runs_at_once_wait_for_their_turn() {
    let script = script("probe");
    let runs = (0..200).map(|_| {
        let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
        request.args = [("what".into(), "plan".into())].into();
        script.run(request)
    });
    let reports = futures::future::join_all(runs).await;
    assert!(reports.iter().all(|r| r.result.is_ok()));
}
