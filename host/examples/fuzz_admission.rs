//! Fuzzes admission: components with bits, bytes and pieces changed. Each is refused as the sender's mistake, or is compiled
//! and runs within its budget.
//!
//! `cargo run -p host --example fuzz_admission -- --seconds N [--seed S]`

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use host::error::Error;
use host::manifest::section;
use host::meter::{Budget, Meter};
use host::{Config, RunRequest, Runtime};

#[path = "../tests/hostile/guest.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod guest;
#[path = "../tests/hostile/mutate.rs"]
#[allow(dead_code, reason = "the other target uses more of it")]
mod mutate;
#[path = "fuzz/options.rs"]
mod options;
#[path = "../tests/host/support.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod support;

use mutate::Random;
use support::{Engine, Output};

const BUDGET: Budget = Budget {
    guest_cpu_ns: 5_000_000,
    memory_bytes: 16 << 20,
    rows_scanned: 10_000,
    output_rows: 1_000,
    output_bytes: 1 << 20,
    output_tables: 4,
    log_bytes: 4 << 10,
    host_calls: 1_000,
    wall_ns: 200_000_000,
};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let options = options::Options::parse("admission");
    // The small ones: more of them fit into a second.
    let mut corpus: Vec<Vec<u8>> =
        guest::all().iter().map(guest::Guest::component).filter(|c| c.len() < 64 << 10).collect();
    corpus.push(support::guest("probe"));
    corpus.push(section::append(b"\0asm\x0d\0\x01\0", "{}"));
    let runtime = Runtime::new(Config { runs_max: 4, ..Config::default() }).expect("a runtime");
    let (mut tried, mut admitted, mut ran) = (0u64, 0u64, 0u64);
    for seed in options.seeds() {
        let mut random = Random::new(seed);
        let bytes = mutate::mutate(&corpus[random.below(corpus.len())], seed);
        tried += 1;
        let inspected = catch_unwind(|| host::admission::inspect(&bytes).is_ok());
        let Ok(inspected) = inspected else { options::broken("admission", seed, &bytes, "inspecting panicked") };
        admitted += u64::from(inspected);
        let loaded = catch_unwind(AssertUnwindSafe(|| runtime.load(&bytes)));
        let script = match loaded {
            Ok(Ok(script)) if inspected => script,
            Ok(Err(Error::Invalid { message, .. })) if !message.is_empty() => continue,
            Ok(Ok(_)) => options::broken("admission", seed, &bytes, "loaded without being admitted"),
            Ok(Err(other)) => options::broken("admission", seed, &bytes, &format!("not the sender's mistake: {other}")),
            Err(_) => options::broken("admission", seed, &bytes, "loading panicked"),
        };
        ran += 1;
        let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
        request.meter = Arc::new(Meter::new(BUDGET));
        let report = script.run(request).await;
        let ours = matches!(&report.result, Err(Error::Internal(why)) if !why.contains("an engine's bug"));
        if ours || report.memory_peak > BUDGET.memory_bytes || report.host_calls > BUDGET.host_calls + 1 {
            options::broken("admission", seed, &bytes, &format!("{report:?}"));
        }
    }
    println!("{tried} components, {admitted} admitted, {ran} run; seed {}", options.seed);
    assert!(tried > 0);
}
