//! The result of one run, kept whole, to be shown and compared with the next.

use std::io::Write;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;

use crate::error::Result;
use crate::output::{self, Format, Head, Options, Summary, Writer};
use crate::style::{Style, Terminal, Tone};

/// Lines of a comparison that are shown; more is not read.
const SHOWN_MAX: usize = 100;
/// Rows up to which the order of lines counts. The comparison takes their product of steps.
const ORDERED_MAX: usize = 2_000;

/// Tables, in the order they came.
#[derive(Default)]
pub struct Outcome {
    tables: Vec<(Head, Vec<RecordBatch>)>,
}

/// Takes a result for an [`Outcome`]. What it holds is bounded by the rows that the run was allowed.
#[derive(Clone, Default)]
pub struct Keeper(Arc<Mutex<Outcome>>);

impl Keeper {
    /// What was kept.
    pub fn take(&self) -> Outcome {
        std::mem::take(&mut self.0.lock().expect("no panic while it is held"))
    }
}

impl Writer for Keeper {
    fn table(&mut self, _table: usize, head: &Head) -> Result<()> {
        self.0.lock().expect("no panic while it is held").tables.push((head.clone(), Vec::new()));
        Ok(())
    }

    fn batch(&mut self, table: usize, batch: RecordBatch) -> Result<()> {
        self.0.lock().expect("no panic while it is held").tables[table].1.push(batch);
        Ok(())
    }

    fn finish(&mut self, _summary: &Summary) -> Result<()> {
        Ok(())
    }
}

/// Bytes that can be read once the writer is done.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while it is held").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Outcome {
    /// As people read it.
    pub fn render(&self, terminal: &Terminal) -> Result<String> {
        let all: Vec<_> = self.tables.iter().collect();
        write(&all, Format::Table, terminal)
    }

    /// What is different from the result before: `-` was, `+` is. Empty when nothing is.
    pub fn changes(&self, before: &Outcome, style: Style) -> Result<String> {
        let mut text = String::new();
        let (was, is) = (before.lines()?, self.lines()?);
        let none = Vec::new();
        let names = was.iter().chain(is.iter().filter(|(name, _)| !was.iter().any(|(other, _)| other == name)));
        for (name, _) in names {
            let of =
                |all: &[(String, Vec<String>)]| all.iter().find(|(n, _)| n == name).map(|(_, lines)| lines.clone());
            let (old, new) = (of(&was), of(&is));
            let changes = compare(old.as_ref().unwrap_or(&none), new.as_ref().unwrap_or(&none));
            if changes.is_empty() {
                continue;
            }
            let (gone, come) = (changes.iter().filter(|c| !c.new).count(), changes.iter().filter(|c| c.new).count());
            let head = match (old.is_some(), new.is_some()) {
                (true, false) => "is no longer shown".to_owned(),
                (false, true) => "is new".to_owned(),
                _ => format!("{gone} lines less, {come} more"),
            };
            text.push_str(&format!("{} {}\n", style.bold(name), style.dim(&head)));
            for change in changes.iter().take(SHOWN_MAX) {
                let (sign, tone) = if change.new { ("+", Tone::Good) } else { ("-", Tone::Bad) };
                text.push_str(&style.paint(tone, &format!("{sign} {}", crate::output::text::sanitize(change.line))));
                text.push('\n');
            }
            if changes.len() > SHOWN_MAX {
                text.push_str(&style.dim(&format!("… and {} more\n", changes.len() - SHOWN_MAX)));
            }
        }
        Ok(text)
    }

    /// Each table's columns and rows, one line each.
    fn lines(&self) -> Result<Vec<(String, Vec<String>)>> {
        let plain = Terminal {
            out: Style::plain(),
            err: Style::plain(),
            out_tty: false,
            err_tty: false,
            quiet: true,
            verbose: 0,
        };
        let table = |table: &(Head, Vec<RecordBatch>)| {
            let text = write(&[table], Format::Csv, &plain)?;
            Ok((table.0.name.clone(), text.lines().map(str::to_owned).collect()))
        };
        self.tables.iter().map(table).collect()
    }
}

fn write(tables: &[&(Head, Vec<RecordBatch>)], format: Format, terminal: &Terminal) -> Result<String> {
    let options = Options {
        format,
        headers: true,
        follow: false,
        tail: false,
        one_table: tables.len() == 1,
        directory: None,
        title: String::new(),
    };
    let text = Text::default();
    let mut writer = output::to(&options, text.clone(), terminal)?;
    for (n, (head, _)) in tables.iter().enumerate() {
        writer.table(n, head)?;
    }
    for (n, (_, batches)) in tables.iter().enumerate() {
        for batch in batches {
            writer.batch(n, batch.clone())?;
        }
    }
    writer.finish(&Summary { complete: true, ..Summary::default() })?;
    drop(writer);
    let bytes = std::mem::take(&mut *text.0.lock().expect("no panic while it is held"));
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[derive(Debug, PartialEq, Eq)]
struct Change<'t> {
    line: &'t str,
    new: bool,
}

/// The fewest lines taken away and added that make one text of the other.
fn compare<'t>(old: &'t [String], new: &'t [String]) -> Vec<Change<'t>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    if old.len() > ORDERED_MAX || new.len() > ORDERED_MAX {
        return unordered(old, new);
    }
    // Longest common subsequence, from the end, so that walking it goes forwards.
    let width = new.len() + 1;
    let mut common = vec![0u16; (old.len() + 1) * width];
    for a in (0..old.len()).rev() {
        for b in (0..new.len()).rev() {
            common[a * width + b] = match old[a] == new[b] {
                true => common[(a + 1) * width + b + 1] + 1,
                false => common[(a + 1) * width + b].max(common[a * width + b + 1]),
            };
        }
    }
    let (mut a, mut b) = (0, 0);
    let mut changes = Vec::new();
    while a < old.len() || b < new.len() {
        if a < old.len() && b < new.len() && old[a] == new[b] {
            (a, b) = (a + 1, b + 1);
        } else if b == new.len() || a < old.len() && common[(a + 1) * width + b] >= common[a * width + b + 1] {
            changes.push(Change { line: &old[a], new: false });
            a += 1;
        } else {
            changes.push(Change { line: &new[b], new: true });
            b += 1;
        }
    }
    changes
}

/// For large results: which lines are there, in whatever order.
fn unordered<'t>(old: &'t [String], new: &'t [String]) -> Vec<Change<'t>> {
    let mut count: std::collections::HashMap<&str, i64> = std::collections::HashMap::new();
    new.iter().for_each(|line| *count.entry(line).or_default() += 1);
    let mut changes = Vec::new();
    for line in old {
        match count.get_mut(line.as_str()) {
            Some(left) if *left > 0 => *left -= 1,
            _ => changes.push(Change { line, new: false }),
        }
    }
    for line in new {
        if let Some(left) = count.get_mut(line.as_str()).filter(|left| **left > 0) {
            *left -= 1;
            changes.push(Change { line, new: true });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(old: &str, new: &str) -> String {
        let lines = |text: &str| text.split(' ').filter(|l| !l.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let (old, new) = (lines(old), lines(new));
        compare(&old, &new)
            .iter()
            .map(|c| format!("{}{}", if c.new { '+' } else { '-' }, c.line))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_fewest_changes() {
        for (old, new, expected) in [
            ("", "", ""),
            ("a b c", "a b c", ""),
            ("a b c", "a x c", "-b +x"),
            ("a b", "a b c", "+c"),
            ("a b c", "b c", "-a"),
            ("a b c d", "b c d e", "-a +e"),
            ("", "a", "+a"),
            ("a a", "a", "-a"),
        ] {
            assert_eq!(changes(old, new), expected, "{old} | {new}");
        }
    }

    #[test]
    fn large_results_are_compared_without_order() {
        let old: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
        let mut new: Vec<String> = old.iter().rev().cloned().collect();
        new[7] = "x".into();
        let found = compare(&old, &new);
        assert_eq!(found.len(), 2);
        assert!(
            found.contains(&Change { line: "4992", new: false }) && found.contains(&Change { line: "x", new: true })
        );
    }

    #[test]
    fn tables_are_compared_by_name() {
        let outcome = |tables: &[(&str, Vec<i64>)]| {
            let mut keeper = Keeper::default();
            for (n, (name, values)) in tables.iter().enumerate() {
                let column = Arc::new(arrow::array::Int64Array::from(values.clone())) as arrow::array::ArrayRef;
                let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
                let head =
                    Head { name: (*name).into(), schema: batch.schema(), round: 0, view: None, columns_chosen: false };
                keeper.table(n, &head).unwrap();
                keeper.batch(n, batch).unwrap();
            }
            keeper.take()
        };
        let (was, is) = (outcome(&[("a", vec![1, 2]), ("b", vec![1])]), outcome(&[("c", vec![7]), ("a", vec![1, 3])]));
        assert_eq!(is.changes(&is, Style::plain()).unwrap(), "");
        let text = is.changes(&was, Style::plain()).unwrap();
        assert_eq!(text, "a 1 lines less, 1 more\n- 2\n+ 3\nb is no longer shown\n- n\n- 1\nc is new\n+ n\n+ 7\n");
    }
}
