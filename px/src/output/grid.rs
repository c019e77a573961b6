//! Lays out columns of text: widths, alignment, what does not fit.

use crate::style::{Style, Tone};

use super::text::{truncate, width};

/// Between two columns.
const GAP: usize = 2;
/// A text column is not squeezed below this: less says nothing.
const TEXT_WIDTH_MIN: usize = 10;
/// A long header alone does not keep a column wider than this.
const HEADER_WIDTH_KEPT: usize = 18;
/// More room than this for rows to come would only pull columns apart.
const TEXT_GROWTH_MAX: usize = 24;

/// Rows of cells, in one buffer.
#[derive(Debug, Default, Clone)]
pub struct Grid {
    columns: Vec<Column>,
    text: String,
    cells: Vec<Cell>,
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    right: bool,
    /// Widest cell so far, the header included.
    width: usize,
    /// Narrowest and widest cell so far, without the header.
    cells: Option<(usize, usize)>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    end: usize,
    width: usize,
    tone: Tone,
}

/// How wide each column is shown; `None` for those that are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub widths: Vec<Option<usize>>,
    /// The terminal's width. Without one nothing is ever cut: a file has room.
    max: Option<usize>,
}

impl Grid {
    /// Columns by name; `true` aligns right.
    pub fn new<N: Into<String>>(columns: impl IntoIterator<Item = (N, bool)>) -> Self {
        let columns = columns
            .into_iter()
            .map(|(name, right)| {
                let name = name.into();
                Column { width: width(&name), name, right, cells: None }
            })
            .collect();
        Grid { columns, ..Grid::default() }
    }

    /// The next cell of the current row.
    pub fn push(&mut self, text: &str, tone: Tone) {
        self.text.push_str(text);
        self.close(tone);
    }

    fn close(&mut self, tone: Tone) {
        let start = self.cells.last().map_or(0, |cell| cell.end);
        let width = width(&self.text[start..]);
        let column = self.cells.len() % self.columns.len();
        let column = &mut self.columns[column];
        column.width = column.width.max(width);
        let (narrowest, widest) = column.cells.unwrap_or((width, width));
        column.cells = Some((narrowest.min(width), widest.max(width)));
        self.cells.push(Cell { end: self.text.len(), width, tone });
    }

    /// A whole row of plain cells.
    #[cfg(test)]
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        for cell in cells {
            self.push(cell.as_ref(), Tone::Plain);
        }
    }

    pub fn rows(&self) -> usize {
        self.cells.len().checked_div(self.columns.len()).unwrap_or(0)
    }

    /// Drops the rows, keeps the columns and how wide they have become.
    pub fn clear(&mut self) {
        self.text.clear();
        self.cells.clear();
    }

    /// Widths that fit into `max` columns of a terminal: long text is squeezed first, the widest most; what still does not
    /// fit is left out from the right.
    pub fn layout(&self, max: Option<usize>) -> Layout {
        let mut widths: Vec<Option<usize>> = self.columns.iter().map(|c| Some(c.width)).collect();
        let Some(max) = max else { return Layout { widths, max } };
        let least = |column: &Column| match column.right {
            true => column.width,
            false => column.width.min(TEXT_WIDTH_MIN.max(width(&column.name).min(HEADER_WIDTH_KEPT))),
        };
        let mut shown = self.columns.len();
        let needs = |shown: usize| -> usize {
            self.columns[..shown].iter().map(least).sum::<usize>() + GAP * shown.saturating_sub(1)
        };
        while shown > 1 && needs(shown) > max {
            shown -= 1;
        }
        widths[shown..].fill(None);
        let total = |cap: usize| -> usize {
            self.columns[..shown].iter().map(|c| c.width.min(cap.max(least(c)))).sum::<usize>()
                + GAP * shown.saturating_sub(1)
        };
        let widest = self.columns[..shown].iter().map(|c| c.width).max().unwrap_or(0);
        // The largest cap that fits: `total` grows with the cap.
        let (mut low, mut high) = (0, widest);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if total(middle) <= max {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        for (slot, column) in widths.iter_mut().zip(&self.columns[..shown]) {
            *slot = Some(column.width.min(low.max(least(column))));
        }
        // Rounding may leave a few columns of the terminal: the last text column takes them.
        let used: usize = widths.iter().flatten().sum::<usize>() + GAP * shown.saturating_sub(1);
        let spare = max.saturating_sub(used);
        let squeezed = widths.iter_mut().zip(&self.columns).rev();
        if let Some((Some(slot), column)) = squeezed.filter(|(w, c)| w.is_some_and(|w| w < c.width)).next() {
            *slot = column.width.min(*slot + spare);
        }
        if shown == 1 {
            widths[0] = widths[0].map(|w| w.min(max));
        }
        Layout { widths, max: Some(max) }
    }

    /// As [`Grid::layout`], with what room there is given to texts that differ from row to row: for rows that are still to
    /// come and may be longer.
    pub fn layout_to_grow(&self, max: Option<usize>) -> Layout {
        let mut layout = self.layout(max);
        let Some(max) = max else { return layout };
        let shown = layout.widths.iter().flatten();
        let used = shown.clone().sum::<usize>() + GAP * shown.count().saturating_sub(1);
        let grows =
            |column: &Column| !column.right && column.cells.is_none_or(|(narrow, wide)| narrow != wide || wide == 0);
        let growing = layout.widths.iter().zip(&self.columns).filter(|(w, c)| w.is_some() && grows(c)).count();
        let each = max.saturating_sub(used).checked_div(growing).unwrap_or(0).min(TEXT_GROWTH_MAX);
        for (slot, column) in layout.widths.iter_mut().zip(&self.columns) {
            if let Some(width) = slot.as_mut().filter(|_| grows(column)) {
                *width += each;
            }
        }
        layout
    }

    /// Whether a number would be cut, or a text for which there is room by now: then a new layout is worth a new header.
    pub fn outgrows(&self, layout: &Layout) -> bool {
        let Some(max) = layout.max else { return false };
        let next = self.layout(Some(max));
        let both = layout.widths.iter().zip(&next.widths).zip(&self.columns);
        both.into_iter().any(|((old, new), column)| match (old, new) {
            (Some(old), Some(new)) => new > old && column.cells.is_some_and(|(_, widest)| widest > *old),
            _ => false,
        })
    }

    /// Names of the columns that a layout leaves out.
    pub fn hidden(&self, layout: &Layout) -> Vec<&str> {
        let out = layout.widths.iter().zip(&self.columns).filter(|(w, _)| w.is_none());
        out.map(|(_, column)| column.name.as_str()).collect()
    }

    pub fn header(&self, layout: &Layout, style: Style, out: &mut String) {
        let cells = self.columns.iter().map(|c| (c.name.as_str(), width(&c.name), Tone::Bold));
        self.line(layout, style, cells, out);
    }

    /// Rows `from..to`, one line each.
    pub fn body(&self, layout: &Layout, style: Style, rows: std::ops::Range<usize>, out: &mut String) {
        let n = self.columns.len();
        for row in rows {
            let cells = (row * n..(row + 1) * n).map(|at| {
                let start = at.checked_sub(1).map_or(0, |before| self.cells[before].end);
                let cell = self.cells[at];
                (&self.text[start..cell.end], cell.width, cell.tone)
            });
            self.line(layout, style, cells, out);
        }
    }

    fn line<'a>(
        &self,
        layout: &Layout,
        style: Style,
        cells: impl Iterator<Item = (&'a str, usize, Tone)>,
        out: &mut String,
    ) {
        let last = layout.widths.iter().rposition(Option::is_some).unwrap_or(0);
        for (n, (text, text_width, tone)) in cells.enumerate() {
            let Some(width) = layout.widths[n] else { continue };
            let cut;
            let (text, text_width) = if text_width > width && layout.max.is_some() {
                cut = truncate(text, width);
                (cut.as_ref(), super::text::width(&cut))
            } else {
                (text, text_width)
            };
            let pad = width.saturating_sub(text_width);
            if self.columns[n].right {
                spaces(out, pad);
            }
            let (on, off) = style.codes(tone);
            out.push_str(on);
            out.push_str(text);
            out.push_str(off);
            if n != last {
                spaces(out, GAP + if self.columns[n].right { 0 } else { pad });
            }
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }

    /// The whole grid.
    pub fn render(&self, max: Option<usize>, style: Style) -> String {
        let layout = self.layout(max);
        let mut out = String::new();
        self.header(&layout, style, &mut out);
        self.body(&layout, style, 0..self.rows(), &mut out);
        out
    }
}

fn spaces(out: &mut String, n: usize) {
    const BLANK: &str = "                                                                ";
    let mut n = n;
    while n > 0 {
        let k = n.min(BLANK.len());
        out.push_str(&BLANK[..k]);
        n -= k;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new([("time_", false), ("status", true), ("path", false), ("latency", true)]);
        grid.row(["12:00:00.001", "200", "/api/v1/orders/12345678901234567890", "1.23 ms"]);
        grid.row(["12:00:00.002", "503", "/短", "12.3 s"]);
        grid
    }

    #[test]
    fn everything_is_shown_where_there_is_room() {
        insta::assert_snapshot!(grid().render(None, Style::plain()), @r"
        time_         status  path                                 latency
        12:00:00.001     200  /api/v1/orders/12345678901234567890  1.23 ms
        12:00:00.002     503  /短                                   12.3 s
        ");
    }

    #[test]
    fn long_text_gives_way_first() {
        let text = grid().render(Some(50), Style::plain());
        insta::assert_snapshot!(text, @r"
        time_         status  path                 latency
        12:00:00.001     200  /api/v1/orders/123…  1.23 ms
        12:00:00.002     503  /短                   12.3 s
        ");
        assert!(text.lines().all(|line| width(line) <= 50));
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out_by_name() {
        let grid = grid();
        for max in 1..60 {
            let layout = grid.layout(Some(max));
            let mut out = String::new();
            grid.header(&layout, Style::plain(), &mut out);
            grid.body(&layout, Style::plain(), 0..2, &mut out);
            assert!(out.lines().all(|line| width(line) <= max), "{max}: {out}");
        }
        let layout = grid.layout(Some(30));
        assert_eq!(grid.hidden(&layout), ["latency"]);
    }

    #[test]
    fn rows_that_come_later_have_room_and_numbers_are_never_cut() {
        let mut grid = grid();
        let layout = grid.layout_to_grow(Some(100));
        grid.clear();
        grid.row(["12:00:00.003", "200", "/api/v1/orders/12345678901234567890/and/more", "1.23 ms"]);
        assert!(!grid.outgrows(&layout), "{layout:?}");
        grid.row(["12:00:00.003", "200", "/", "123456789 ms"]);
        assert!(grid.outgrows(&layout));
    }

    #[test]
    fn nothing_is_cut_where_there_is_no_terminal() {
        let mut grid = grid();
        let layout = grid.layout(None);
        grid.clear();
        let long = "x".repeat(200);
        grid.row(["12:00:00.003", "200", &long, "1.23 ms"]);
        let mut out = String::new();
        grid.body(&layout, Style::plain(), 0..1, &mut out);
        assert!(out.contains(&long));
    }

    #[test]
    fn no_columns_and_no_rows_are_no_trouble() {
        assert_eq!(Grid::new(Vec::<(String, bool)>::new()).render(Some(10), Style::plain()), "\n");
        assert_eq!(Grid::new([("a", false)]).render(Some(10), Style::plain()), "a\n");
    }
}
