//! Components that are costly to compile are refused by the limit they break, in a process of their own, and nobody waits.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host::compiler::{Limits, Process};
use host::error::Error;
use host::manifest::section;
use host::{Config, RunRequest, Runtime};

use crate::support::{Engine, Output, guest};

fn process(limits: Limits) -> Process {
    Process { program: env!("CARGO_BIN_EXE_host-compile").into(), args: vec![], limits }
}

fn runtime(limits: Limits) -> Runtime {
    Runtime::new(Config { compiler: Some(process(limits)), runs_max: 4, threads: 1, ..Config::default() }).unwrap()
}

/// Functions in which everything meets everything: the register allocator's work grows faster than the code.
fn slow(functions: usize, blocks: usize) -> Vec<u8> {
    let mut wat = String::from("(component (core module $m\n");
    const LOCALS: usize = 400;
    for f in 0..functions {
        write!(wat, "(func $f{f} (param i32) (result i32) (local").unwrap();
        wat.push_str(&" i32".repeat(LOCALS));
        wat.push_str(")\n(loop $top\n");
        for b in 0..blocks {
            let (x, y, z) = (1 + b * 7 % LOCALS, 1 + b * 13 % LOCALS, 1 + b * 29 % LOCALS);
            writeln!(
                wat,
                "(block (br_if 0 (local.get {x})) (local.set {y} (i32.mul (local.get {z}) (i32.add (local.get {x}) (i32.const {b})))) (br_if $top (local.get {y})))"
            )
            .unwrap();
        }
        wat.push_str(") local.get 1)\n");
    }
    wat.push_str("(func (export \"run\")))\n(core instance $i (instantiate $m))\n(func (export \"run\") (canon lift (core func $i \"run\"))))");
    section::append(&wat::parse_str(&wat).unwrap(), r#"{"name":"slow","version":"0.1.0","description":"a test"}"#)
}

fn refused(runtime: &Runtime, component: &[u8]) -> String {
    match runtime.load(component) {
        Err(Error::Invalid { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_script_compiled_elsewhere_runs_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let load = || {
        let cache_dir = Some(dir.path().join("aot"));
        let compiler = Some(process(Limits::default()));
        let config = Config { cache_dir, compiler, runs_max: 2, threads: 1, ..Config::default() };
        Runtime::new(config).unwrap().load(&guest("probe")).unwrap()
    };
    assert!(!load().cached());
    let script = load();
    assert!(script.cached());
    let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
    request.args = [("what".into(), "plan".into())].into();
    script.run(request).await.result.unwrap();
}

#[tokio::test]
async fn an_engine_that_counts_instructions_gets_code_that_does() {
    let config = Config { compiler: Some(process(Limits::default())), fuel: true, runs_max: 2, ..Config::default() };
    let script = Runtime::new(config).unwrap().load(&guest("probe")).unwrap();
    let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
    request.args = [("what".into(), "nothing".into())].into();
    let report = script.run(request).await;
    report.result.clone().unwrap();
    assert!(report.fuel_used.unwrap() > 0, "{report:?}");
}

#[tokio::test]
async fn what_takes_minutes_to_compile_is_refused_by_name_and_nobody_waits_for_it() {
    let runtime = runtime(Limits { cpu: Duration::from_secs(2), ..Limits::default() });
    let script = runtime.load(&guest("probe")).unwrap();
    let component = slow(40, 8_000);
    let compiling = std::thread::spawn({
        let runtime = runtime.clone();
        move || {
            let began = Instant::now();
            (refused(&runtime, &component), began.elapsed())
        }
    });
    let mut runs = 0;
    while !compiling.is_finished() {
        let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
        request.args = [("what".into(), "plan".into())].into();
        script.run(request).await.result.unwrap();
        // Another one is loaded beside it.
        if runs == 0 {
            runtime.load(&guest("evil")).unwrap();
        }
        runs += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (message, took) = compiling.join().unwrap();
    assert!(message.contains("limit on processor time (2 s)"), "{message}");
    // Validation is not part of it; the machine may be busy.
    assert!(took < Duration::from_secs(40), "{took:?}");
    assert!(runs > 5, "{runs}");
}

#[test]
fn what_waits_for_too_long_is_refused_by_name() {
    let limits = Limits { wall: Duration::from_millis(300), ..Limits::default() };
    let message = refused(&runtime(limits), &slow(20, 8_000));
    assert!(message.contains("limit on time (0.3 s on the wall)"), "{message}");
}

#[test]
fn what_takes_much_memory_to_compile_is_refused_by_name() {
    let limits = Limits { memory_bytes: 40 << 20, ..Limits::default() };
    let message = refused(&runtime(limits), &slow(40, 8_000));
    assert!(message.contains("limit on memory (40 MiB)"), "{message}");
}

#[test]
fn a_mistake_is_told_as_in_the_process_itself() {
    let wat = r#"(component
        (core module $m (func (export "run") (result i32) i32.const 1))
        (core instance $i (instantiate $m))
        (func (export "run") (result u32) (canon lift (core func $i "run"))))"#;
    let manifest = r#"{"name":"t","version":"0.1.0","description":"a test"}"#;
    let message = refused(&runtime(Limits::default()), &section::append(&wat::parse_str(wat).unwrap(), manifest));
    assert!(message.contains("does not fit the world"), "{message}");
}

#[test]
fn a_compiler_that_is_none_is_our_fault() {
    for program in ["/does/not/exist", "/bin/true", "/bin/cat"] {
        let compiler = Process { program: program.into(), args: vec![], limits: Limits::default() };
        let config = Config { compiler: Some(compiler), runs_max: 1, threads: 1, ..Config::default() };
        match Runtime::new(config).unwrap().load(&guest("probe")) {
            Err(Error::Internal(_)) => {}
            other => panic!("{program}: {other:?}"),
        }
    }
}
