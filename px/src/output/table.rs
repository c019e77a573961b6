//! Tables for people.

use std::io::Write;

use arrow::array::RecordBatch;

use crate::error::Result;
use crate::style::{Style, Tone};
use crate::when;

use super::cells;
use super::grid::{Grid, Layout};
use super::human::{Clock, plural};
use super::meaning::Meaning;
use super::text::{sanitize, truncate};
use super::{Head, Options, Summary, Writer};

/// Widths are chosen after this many rows at the latest, so that a long result begins to appear while it still arrives. Also
/// the default row limit of Vizier: an ordinary result is laid out as a whole.
const LAYOUT_ROWS_MAX: usize = 10_000;

/// Writes tables one after the other; each is laid out when its rows are known.
pub struct Tables<W> {
    out: W,
    style: Style,
    width: Option<usize>,
    headers: bool,
    follow: bool,
    tail: bool,
    tables: Vec<State>,
    printed: usize,
}

struct State {
    head: Head,
    pending: Vec<RecordBatch>,
    rows: usize,
    /// Set once the header has been printed.
    layout: Option<(Grid, Layout)>,
}

impl<W: Write> Tables<W> {
    pub fn new(out: W, style: Style, width: Option<usize>, options: &Options) -> Self {
        Tables {
            out,
            style,
            width,
            headers: options.headers,
            follow: options.follow,
            tail: options.tail,
            tables: Vec::new(),
            printed: 0,
        }
    }

    /// Prints what is pending of one table.
    fn flush_table(&mut self, table: usize) -> Result<()> {
        let titled = self.tables.len() > 1;
        let state = &mut self.tables[table];
        let pending = std::mem::take(&mut state.pending);
        if pending.is_empty() && (state.layout.is_some() || self.follow) {
            return Ok(());
        }
        let mut text = String::new();
        let shape = Shape::of(&state.head);
        let mut grid = match &state.layout {
            Some((grid, _)) => grid.clone(),
            None => shape.grid(&state.head)?,
        };
        for batch in &pending {
            shape.fill(&mut grid, batch, usize::MAX)?;
        }
        let first = state.layout.is_none();
        let layout = match state.layout.take() {
            // What came before is on the screen: the columns stay where they are.
            Some((_, layout)) => layout,
            None if self.follow => grid.layout_to_grow(self.width),
            None => grid.layout(self.width),
        };
        if first && titled {
            if self.printed > 0 {
                text.push('\n');
            }
            text.push_str(&self.style.paint(Tone::Accent, &title(&state.head)));
            text.push('\n');
        }
        if first && self.headers {
            grid.header(&layout, self.style, &mut text);
        }
        grid.body(&layout, self.style, 0..grid.rows(), &mut text);
        self.printed += 1;
        let hidden = grid.hidden(&layout);
        if first && !hidden.is_empty() {
            text.push_str(&self.style.dim(&hidden_note(&hidden, self.width.unwrap_or(0))));
            text.push('\n');
        }
        grid.clear();
        state.layout = Some((grid, layout));
        self.out.write_all(text.as_bytes())?;
        Ok(())
    }
}

impl<W: Write> Writer for Tables<W> {
    fn table(&mut self, table: usize, head: &Head) -> Result<()> {
        if self.tail && self.tables.get(table).is_some_and(|state| state.head.name == head.name) {
            return Ok(());
        }
        let state = State { head: head.clone(), pending: Vec::new(), rows: 0, layout: None };
        if table < self.tables.len() {
            // A new round of a query that is refreshed.
            self.tables[table] = state;
        } else {
            self.tables.push(state);
        }
        Ok(())
    }

    fn batch(&mut self, table: usize, batch: RecordBatch) -> Result<()> {
        let state = &mut self.tables[table];
        state.rows += batch.num_rows();
        state.pending.push(batch);
        // Tables appear in their order: only the first may begin before the end.
        if table == 0 && state.rows >= LAYOUT_ROWS_MAX && !self.follow && self.tables.len() == 1 {
            self.flush_table(0)?;
        }
        Ok(())
    }

    fn round(&mut self, _summary: &Summary) -> Result<()> {
        for table in 0..self.tables.len() {
            self.flush_table(table)?;
        }
        Ok(self.out.flush()?)
    }

    fn finish(&mut self, _summary: &Summary) -> Result<()> {
        for table in 0..self.tables.len() {
            self.flush_table(table)?;
        }
        Ok(self.out.flush()?)
    }
}

/// The line under a table that was too wide.
pub fn hidden_note(hidden: &[&str], width: usize) -> String {
    let all = hidden.join(", ");
    let head = format!("… {} not shown (--columns, -o json): ", plural(hidden.len() as u64, "column"));
    let room = width.saturating_sub(super::text::width(&head));
    format!("{head}{}", super::text::truncate(&all, room.max(10)))
}

/// Which columns of a table are shown, and how.
#[derive(Debug, Clone)]
pub struct Shape {
    columns: Vec<Shown>,
}

#[derive(Debug, Clone)]
struct Shown {
    index: usize,
    title: String,
    meaning: Option<Meaning>,
    width_max: Option<usize>,
}

impl Shape {
    /// As the view says, else all columns as they are.
    pub fn of(head: &Head) -> Shape {
        let schema = &head.schema;
        let viewed = |index: usize, column: Option<&host_manifest::Column>| Shown {
            index,
            title: match column {
                Some(column) if !column.title.is_empty() => sanitize(&column.title).into_owned(),
                _ => sanitize(schema.field(index).name()).into_owned(),
            },
            meaning: column.and_then(|column| column.format).map(Meaning::from),
            width_max: column.map(|column| usize::from(column.width)).filter(|width| *width > 0),
        };
        let named: &[host_manifest::Column] = head.view.as_ref().map_or(&[], |view| &view.columns);
        let columns: Vec<Shown> = if named.is_empty() || head.columns_chosen {
            let all = schema.fields().iter().enumerate();
            all.map(|(index, field)| viewed(index, named.iter().find(|column| column.name == *field.name()))).collect()
        } else {
            named.iter().filter_map(|column| Some(viewed(schema.index_of(&column.name).ok()?, Some(column)))).collect()
        };
        if columns.is_empty() {
            // A view that names none of the columns there are: better all than nothing.
            return Shape { columns: (0..schema.fields().len()).map(|index| viewed(index, None)).collect() };
        }
        Shape { columns }
    }

    /// An empty grid with these columns.
    pub fn grid(&self, head: &Head) -> Result<Grid> {
        let columns = cells::columns(&RecordBatch::new_empty(head.schema.clone()))?;
        Ok(Grid::new(self.columns.iter().map(|shown| (shown.title.clone(), columns[shown.index].right_aligned()))))
    }

    /// Appends at most `rows` rows of a batch; gives how many.
    pub fn fill(&self, grid: &mut Grid, batch: &RecordBatch, rows: usize) -> Result<usize> {
        let schema = batch.schema();
        let now_ns = when::now_ns();
        let mut columns = Vec::with_capacity(self.columns.len());
        for shown in &self.columns {
            let mut column = cells::Column::new(schema.field(shown.index), batch.column(shown.index))?;
            column.meaning = shown.meaning.unwrap_or(column.meaning);
            let clock = match column.time_range() {
                Some((oldest, newest)) => Clock::for_range(oldest, newest, now_ns),
                None => Clock::Full,
            };
            columns.push((column, clock, shown.width_max));
        }
        let rows = rows.min(batch.num_rows());
        let mut text = String::new();
        for row in 0..rows {
            for (column, clock, width_max) in &columns {
                let tone = match column.http_status(row) {
                    Some(500..) => Tone::Bad,
                    Some(400..) => Tone::Warn,
                    _ if column.is_null(row) => Tone::Dim,
                    _ => Tone::Plain,
                };
                text.clear();
                column.human(row, *clock, &mut text);
                match width_max {
                    Some(width) => grid.push(&truncate(&text, *width), tone),
                    None => grid.push(&text, tone),
                }
            }
        }
        Ok(rows)
    }
}

/// The heading of a table: its view's title, else its name.
pub fn title(head: &Head) -> String {
    let title = head.view.as_ref().map(|view| view.title.as_str()).filter(|title| !title.is_empty());
    sanitize(title.unwrap_or(&head.name)).into_owned()
}
