//! Fuzzes the host's boundary: guests that make arbitrary calls in arbitrary order, with handles, pointers and lengths that
//! are right, nearly right and wrong, over memory full of whatever. Each ends by itself, within its budget, and is never our
//! failure.
//!
//! `cargo run -p host --example boundary -- --seconds N [--seed S]`

use std::fmt::Write;
use std::sync::Arc;

use host::error::Error;
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

use guest::Guest;
use mutate::Random;
use support::{Engine, Output};

/// Calls of one guest.
const CALLS_MAX: usize = 40;
/// Bytes at 2048 that calls find structure in.
const DATA_BYTES: usize = 1024;

const BUDGET: Budget = Budget {
    guest_cpu_ns: 20_000_000,
    memory_bytes: 16 << 20,
    rows_scanned: 100_000,
    output_rows: 1_000,
    output_bytes: 1 << 20,
    output_tables: 4,
    log_bytes: 4 << 10,
    host_calls: 1_000,
    wall_ns: 300_000_000,
};

/// Imports by name, with what each parameter is.
const CALLS: &[(&str, &str)] = &[
    ("log", "nPL"),
    ("now", ""),
    ("list_tables", "R"),
    ("table", "PLntTR"),
    ("sql", "PLPnR"),
    ("filter", "HPLR"),
    ("limit", "HtTR"),
    ("drop_frame", "H"),
    ("collect", "HR"),
    ("stream_next", "HR"),
    ("dictionary", "HnnR"),
    ("drop_stream", "H"),
    ("int64s", "HnR"),
    ("codes", "HnR"),
    ("drop_batch", "H"),
    ("display", "PLHR"),
    ("emit", "PLnPnPnR"),
    ("view", "PLR"),
    ("open", "NN"),
];

fn number(random: &mut Random) -> i64 {
    const ODD: &[i64] = &[0, 1, 2, 3, 7, 8, 64, 255, 4096, 65_535, 65_536, -1, -8, i32::MAX as i64, i32::MIN as i64];
    match random.below(4) {
        0 => random.step() as i32 as i64,
        1 => random.below(16) as i64,
        _ => ODD[random.below(ODD.len())],
    }
}

fn argument(kind: char, random: &mut Random) -> String {
    let small = |random: &mut Random, most| format!("(i32.const {})", random.below(most));
    match kind {
        // A handle: one that a call gave, one of the first, or none.
        'H' => match random.below(8) {
            0 => format!("(i32.const {})", number(random)),
            1..=3 => small(random, 12),
            _ => format!("(local.get {})", 2 + random.below(4)),
        },
        'P' => match random.below(6) {
            0 => format!("(i32.const {})", number(random)),
            1 => format!("(i32.const {})", [16, 32, 48, 64, 96, 112, 120][random.below(7)]),
            _ => format!("(i32.const {})", 2048 + 4 * random.below(DATA_BYTES / 4)),
        },
        'L' => match random.below(6) {
            0 => format!("(i32.const {})", number(random)),
            _ => format!("(i32.const {})", [0, 1, 5, 6, 6, 6, 7, 29][random.below(8)]),
        },
        'R' => match random.below(12) {
            0 => format!("(i32.const {})", number(random)),
            _ => "(i32.const 512)".to_owned(),
        },
        'N' => {
            [["(i32.const 16)", "(i32.const 6)"], ["(i32.const 120)", "(i32.const 6)"]][random.below(2)][0].to_owned()
        }
        't' | 'T' => format!("(i64.const {})", number(random)),
        _ => match random.below(3) {
            0 => format!("(i32.const {})", number(random)),
            _ => small(random, 4),
        },
    }
}

/// The inside of a guest.
fn guest(seed: u64) -> String {
    let mut random = Random::new(seed);
    let mut text = String::from("(data (i32.const 2048) \"");
    for _ in 0..DATA_BYTES / 4 {
        // Words that look like pointers, lengths and discriminants more often than not.
        let word = match random.below(5) {
            0 => random.step() as u32,
            1 => 2048 + random.below(DATA_BYTES) as u32,
            2 => number(&mut random) as u32,
            _ => random.below(10) as u32,
        };
        for byte in word.to_le_bytes() {
            write!(text, "\\{byte:02x}").expect("writing to a string");
        }
    }
    text.push_str("\")\n(func (export \"run\") (param i32 i32) (result i32) (local i32 i32 i32 i32)\n");
    for _ in 0..1 + random.below(CALLS_MAX) {
        let (name, kinds) = CALLS[random.below(CALLS.len())];
        let args: Vec<String> = kinds.chars().map(|kind| argument(kind, &mut random)).collect();
        let call = match name {
            "open" => ["(call $events)", "(call $unique)", "(call $endless)"][random.below(3)].to_owned(),
            _ => format!("(call ${name} {})", args.join(" ")),
        };
        let local = 2 + random.below(4);
        let line = match name {
            "open" => format!("(local.set {local} {call})"),
            "now" => format!("(drop {call})"),
            // What came back, as a handle to use.
            _ if random.below(2) == 0 => {
                format!("{call} (local.set {local} (i32.load (i32.const {})))", [516, 520][random.below(2)])
            }
            _ => call,
        };
        text.push_str(&line);
        text.push('\n');
    }
    let result = [1024, 512, 512, 2048 + 4 * random.below(200)][random.below(4)];
    write!(text, "(i32.const {result}))").expect("writing to a string");
    text
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let options = options::Options::parse("boundary");
    let runtime = Runtime::new(Config { runs_max: 4, ..Config::default() }).expect("a runtime");
    let (mut tried, mut ended_well, mut trapped, mut told, mut calls) = (0u64, 0u64, 0u64, 0u64, 0u64);
    for seed in options.seeds() {
        let text = guest(seed);
        let broken = |why: &str| -> ! { options::broken("boundary", seed, text.as_bytes(), why) };
        let script = match runtime.load(&Guest::of("fuzz", &text).component()) {
            Ok(script) => script,
            Err(e) => broken(&format!("not loaded: {e}")),
        };
        let engine = Engine::new();
        let mut request = RunRequest::new(engine.clone(), Arc::new(Output::default()));
        request.meter = Arc::new(Meter::new(BUDGET));
        let report = script.run(request).await;
        tried += 1;
        calls += report.host_calls;
        match &report.result {
            Ok(()) => ended_well += 1,
            Err(Error::Trapped(_)) => trapped += 1,
            Err(Error::Internal(why)) if !why.contains("an engine's bug") => broken(why),
            Err(_) => told += 1,
        }
        if report.memory_peak > BUDGET.memory_bytes || report.host_calls > BUDGET.host_calls + 1 {
            broken(&format!("over its budget: {report:?}"));
        }
    }
    println!(
        "{tried} guests, {calls} calls; {ended_well} ended well, {trapped} trapped, {told} were told; seed {}",
        options.seed
    );
    assert!(tried > 0 && calls > tried, "guests that do not get to call anything test nothing");
}
