//! Fuzzes what reads `plugin.toml` and its JSON: mutations of a good one.
//!
//! `cargo xtask fuzz manifest --time N [-- --seed S]`. Runs until the time is up or a promise breaks: nothing panics, what is
//! taken comes back unchanged from its JSON, and a place lies within the text. The same seed makes the same inputs.

use std::time::{Duration, Instant};

use host_manifest::{Manifest, View, parse_duration};

/// Bytes of a manifest here.
const INPUT_BYTES_MAX: usize = 8 << 10;

const GOOD: &str = r#"name = "slow_posts"
version = "0.1.0"
description = "Posts that took long"
tables = ["http_events", "processes"]
follow = "tail"

[[args]]
name = "min-latency"
type = "duration"
default = "10ms"

[[args]]
name = "side"
type = "string"
default = "server"
choices = ["server", "client"]

[[outputs]]
name = "slow"

[[views]]
table = "slow"
columns = [{ name = "latency", format = "duration", width = 9 }]
sort = { column = "latency", descending = true }

[budget]
guest_cpu_ms = 100
"#;

const TOKENS: &[&str] = &[
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    "\n",
    "\r",
    "\t",
    "#",
    "-1",
    "0x",
    "1e999",
    "inf",
    "nan",
    "true",
    "1979-05-27T07:32:00Z",
    "99999999999999999999",
    "\\u0000",
    "\\uD800",
    "ä",
    "\u{1f600}",
    "[args]",
    "[[args]]\n",
    "name",
    "type = \"int64\"\n",
    "default = [1]\n",
    "a.b.c = 1\n",
    "kind = \"script\"\n",
    "world = \"x\"\n",
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let value = args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)?.parse().ok());
        value.unwrap_or(default)
    };
    let (seconds, seed) = (number("--seconds", 10), number("--seed", 1));
    println!("seed {seed}, {seconds} s");
    let json = Manifest::from_toml(GOOD).expect("a good manifest").to_json();
    let mut random = Random(seed.wrapping_mul(2).wrapping_add(1));
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let (mut executions, mut taken, mut placed) = (0u64, 0u64, 0u64);
    while Instant::now() < deadline {
        executions += 1;
        let toml = random.below(3) > 0;
        let text = mutate(&mut random, if toml { GOOD } else { &json });
        let read = if toml { Manifest::from_toml(&text) } else { Manifest::from_json(text.as_bytes()) };
        let _ = (View::from_json(&text), parse_duration(&text));
        match read {
            Ok(manifest) => {
                taken += 1;
                let again = Manifest::from_json(manifest.to_json().as_bytes()).expect("what was taken is taken again");
                assert_eq!(again, manifest, "{text}");
                let _ = manifest.arguments(&[("side".to_owned(), text)].into());
            }
            Err(error) => {
                let Some(at) = &error.position else { continue };
                placed += 1;
                let lines = text.split('\n').count();
                assert!((1..=lines).contains(&(at.line as usize)) && at.column > 0, "{error}: {at} in\n{text}");
            }
        }
    }
    println!("{executions} executions, {taken} manifests taken, {placed} mistakes placed: no promise broken");
}

fn mutate(random: &mut Random, from: &str) -> String {
    let mut input: Vec<char> = from.chars().collect();
    for _ in 0..=random.below(3) {
        let at = random.below(input.len() + 1);
        let end = at + random.below(input.len() - at + 1).min(40);
        match random.below(4) {
            0 => drop(input.drain(at..end)),
            1 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            2 if at < input.len() => input[at] = char::from(u8::try_from(32 + random.below(95)).unwrap_or(b' ')),
            _ => drop(input.splice(at..at, TOKENS[random.below(TOKENS.len())].chars())),
        }
    }
    let text: String = input.into_iter().collect();
    text.chars().take(INPUT_BYTES_MAX).collect()
}

/// xorshift64*: enough to choose where to cut.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}
