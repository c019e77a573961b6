use std::sync::PoisonError;

use crate::backend;
use crate::bindings::pyxis::common::log::{Host, Level};
use crate::state::State;

/// Longest line; the rest of a longer one is cut.
const LINE_BYTES_MAX: usize = 4 << 10;

impl Host for State {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.enter()?;
        let line = cut(&message, LINE_BYTES_MAX);
        let level = match level {
            Level::Trace => backend::Level::Trace,
            Level::Debug => backend::Level::Debug,
            Level::Info => backend::Level::Info,
            Level::Warn => backend::Level::Warn,
            Level::Error => backend::Level::Error,
        };
        let mut marks = self.control.marks.lock().unwrap_or_else(PoisonError::into_inner);
        // A panic's message is such a line and comes last: it is kept for the report even when the budget is gone.
        if level == backend::Level::Error {
            marks.last_error = Some(line.to_owned());
        }
        if !self.meter.charge_log(line) {
            marks.logs_dropped += 1;
            return Ok(());
        }
        drop(marks);
        self.sink.log(level, line);
        Ok(())
    }
}

fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most { text } else { &text[..text.floor_char_boundary(most)] }
}
