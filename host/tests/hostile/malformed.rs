//! Damaged and forged components: each is refused, or runs within its budget.

use std::time::Duration;

use host::compiler::{Limits, Process};
use host::{Config, Runtime};

use crate::{attack, budget, healthy, memory, support};

#[path = "mutate.rs"]
pub mod mutate;

/// Components tried. `fuzz_admission` tries many more.
const TRIES: u64 = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_components_are_refused_or_contained() {
    let _alone = memory::alone().await;
    let process =
        Process { program: env!("CARGO_BIN_EXE_host-compile").into(), args: vec![], limits: Limits::default() };
    let runtime = Runtime::new(Config { compiler: Some(process), runs_max: 8, ..Config::default() }).unwrap();
    let probe = support::guest("probe");
    let (mut refused, mut ran) = (0, 0);
    for seed in 0..TRIES {
        let bytes = mutate::mutate(&probe, seed);
        match runtime.load(&bytes) {
            Err(_) => refused += 1,
            Ok(script) => {
                // Whatever it does by now: it needs an argument that it is not given.
                attack(&script, budget(Duration::from_secs(2))).await;
                ran += 1;
            }
        }
    }
    eprintln!("{refused} refused, {ran} run");
    assert!(refused > TRIES / 4, "{refused}");
    healthy().await;
}
