//! What every fuzz target of the host takes.

use std::time::{Duration, Instant};

/// `--seconds N [--seed S]`; the same seed makes the same inputs.
pub struct Options {
    pub seed: u64,
    until: Instant,
}

impl Options {
    pub fn parse(name: &str) -> Self {
        let (mut seconds, mut seed) = (60, 1);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let number = args.next().and_then(|number| number.parse().ok());
            match (arg.as_str(), number) {
                ("--seconds", Some(number)) => seconds = number,
                ("--seed", Some(number)) => seed = number,
                _ => {
                    eprintln!("usage: fuzz_{name} [--seconds N] [--seed S]");
                    std::process::exit(2);
                }
            }
        }
        println!("seed {seed}, {seconds} s");
        Self { seed, until: Instant::now() + Duration::from_secs(seconds) }
    }

    /// Seeds of one input each, until the time is up.
    pub fn seeds(&self) -> impl Iterator<Item = u64> {
        let (first, until) = (self.seed.wrapping_mul(1_000_000_007), self.until);
        (0..).map(move |n| first.wrapping_add(n)).take_while(move |_| Instant::now() < until)
    }
}

/// Tells of a broken promise, keeps its input, and ends.
pub fn broken(name: &str, seed: u64, input: &[u8], why: &str) -> ! {
    let path = std::env::temp_dir().join(format!("fuzz_{name}-{seed}"));
    let kept = match std::fs::write(&path, input) {
        Ok(()) => path.display().to_string(),
        Err(e) => format!("not kept: {e}"),
    };
    eprintln!("input {seed} ({kept}): {why}");
    std::process::exit(1);
}
