//! Fuzzes the host's boundary: guests that make arbitrary calls in arbitrary order, with handles, pointers and lengths that
//! are right, nearly right and wrong, over memory full of whatever. Each ends by itself, within its budget, and is never our
//! failure.
//!
//! `cargo run -p host --example fuzz_boundary -- --seconds N [--seed S]`

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
/// Of so many calls one has arguments that are right, nearly right or wrong; the others could be those of an honest guest. Without
/// these, hardly a guest would get further than its first call.
const WILD_ONE_IN: usize = 10;
/// Bytes at 2048 that calls find structure in.
const DATA_BYTES: usize = 1024;
/// A view, behind them.
const VIEW_AT: usize = 2048 + DATA_BYTES;
const VIEW: &str = r#"{"table":"t","widget":"line"}"#;
/// Names in memory, as `guest.rs` lays them out: tables, an output, and what makes the engine panic.
const NAMES: [(usize, usize); 7] = [(16, 6), (16, 6), (32, 7), (120, 6), (64, 1), (48, 7), (96, 5)];

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

/// Imports by name, with what each parameter is: `F`, `S` and `B` handles of a frame, a stream and a batch, `P` and `L` a name,
/// `Z` an empty list, `n` a small number, `o` and `t` an option of a range, `V` a view, `R` where the result goes.
const CALLS: &[(&str, &str)] = &[
    ("log", "nPL"),
    ("now", ""),
    ("list_tables", "R"),
    ("table", "PLottR"),
    ("sql", "PLZR"),
    ("filter", "FPLR"),
    ("limit", "FttR"),
    ("drop_frame", "F"),
    ("collect", "FR"),
    ("collect", "FR"),
    ("stream_next", "SR"),
    ("stream_next", "SR"),
    ("dictionary", "SnnR"),
    ("drop_stream", "S"),
    ("int64s", "BnR"),
    ("codes", "BnR"),
    ("drop_batch", "B"),
    ("display", "PLFR"),
    ("emit", "PLnZZR"),
    ("view", "VR"),
];

/// Locals of a guest: the frame, the stream and the batch it has.
const FRAME: usize = 2;
const STREAM: usize = 3;
const BATCH: usize = 4;

fn number(random: &mut Random) -> i64 {
    const ODD: &[i64] = &[0, 1, 2, 3, 7, 8, 64, 255, 4096, 65_535, 65_536, -1, -8, i32::MAX as i64, i32::MIN as i64];
    match random.below(4) {
        0 => random.step() as i32 as i64,
        1 => random.below(16) as i64,
        _ => ODD[random.below(ODD.len())],
    }
}

/// Arguments an honest guest could give.
fn honest(kinds: &str, random: &mut Random) -> Vec<String> {
    let (at, length) = NAMES[random.below(NAMES.len())];
    let one = |kind: char, random: &mut Random| match kind {
        'F' => vec![format!("(local.get {FRAME})")],
        'S' => vec![format!("(local.get {STREAM})")],
        'B' => vec![format!("(local.get {BATCH})")],
        'P' => vec![format!("(i32.const {at})")],
        'L' => vec![format!("(i32.const {length})")],
        'Z' => vec!["(i32.const 2048)".to_owned(), "(i32.const 0)".to_owned()],
        'V' => vec![format!("(i32.const {VIEW_AT})"), format!("(i32.const {})", VIEW.len())],
        'R' => vec!["(i32.const 512)".to_owned()],
        'o' => vec![format!("(i32.const {})", random.below(2))],
        't' => vec![format!("(i64.const {})", random.below(100))],
        _ => vec![format!("(i32.const {})", random.below(3))],
    };
    kinds.chars().flat_map(|kind| one(kind, random)).collect()
}

/// Arguments that are right, nearly right and wrong.
fn wild(kinds: &str, random: &mut Random) -> Vec<String> {
    let of = |kind: char, random: &mut Random| match kind {
        // One that a call gave, one of the first, or none.
        'F' | 'S' | 'B' => match random.below(8) {
            0 => format!("(i32.const {})", number(random)),
            1..=3 => format!("(i32.const {})", random.below(12)),
            _ => format!("(local.get {})", FRAME + random.below(4)),
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
        'R' => match random.below(6) {
            0 => format!("(i32.const {})", number(random)),
            _ => "(i32.const 512)".to_owned(),
        },
        't' => format!("(i64.const {})", number(random)),
        _ => match random.below(3) {
            0 => format!("(i32.const {})", number(random)),
            _ => format!("(i32.const {})", random.below(4)),
        },
    };
    // Lists and views are a pointer and a length.
    kinds.replace(['Z', 'V'], "PL").chars().map(|kind| of(kind, random)).collect()
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
    let view = VIEW.replace('"', "\\\"");
    write!(text, "\") (data (i32.const {VIEW_AT}) \"{view}\")\n").expect("writing to a string");
    text.push_str("(func (export \"run\") (param i32 i32) (result i32) (local i32 i32 i32 i32)\n");
    let opened = ["$events", "$unique", "$endless"][random.below(3)];
    let frame = format!("(local.set {FRAME} (call {opened}))\n");
    let stream = format!("(local.set {STREAM} (call $stream (local.get {FRAME})))\n");
    let batch = format!("(local.set {BATCH} (call $next (local.get {STREAM})))\n");
    text.extend([frame.as_str(), &stream, &batch]);
    for _ in 0..1 + random.below(CALLS_MAX) {
        let (name, kinds) = CALLS[random.below(CALLS.len())];
        let is_wild = random.below(WILD_ONE_IN) == 0;
        let args = if is_wild { wild(kinds, &mut random) } else { honest(kinds, &mut random) };
        let call = format!("(call ${name} {})", args.join(" "));
        // What was made is what is used next; what was dropped is replaced, or it is not.
        let made = "(i32.eqz (i32.load8_u (i32.const 512)))";
        let keep = |local: usize, at: usize| {
            format!("{call} (if {made} (then (local.set {local} (i32.load (i32.const {at})))))")
        };
        let again = !is_wild || random.below(2) == 0;
        let line = match name {
            "now" => format!("(drop {call})"),
            "table" | "sql" | "filter" | "limit" => keep(FRAME, 516),
            "collect" => keep(STREAM, 516),
            "stream_next" => keep(BATCH, 520),
            "drop_frame" if again => format!("{call} {frame}"),
            "drop_stream" if again => format!("{call} {stream}"),
            "drop_batch" if again => format!("{call} {batch}"),
            _ => call.clone(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    let result = [1024, 1024, 1024, 512, 2048 + 4 * random.below(200)][random.below(5)];
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
    let share = |part: u64| part as f64 / tried.max(1) as f64;
    assert!(tried > 0 && share(calls) > 5.0, "guests that do not get to call anything test nothing");
    assert!(share(ended_well) > 0.05 && share(trapped) > 0.05, "guests that all end alike test little");
}
