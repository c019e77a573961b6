//! Fuzzes the HTTP parser: mutations of real exchanges through `pem::protocols::http::fuzz`.
//!
//! `cargo run -p pem --example fuzz_http -- --seconds N [--seed S] [--corpus DIR]`. Runs until the time is up or a promise of the
//! parser breaks (panic, memory, malformed row); then the input is saved and the exit code is 1. The same seed makes the
//! same inputs.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pem::protocols::http::fuzz;

/// Bytes of an input: several heads of the largest size.
const INPUT_BYTES_MAX: usize = 256 << 10;

/// Inputs kept for mutation.
const POOL_MAX: usize = 4096;

/// What HTTP parsers have stumbled over.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0\r\n\r\n",
    b"1\r\nx\r\n",
    b"ffffffffffffffff\r\n",
    b"-1",
    b"+5",
    b"0x10",
    b"18446744073709551615",
    b"18446744073709551616",
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"CONNECT ",
    b"PRI * HTTP/2.0",
    b"HTTP/1.1 ",
    b"HTTP/1.0 ",
    b"HTTP/0.9",
    b"100 Continue\r\n\r\n",
    b"101 Switching Protocols\r\n",
    b"204 No Content\r\n",
    b"304 Not Modified\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: br\r\n",
    b"Content-Encoding: deflate\r\n",
    b"Content-Encoding: zstd\r\n",
    b"Content-Type: application/json\r\n",
    b"Content-Type: text/plain\r\n",
    b"\x1f\x8b\x08\x00",
    b"\x28\xb5\x2f\xfd",
    b"\x78\x9c",
    b"\xff",
    b"\x00",
    b"\xc3\x28",
    b"\xed\xa0\x80",
];

/// Whether the parser runs: a panic then is its own, else the fuzzer's.
static RUNNING: AtomicBool = AtomicBool::new(false);

fn main() {
    let options = Options::parse();
    let mut pool = corpus(&options.corpus);
    println!("seed {}, {} inputs from {}, {} s", options.seed, pool.len(), options.corpus.display(), options.seconds);
    // A panic is a finding that is reported below, with its input.
    let message = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let heard = message.clone();
    std::panic::set_hook(Box::new(move |info| {
        if !RUNNING.load(Ordering::Relaxed) {
            eprintln!("the fuzzer itself failed: {info}");
        } else if let Ok(mut text) = heard.lock() {
            *text = info.to_string();
        }
    }));
    let mut random = Random(options.seed.wrapping_mul(2).wrapping_add(1));
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let (mut executions, mut rows, mut slowest) = (0u64, 0u64, Duration::ZERO);
    let mut shapes = HashSet::new();
    let mut input = Vec::new();
    for seed in pool.clone() {
        execute(&seed, &options, &message);
    }
    while Instant::now() < deadline {
        mutate(&mut random, &pool, &mut input);
        let begin = Instant::now();
        let made = execute(&input, &options, &message);
        slowest = slowest.max(begin.elapsed());
        executions += 1;
        rows += made as u64;
        // An input that makes another number of rows of another length does something new: keep it to mutate further.
        let shape = (made, input.len().max(1).ilog2(), input.iter().filter(|b| **b == b'\n').count().min(64));
        if made > 0 && pool.len() < POOL_MAX && shapes.insert(shape) {
            pool.push(input.clone());
        }
    }
    println!(
        "{executions} executions, {rows} rows, {} inputs kept, slowest {slowest:?}: no promise broken",
        pool.len()
    );
}

/// Runs one input; on a broken promise saves it and ends.
fn execute(input: &[u8], options: &Options, message: &std::sync::Mutex<String>) -> usize {
    RUNNING.store(true, Ordering::Relaxed);
    let outcome = catch_unwind(AssertUnwindSafe(|| fuzz(input)));
    RUNNING.store(false, Ordering::Relaxed);
    match outcome {
        Ok(rows) => rows,
        Err(_) => {
            let path = options.crashes.join(format!("http-crash-{:016x}", digest(input)));
            let saved = std::fs::write(&path, input);
            let text = message.lock().map(|text| text.clone()).unwrap_or_default();
            eprintln!("the parser broke a promise: {text}");
            match saved {
                Ok(()) => eprintln!("input saved to {}; seed {}", path.display(), options.seed),
                Err(error) => eprintln!("input could not be saved to {}: {error}", path.display()),
            }
            std::process::exit(1);
        }
    }
}

/// `DIR/*`: each file one input.
fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let inputs: Vec<_> = paths.iter().filter_map(|path| std::fs::read(path).ok()).collect();
    if inputs.is_empty() {
        eprintln!("no corpus in {}: name its folder with --corpus", folder.display());
        std::process::exit(2);
    }
    inputs
}

fn mutate(random: &mut Random, pool: &[Vec<u8>], input: &mut Vec<u8>) {
    input.clear();
    input.extend_from_slice(&pool[random.below(pool.len())]);
    for _ in 0..1 + random.below(8) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(64)).min(input.len());
        match random.below(9) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.below(256) as u8,
            2 => drop(input.drain(at..end)),
            3 => {
                let token = TOKENS[random.below(TOKENS.len())];
                drop(input.splice(at..at, token.iter().copied()));
            }
            4 => {
                let token = TOKENS[random.below(TOKENS.len())];
                drop(input.splice(at..end, token.iter().copied()));
            }
            5 => {
                let copy = input[at..end].to_vec();
                let to = random.below(input.len() + 1);
                drop(input.splice(to..to, copy));
            }
            6 => {
                let other = &pool[random.below(pool.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(512)).min(other.len());
                drop(input.splice(at..end, other[from..to].iter().copied()));
            }
            7 => {
                // A record cut in two: the same bytes as the next two records.
                let op = [random.below(4) as u8, random.below(256) as u8, random.below(3) as u8];
                drop(input.splice(at..at, op));
            }
            _ => {
                let run = vec![random.below(256) as u8; random.below(3000)];
                drop(input.splice(at..at, run));
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// xorshift64*: enough to wander, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

struct Options {
    seconds: u64,
    seed: u64,
    corpus: PathBuf,
    crashes: PathBuf,
}

impl Options {
    fn parse() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut options =
            Self { seconds: 60, seed: 1, corpus: here.join("fuzz/http/corpus"), crashes: std::env::temp_dir() };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let value = args.next();
            let number = || value.as_deref().and_then(|n| n.parse().ok()).unwrap_or_else(|| usage());
            let path = || value.clone().map(PathBuf::from).unwrap_or_else(|| usage());
            match arg.as_str() {
                "--seconds" => options.seconds = number(),
                "--seed" => options.seed = number(),
                "--corpus" => options.corpus = path(),
                "--crashes" => options.crashes = path(),
                _ => usage(),
            }
        }
        options
    }
}

fn usage() -> ! {
    eprintln!("usage: fuzz_http [--seconds N] [--seed S] [--corpus DIR] [--crashes DIR]");
    std::process::exit(2);
}
