//! Guests that break their promises: each is stopped by the budget it breaks, and what it did until then is bounded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use host::RunRequest;
use host::error::{Error, Exhausted};
use host::meter::{Budget, Meter};
use tokio_util::sync::CancellationToken;

use crate::support::{Engine, Output, Run, run, script};

/// Small budgets, so that the tests are quick.
fn budget() -> Budget {
    Budget {
        guest_cpu_ns: 100_000_000,
        memory_bytes: 32 << 20,
        output_rows: 25_000,
        output_tables: 5,
        log_bytes: 10_000,
        host_calls: 20_000,
        ..Budget::default()
    }
}

async fn attack(name: &str) -> Run {
    run("evil", &[("attack", name)], budget()).await
}

fn exhausted(run: &Run) -> Exhausted {
    match &run.report.result {
        Err(Error::Exhausted(which)) => *which,
        other => panic!("not exhausted but {other:?}"),
    }
}

fn trap(run: &Run) -> &str {
    match &run.report.result {
        Err(Error::Trapped(text)) => text,
        other => panic!("no trap but {other:?}"),
    }
}

#[tokio::test]
async fn one_that_loops_for_ever_ends_at_its_processor_budget() {
    let run = attack("spin").await;
    assert_eq!(exhausted(&run), Exhausted::Cpu);
    let used = run.report.guest_cpu_ns;
    // Two epochs are 2 ms; a busy machine may wake the ticker late, and the loop goes on until then.
    assert!((100_000_000..150_000_000).contains(&used), "{used}");
}

#[tokio::test]
async fn one_that_recurses_for_ever_traps_with_the_name_of_its_function() {
    let run = attack("recurse").await;
    let text = trap(&run);
    assert!(text.contains("call stack exhausted"), "{text}");
    assert!(text.contains("evil::recurse"), "{text}");
}

#[tokio::test]
async fn one_that_allocates_for_ever_ends_at_its_memory_budget() {
    let run = attack("allocate").await;
    assert_eq!(exhausted(&run), Exhausted::Memory);
    let peak = run.report.memory_peak;
    assert!((16 << 20..=32 << 20).contains(&peak), "{peak}");
}

#[tokio::test]
async fn rows_that_it_hands_over_are_its_memory_until_it_is_over() {
    let run = attack("inline").await;
    assert_eq!(exhausted(&run), Exhausted::Memory);
    assert!((16 << 20..=32 << 20).contains(&run.report.memory_peak), "{}", run.report.memory_peak);
    // The tenant has it back once nobody can read them any more.
    let tenant = Arc::new(host::tenant::Tenant::new("t", host::tenant::Budget::UNLIMITED));
    let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
    request.args = [("attack".into(), "inline".into())].into();
    request.meter = Arc::new(Meter::of(tenant.clone(), budget()));
    let meter = request.meter.clone();
    let report = script("evil").run(request).await;
    assert!(matches!(report.result, Err(Error::Exhausted(Exhausted::Memory))), "{report:?}");
    assert!(tenant.memory_bytes() > 10 << 20, "{}", tenant.memory_bytes());
    drop(meter);
    assert_eq!(tenant.memory_bytes(), 0);
}

#[tokio::test]
async fn what_it_says_went_wrong_is_as_long_as_people_read() {
    match attack("wordy").await.report.result {
        Err(Error::Invalid { message, .. }) => {
            assert!(
                message.len() < 20_000 && message.starts_with("éé") && message.ends_with(" …"),
                "{}",
                message.len()
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn lines_without_a_text_are_lines_too() {
    let run = attack("print-nothing").await;
    assert!(matches!(exhausted(&run), Exhausted::Calls | Exhausted::Cpu));
    let lines = run.output.logged().len();
    assert!((100..=10_000 / host::meter::LINE_COSTS_BYTES as usize).contains(&lines), "{lines}");
}

#[tokio::test]
async fn one_that_prints_for_ever_is_cut_and_then_ended() {
    let run = attack("print").await;
    assert!(matches!(exhausted(&run), Exhausted::Calls | Exhausted::Cpu));
    let written: usize = run.output.logged().iter().map(String::len).sum();
    assert!((9_000..=10_000).contains(&written), "{written}");
    assert!(run.report.logs_dropped > 1_000, "{}", run.report.logs_dropped);
}

#[tokio::test]
async fn a_long_line_is_cut_at_a_character() {
    let run = attack("print-long").await;
    run.report.result.unwrap();
    let lines = run.output.logged();
    assert_eq!((lines.len(), lines[0].len()), (1, 4096));
}

#[tokio::test]
async fn one_that_emits_for_ever_keeps_what_fitted_and_is_marked() {
    let run = attack("emit").await;
    assert_eq!(exhausted(&run), Exhausted::Output);
    assert_eq!(run.report.truncated, ["numbers"]);
    assert_eq!(run.output.rows("numbers"), 25_000);
}

#[tokio::test]
async fn one_that_does_not_listen_is_ended_soon_after() {
    let run = attack("emit-deaf").await;
    assert_eq!(exhausted(&run), Exhausted::Output);
    assert_eq!(run.output.rows("numbers"), 25_000);
    assert!(run.report.host_calls < 40, "{}", run.report.host_calls);
}

#[tokio::test]
async fn one_that_makes_tables_for_ever_gets_its_number() {
    let run = attack("tables").await;
    assert_eq!(exhausted(&run), Exhausted::Output);
    assert_eq!(run.output.emitted.lock().unwrap().len(), 5);
    assert_eq!(run.report.truncated, ["t5"]);
}

#[tokio::test]
async fn one_that_calls_for_ever_ends_at_its_calls() {
    let run = attack("call").await;
    assert_eq!(exhausted(&run), Exhausted::Calls);
    assert_eq!(run.report.host_calls, 20_001);
}

#[tokio::test]
async fn hoarded_handles_are_bounded() {
    for what in ["frames", "streams"] {
        let run = attack(what).await;
        assert_eq!(exhausted(&run), Exhausted::Memory, "{what}");
    }
    let small = Budget { host_calls: 1_000_000, guest_cpu_ns: 10_000_000_000, ..budget() };
    let run = run("evil", &[("attack", "batches")], small).await;
    assert_eq!(exhausted(&run), Exhausted::Memory);
}

#[tokio::test]
async fn rows_read_for_it_count() {
    let run = run("evil", &[("attack", "endless")], Budget { rows_scanned: 1_000, ..budget() }).await;
    assert_eq!(exhausted(&run), Exhausted::Rows);
}

#[tokio::test]
async fn waiting_costs_no_processor_time_and_ends_at_the_deadline() {
    let run = run("evil", &[("attack", "endless")], Budget { wall_ns: 300_000_000, ..budget() }).await;
    assert_eq!(exhausted(&run), Exhausted::Deadline);
    assert!(run.report.guest_cpu_ns < 100_000_000, "{}", run.report.guest_cpu_ns);
    stopped(&run.engine).await;
}

#[tokio::test]
async fn a_cancelled_run_stops_computing_and_reading() {
    for what in ["spin", "endless"] {
        let (engine, output) = (Engine::new(), Arc::new(Output::default()));
        let mut request = RunRequest::new(engine.clone(), output);
        request.args = [("attack".into(), what.into())].into();
        request.meter = Arc::new(Meter::new(Budget { guest_cpu_ns: u64::MAX, ..budget() }));
        let cancel = CancellationToken::new();
        request.cancel = cancel.clone();
        let script = script("evil");
        let running = tokio::spawn(async move { script.run(request).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
        let report = running.await.unwrap();
        assert!(matches!(report.result, Err(Error::Cancelled)), "{what}: {:?}", report.result);
        stopped(&engine).await;
    }
}

#[tokio::test]
async fn a_run_nobody_waits_for_stops() {
    let engine = Engine::new();
    let mut request = RunRequest::new(engine.clone(), Arc::new(Output::default()));
    request.args = [("attack".into(), "endless".into())].into();
    let meter = Arc::clone(&request.meter);
    let script = script("evil");
    let run = tokio::time::timeout(Duration::from_millis(50), script.run(request)).await;
    assert!(run.is_err());
    stopped(&engine).await;
    let calls = meter.host_calls.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(meter.host_calls.load(Ordering::SeqCst), calls);
}

/// The engine's streams are closed, soon.
async fn stopped(engine: &Engine) {
    for _ in 0..100 {
        if engine.open.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("streams are still open");
}

#[tokio::test]
async fn a_panic_is_told_with_message_place_and_callers() {
    let run = attack("panic").await;
    let text = trap(&run);
    assert!(text.contains("the sky is falling") && text.contains("src/lib.rs:"), "{text}");
    let run = attack("nested-panic").await;
    let text = trap(&run);
    assert!(text.contains("index out of bounds"), "{text}");
    let inner = text.find("evil::inner").expect(text);
    assert!(text.find("evil::outer").expect(text) > inner, "{text}");
}

#[tokio::test]
async fn a_trap_is_told_with_files_and_lines_where_there_are_line_tables() {
    let debug = crate::support::debug_guest("evil");
    let plain = crate::support::guest("evil");
    eprintln!("{} bytes with line tables, {} without", debug.len(), plain.len());
    let script = crate::support::runtime().load(&debug).unwrap();
    let source = include_str!("../guests/evil/src/lib.rs");
    let line = |text: &str| source.lines().position(|l| l.contains(text)).unwrap() + 1;
    for (what, function, place) in [
        ("nested-panic", "evil::inner", line("list[n]")),
        ("nested-panic", "evil::outer", line("inner(core::hint")),
        ("recurse", "evil::recurse", line("black_box(recurse(")),
    ] {
        let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
        request.args = [("attack".into(), what.into())].into();
        let began = std::time::Instant::now();
        let report = script.run(request).await;
        eprintln!("{what}: told after {:?}", began.elapsed());
        let text = match &report.result {
            Err(Error::Trapped(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(text.contains(&format!("at {function} (evil/src/lib.rs:{place})")), "{place}: {text}");
        // The SDK's frames are told too, and not where it lay on the machine that built it.
        assert!(!text.contains(env!("CARGO_MANIFEST_DIR")) && !text.contains("/plugins/sdk-rust"), "{text}");
    }
    for (component, what) in [(&debug, "with line tables"), (&plain, "without")] {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_str().unwrap();
        let leaks = component.windows(root.len()).any(|bytes| bytes == root.as_bytes());
        assert!(!leaks, "the component {what} has the path of this machine in it");
    }
}

#[tokio::test]
async fn a_broken_contract_traps() {
    for (what, says) in [
        ("forge", "unknown handle index"),
        ("double-drop", "unknown handle index"),
        ("wrong-column", "column 99 of a batch with 3 columns"),
        ("wrong-type", "column 0 is Int64, it was read as float64"),
        ("huge-call", "fuel"),
    ] {
        let run = attack(what).await;
        let text = match &run.report.result {
            Err(Error::Trapped(text)) => text.clone(),
            Err(Error::Exhausted(Exhausted::Memory)) if what == "huge-call" => continue,
            other => panic!("{what}: {other:?}"),
        };
        assert!(text.contains(says), "{what}: {text}");
    }
}

#[tokio::test]
async fn bad_values_are_the_scripts_mistake() {
    for (what, says) in
        [("long-text", "at most 65536 are allowed"), ("bad-offsets", "column `t` has offsets that do not start at 0")]
    {
        match attack(what).await.report.result {
            Err(Error::Invalid { message, .. }) => assert!(message.contains(says), "{what}: {message}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_table_the_manifest_does_not_name_is_denied_however_it_is_reached() {
    for what in ["forbidden-table", "forbidden-sql", "forbidden-subquery"] {
        let run = attack(what).await;
        match &run.report.result {
            Err(Error::Denied(why)) => assert!(why.contains("`secrets`") && why.contains("plugin.toml"), "{why}"),
            other => panic!("{what}: {other:?}"),
        }
        assert!(run.output.displayed.lock().unwrap().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn an_engine_that_panics_is_our_failure_and_ends_one_run_alone() {
    let run = attack("engine-panics").await;
    match &run.report.result {
        Err(Error::Internal(why)) => assert!(why.contains("an engine's bug"), "{why}"),
        other => panic!("{other:?}"),
    }
    attack("print-long").await.report.result.unwrap();
}
