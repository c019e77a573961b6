//! Components that are small to write and large to take: each is refused by name, or is taken within bounds. They are
//! compiled as Vizier does it, in a process of its own.

use std::fmt::Write;
use std::time::{Duration, Instant};

use host::compiler::{Limits, Process};
use host::error::Error;
use host::manifest::section;
use host::{Config, Runtime};

use crate::{attack, budget, healthy, memory};

/// The most that taking or refusing any of these may last, on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// What the host may be larger by afterwards: the allocator keeps some of what 32 MiB of component took.
const GROWN_BYTES_MAX: u64 = 80 << 20;

const MANIFEST: &str = r#"{"name":"bomb","version":"0.1.0","description":"a test"}"#;

/// A component around a core module's inside, which exports a `run` without parameters.
fn component(inside: &str) -> Vec<u8> {
    let wat = format!(
        r#"(component (core module $m {inside} (func (export "run"))) (core instance $i (instantiate $m))
        (func (export "run") (canon lift (core func $i "run"))))"#
    );
    wat::parse_str(&wat).unwrap()
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        bytes.push(if number == 0 { byte } else { byte | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

/// `(component (component (component ...)))`
fn nested(depth: usize) -> Vec<u8> {
    const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";
    let mut bytes = HEAD.to_vec();
    for _ in 0..depth {
        let mut outer = HEAD.to_vec();
        outer.push(4);
        outer.extend(leb(bytes.len()));
        outer.extend(bytes);
        bytes = outer;
    }
    bytes
}

fn blocks(depth: usize) -> Vec<u8> {
    component(&format!("(func {} {})", "(block ".repeat(depth), ")".repeat(depth)))
}

fn types(depth: usize) -> Vec<u8> {
    let mut wat = String::from("(component (type $t0 (list u8))");
    for i in 1..depth {
        write!(wat, "(type $t{i} (list $t{}))", i - 1).unwrap();
    }
    wat.push(')');
    wat::parse_str(&wat).unwrap()
}

/// Each twice as large as the one before, none longer than a line.
fn doubling_types(depth: usize) -> Vec<u8> {
    let mut wat = String::from("(component (type $t0 (tuple u64 u64))");
    for i in 1..depth {
        write!(wat, "(type $t{i} (tuple $t{0} $t{0}))", i - 1).unwrap();
    }
    write!(wat, r#"(import "pyxis:script/clock@0.1.0" (instance (export "now" (func (param "x" $t{}))))))"#, depth - 1)
        .unwrap();
    // A type of the outer component is seen in the instance's by an alias that `wat` makes.
    wat::parse_str(&wat).unwrap_or_else(|_| types(depth))
}

fn locals(count: usize) -> Vec<u8> {
    component(&format!("(func (local {}))", "i64 ".repeat(count)))
}

fn functions(count: usize) -> Vec<u8> {
    component(&"(func)".repeat(count))
}

fn sections(count: usize) -> Vec<u8> {
    let mut bytes = component("");
    for _ in 0..count {
        bytes.extend([0, 1, 0]);
    }
    bytes
}

fn data(bytes: usize, pages: usize) -> Vec<u8> {
    let text = "x".repeat(bytes);
    component(&format!("(memory {pages}) (data (i32.const 0) \"{text}\")"))
}

fn br_table(targets: usize) -> Vec<u8> {
    component(&format!("(func (param i32) (block (br_table {} (local.get 0))))", "0 ".repeat(targets)))
}

fn calls(count: usize) -> Vec<u8> {
    component(&format!(
        "(func $f (param i32) (result i32) local.get 0) (func {})",
        "(drop (call $f (i32.const 1)))".repeat(count)
    ))
}

struct Bomb {
    what: &'static str,
    bytes: Vec<u8>,
    /// In the refusal; empty where it may be taken too.
    says: &'static str,
}

fn bombs() -> Vec<Bomb> {
    let bomb = |what, bytes: Vec<u8>, says| Bomb { what, bytes: section::append(&bytes, MANIFEST), says };
    let deep =
        format!(r#"{{"name":"bomb","version":"1","description":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let wide =
        format!(r#"{{"name":"bomb","version":"1","description":"d","tables":[{}"x"]}}"#, r#""x","#.repeat(1_000_000));
    let plain = component("");
    vec![
        bomb("a data section of 100 MB", data(100 << 20, 1601), "at most 33554432 are allowed"),
        bomb("a data section of 30 MB", data(30 << 20, 481), ""),
        bomb("components in components, 50,000 deep", nested(50_000), "not valid"),
        bomb("blocks in blocks, 200,000 deep", blocks(200_000), ""),
        bomb("lists of lists, 5,000 deep", types(5_000), ""),
        bomb("types that double, 40 times", doubling_types(40), ""),
        bomb("a function with 49,000 locals", locals(49_000), ""),
        bomb("a function with a million locals", locals(1_000_000), "not valid"),
        bomb("150,000 functions", functions(150_000), "at most 100000 are allowed"),
        bomb("90,000 functions", functions(90_000), ""),
        bomb("a million empty sections", sections(1_000_000), ""),
        bomb("a jump with 200,000 targets", br_table(200_000), ""),
        bomb("100,000 calls in one function", calls(100_000), ""),
        bomb("a function of more than a megabyte", calls(300_000), "at most 1048576 are allowed"),
        Bomb { what: "a manifest nested 100,000 deep", bytes: section::append(&plain, &deep), says: "manifest" },
        Bomb { what: "a manifest with a million tables", bytes: section::append(&plain, &wide), says: "" },
        Bomb { what: "a manifest of zeros", bytes: section::append(&plain, &"\0".repeat(10 << 20)), says: "manifest" },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_large_to_take_is_refused_or_taken_within_bounds() {
    let _alone = memory::alone().await;
    let limits = Limits { cpu: Duration::from_secs(10), ..Limits::default() };
    let process = Process { program: env!("CARGO_BIN_EXE_host-compile").into(), args: vec![], limits };
    healthy().await;
    let mut failures = Vec::new();
    for bomb in bombs() {
        let before = memory::resident();
        let config = Config { compiler: Some(process.clone()), runs_max: 4, threads: 1, ..Config::default() };
        let runtime = Runtime::new(config).unwrap();
        let began = Instant::now();
        let loaded = runtime.load(&bomb.bytes);
        let took = began.elapsed();
        let told = match loaded {
            Ok(script) => {
                // `run` has another type than the world's in some: those do not come here.
                attack(&script, budget(Duration::from_secs(2))).await;
                "taken".to_owned()
            }
            Err(Error::Invalid { message, .. }) => message,
            Err(other) => {
                failures.push(format!("{}: {other}", bomb.what));
                continue;
            }
        };
        drop(runtime);
        let grown = memory::settled(before, GROWN_BYTES_MAX).await;
        let line = told.lines().next().unwrap_or_default();
        let line = &line[..line.floor_char_boundary(120)];
        eprintln!("{}: {} ms, {} KiB: {line}", bomb.what, took.as_millis(), grown >> 10);
        if !told.contains(bomb.says) || took > WITHIN || grown > GROWN_BYTES_MAX {
            failures.push(format!("{}: {line} after {took:?}, {} KiB larger", bomb.what, grown >> 10));
        }
    }
    healthy().await;
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
