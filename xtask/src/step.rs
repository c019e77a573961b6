//! What a person sees of a long step: its name, how long it has run, what it is at, and how it ended.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line on a terminal changes, and how often a log without one gets another line.
const REDRAW: Duration = Duration::from_millis(200);
const LOG_LINE: Duration = Duration::from_secs(30);
/// Longer notes are cut, so that the line stays one line.
const NOTE_CHARS_MAX: usize = 60;

/// A step under way.
pub struct Step {
    name: String,
    start: Instant,
    drawn: Instant,
    terminal: bool,
}

impl Step {
    /// Begins a step.
    pub fn begin(name: impl Into<String>) -> Self {
        Self::since(name, Instant::now())
    }

    /// Shows a step that began before.
    pub fn since(name: impl Into<String>, start: Instant) -> Self {
        let step = Self { name: name.into(), start, drawn: Instant::now(), terminal: io::stderr().is_terminal() };
        if !step.terminal {
            eprintln!("  … {}", step.name);
        }
        step
    }

    /// Shows that the step is alive and what it is at. Cheap enough to call in a loop.
    pub fn tick(&mut self, note: &str) {
        let every = if self.terminal { REDRAW } else { LOG_LINE };
        if self.drawn.elapsed() < every {
            return;
        }
        self.drawn = Instant::now();
        let note: String = note.trim().chars().filter(|c| !c.is_control()).take(NOTE_CHARS_MAX).collect();
        let took = elapsed(self.start.elapsed());
        if self.terminal {
            eprint!("\r\x1b[2K  … {} {took}  {}", self.name, dim(&note));
            let _ = io::stderr().flush();
        } else {
            eprintln!("  … {} {took}  {note}", self.name);
        }
    }

    /// Ends the step and says how.
    pub fn end(self, ok: bool, note: &str) -> Duration {
        let took = self.start.elapsed();
        let mark = if ok { green("✓") } else { red("✗") };
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        let note = if note.is_empty() { String::new() } else { format!("  {}", dim(note)) };
        eprintln!("{clear}  {mark} {} {}{note}", self.name, elapsed(took));
        took
    }
}

/// A duration as people say it.
pub fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        _ => format!("{}m{:02}s", seconds / 60, seconds % 60),
    }
}

fn paint(code: &str, text: &str) -> String {
    let wanted = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Green, where standard error shows colours.
pub fn green(text: &str) -> String {
    paint("32", text)
}

/// Red, where standard error shows colours.
pub fn red(text: &str) -> String {
    paint("1;31", text)
}

/// Dim, where standard error shows colours.
pub fn dim(text: &str) -> String {
    paint("2", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let shown = |ms| elapsed(Duration::from_millis(ms));
        assert_eq!([shown(1_240), shown(59_900), shown(61_000)], ["1.2s", "59s", "1m01s"]);
    }
}
