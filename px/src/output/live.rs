//! `--follow` on a terminal: a table that is run again is redrawn in place, rows that are new are printed below.

use std::io::Write;

use arrow::array::RecordBatch;

use crate::error::Result;
use crate::style::{Terminal, Tone};

use super::grid::Grid;
use super::human::Clock;
use super::table::{Shape, hidden_note, title};
use super::{Head, Options, Summary, Writer, human, text};

/// Begins and ends an update that the terminal shows at once (synchronized output, mode 2026): no half-drawn frame is seen.
/// Terminals that do not know it ignore it.
const SYNC_ON: &str = "\x1b[?2026h";
const SYNC_OFF: &str = "\x1b[?2026l";
const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// A terminal that does not tell its size.
const SIZE_UNKNOWN: (usize, usize) = (100, 30);

pub struct Live<W: Write> {
    out: W,
    terminal: Terminal,
    headers: bool,
    title: String,
    tables: Vec<State>,
    /// Lines of the frame that is on the screen; the cursor stands below them.
    lines: usize,
    /// The tables were announced anew in this round: what is on the screen is replaced.
    replaced: bool,
    tail: bool,
    rounds: u64,
    size: Option<(usize, usize)>,
}

struct State {
    head: Head,
    batches: Vec<RecordBatch>,
    rows: usize,
    /// For rows that are printed below: the columns stay where they are.
    grid: Option<(Grid, super::grid::Layout)>,
}

impl<W: Write> Live<W> {
    pub fn new(out: W, terminal: Terminal, options: &Options) -> Self {
        Live {
            out,
            terminal,
            headers: options.headers,
            title: text::sanitize(&options.title).into_owned(),
            tables: Vec::new(),
            lines: 0,
            replaced: false,
            tail: options.tail,
            rounds: 0,
            size: None,
        }
    }

    #[cfg(test)]
    fn with_size(mut self, size: (usize, usize)) -> Self {
        self.size = Some(size);
        self
    }

    fn size(&self) -> (usize, usize) {
        self.size.or_else(|| self.terminal.size()).unwrap_or(SIZE_UNKNOWN)
    }

    /// The whole frame: at most one line less than the terminal is high, so that going up reaches its first line.
    fn frame(&self, summary: &Summary) -> Result<Vec<String>> {
        let (width, height) = self.size();
        let style = self.terminal.out;
        let mut clock = String::new();
        human::time_local(&mut clock, crate::when::now_ns(), Clock::TimeOfDay);
        clock.truncate(8);
        let status = format!("{}  {clock}  round {}  (Ctrl-C ends)", self.title, self.rounds);
        let mut lines = vec![style.dim(&text::truncate(&status, width))];
        for note in &summary.notes {
            lines.push(style.paint(Tone::Warn, &text::truncate(&text::sanitize(note), width)));
        }
        let room = height.saturating_sub(1 + lines.len());
        let each = (room / self.tables.len().max(1)).max(3);
        for state in &self.tables {
            let mut out = String::new();
            let titled = self.tables.len() > 1;
            if titled {
                out.push_str(&style.accent(&title(&state.head)));
                out.push('\n');
            }
            let around = usize::from(titled) + usize::from(self.headers);
            let fits = if state.rows + around <= each { state.rows } else { each.saturating_sub(around + 1) };
            let shape = Shape::of(&state.head);
            let mut grid = shape.grid(&state.head)?;
            let mut left = fits;
            for batch in &state.batches {
                left -= shape.fill(&mut grid, batch, left)?;
            }
            let layout = grid.layout(Some(width));
            if self.headers {
                grid.header(&layout, style, &mut out);
            }
            grid.body(&layout, style, 0..grid.rows(), &mut out);
            let mut more = Vec::new();
            if state.rows > fits {
                more.push(format!("… {} more", human::plural((state.rows - fits) as u64, "row")));
            }
            let hidden = grid.hidden(&layout);
            if !hidden.is_empty() {
                more.push(hidden_note(&hidden, width.saturating_sub(24)));
            }
            if !more.is_empty() {
                out.push_str(&style.dim(&text::truncate(&more.join("  "), width)));
                out.push('\n');
            }
            lines.extend(out.lines().map(str::to_owned));
        }
        lines.truncate(height.saturating_sub(1).max(1));
        Ok(lines)
    }

    fn redraw(&mut self, summary: &Summary) -> Result<()> {
        let lines = self.frame(summary)?;
        let mut out = String::from(SYNC_ON);
        out.push_str(HIDE_CURSOR);
        if self.lines > 0 {
            out.push_str(&format!("\x1b[{}F", self.lines));
        }
        for line in &lines {
            out.push_str(line);
            // Clear what an older, longer line left behind, instead of the whole screen before: that would flicker.
            out.push_str("\x1b[K\n");
        }
        out.push_str("\x1b[J");
        out.push_str(SYNC_OFF);
        self.lines = lines.len();
        self.out.write_all(out.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// New rows below what is there.
    fn append(&mut self) -> Result<()> {
        let (width, _) = self.size();
        let style = self.terminal.out;
        let mut out = String::new();
        let titled = self.tables.len() > 1;
        for state in &mut self.tables {
            let batches = std::mem::take(&mut state.batches);
            if batches.iter().all(|batch| batch.num_rows() == 0) {
                continue;
            }
            let shape = Shape::of(&state.head);
            let mut grid = match &state.grid {
                Some((grid, _)) => grid.clone(),
                None => shape.grid(&state.head)?,
            };
            for batch in &batches {
                shape.fill(&mut grid, batch, usize::MAX)?;
            }
            let (layout, same) = match state.grid.take() {
                Some((_, layout)) if !grid.outgrows(&layout) => (layout, true),
                _ => (grid.layout_to_grow(Some(width)), false),
            };
            if titled {
                out.push_str(&style.accent(&title(&state.head)));
                out.push('\n');
            }
            if self.headers && (!same || titled) {
                grid.header(&layout, style, &mut out);
            }
            grid.body(&layout, style, 0..grid.rows(), &mut out);
            grid.clear();
            state.grid = Some((grid, layout));
        }
        self.out.write_all(out.as_bytes())?;
        Ok(self.out.flush()?)
    }
}

impl<W: Write> Writer for Live<W> {
    fn table(&mut self, table: usize, head: &Head) -> Result<()> {
        if self.tail && self.tables.get(table).is_some_and(|state| state.head.name == head.name) {
            return Ok(());
        }
        let state = State { head: head.clone(), batches: Vec::new(), rows: 0, grid: None };
        if table == 0 {
            self.tables.clear();
        }
        self.tables.truncate(table);
        self.tables.push(state);
        self.replaced = true;
        Ok(())
    }

    fn batch(&mut self, table: usize, batch: RecordBatch) -> Result<()> {
        let state = &mut self.tables[table];
        state.rows += batch.num_rows();
        state.batches.push(batch);
        Ok(())
    }

    fn round(&mut self, summary: &Summary) -> Result<()> {
        self.rounds += 1;
        if std::mem::take(&mut self.replaced) && !self.tail { self.redraw(summary) } else { self.append() }
    }

    fn finish(&mut self, summary: &Summary) -> Result<()> {
        // A run that ended before its first round still has something to show.
        if self.rounds == 0 && !self.tables.is_empty() {
            self.redraw(summary)?;
        }
        Ok(self.out.flush()?)
    }

    fn shows_notes(&self) -> bool {
        true
    }
}

impl<W: Write> Drop for Live<W> {
    fn drop(&mut self) {
        let _ = self.out.write_all(SHOW_CURSOR.as_bytes());
        let _ = self.out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::output::Format;
    use crate::style::Style;

    fn live(out: &mut Vec<u8>, size: (usize, usize), tail: bool) -> Live<&mut Vec<u8>> {
        let plain = Style::plain();
        let terminal = Terminal { out: plain, err: plain, out_tty: true, err_tty: true, quiet: false, verbose: 0 };
        let options = Options {
            format: Format::Table,
            headers: true,
            follow: true,
            tail,
            one_table: false,
            directory: None,
            title: "http_requests".into(),
        };
        Live::new(out, terminal, &options).with_size(size)
    }

    #[test]
    fn a_new_round_replaces_the_frame_and_never_scrolls() {
        let mut out = Vec::new();
        let mut writer = live(&mut out, (60, 6), false);
        for round in 1..=2 {
            writer.table(0, &Head { round, ..sample::head() }).unwrap();
            for _ in 0..4 {
                writer.batch(0, sample::batch()).unwrap();
            }
            writer.round(&Summary { complete: true, ..Summary::default() }).unwrap();
        }
        drop(writer);
        let text = String::from_utf8(out).unwrap();
        let frames: Vec<&str> = text.split(SYNC_ON).skip(1).collect();
        assert_eq!(frames.len(), 2);
        assert!(frames.iter().all(|frame| frame.matches('\n').count() <= 5), "{text:?}");
        assert!(!frames[0].contains("\x1b[5F") && frames[1].contains("\x1b[5F"), "{text:?}");
        assert!(frames[1].contains("rows more"), "{text:?}");
        assert!(text.ends_with(SHOW_CURSOR));
    }

    #[test]
    fn rows_that_are_new_are_printed_below_without_a_second_header() {
        let mut out = Vec::new();
        let mut writer = live(&mut out, (200, 40), true);
        for round in 1..=3 {
            // Vizier announces its tables in each round.
            writer.table(0, &Head { round, ..sample::head() }).unwrap();
            if round < 3 {
                writer.batch(0, sample::batch()).unwrap();
            }
            writer.round(&Summary::default()).unwrap();
        }
        drop(writer);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("/a\\u{1b}[31m").count(), 2, "{text}");
        assert_eq!(text.matches("req_method").count(), 1, "{text}");
        assert_eq!(text.matches(SYNC_ON).count(), 0, "{text}");
    }
}
