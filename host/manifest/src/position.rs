//! Where in `plugin.toml` a key is. serde forgets it; the document is walked again, only when something is wrong.

use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A place in a text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The whole text.
    pub text: String,
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Position {
    /// The byte `at` of `text`; beyond its end is its end.
    pub fn of_byte(text: &str, at: usize) -> Self {
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { text: text.to_owned(), line: number(line), column: number(column) }
    }

    /// The key `path` (`args[2].type`) of a TOML document: the key itself, or the nearest thing above it that is there.
    pub fn of_key(text: &str, path: &str) -> Option<Self> {
        let document = DeTable::parse(text).ok()?;
        let mut span = document.span();
        let mut here = Here::Table(document.get_ref());
        for step in steps(path) {
            let Some((found, next)) = here.step(step) else { break };
            span = found;
            match next {
                DeValue::Table(table) => here = Here::Table(table),
                DeValue::Array(list) => here = Here::List(list),
                _ => break,
            }
        }
        Some(Self::of_byte(text, span.start))
    }
}

enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '[']).filter(|part| !part.is_empty()).map(|part| match part.strip_suffix(']') {
        Some(index) => index.parse().map_or(Step::Key(part), Step::Index),
        None => Step::Key(part),
    })
}

enum Here<'d, 'i> {
    Table(&'d DeTable<'i>),
    List(&'d [toml::Spanned<DeValue<'i>>]),
}

impl<'d, 'i> Here<'d, 'i> {
    fn step(&self, step: Step<'_>) -> Option<(Range<usize>, &'d DeValue<'i>)> {
        match (self, step) {
            (Here::Table(table), Step::Key(name)) => {
                let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
                Some((key.span(), value.get_ref()))
            }
            (Here::List(list), Step::Index(index)) => list.get(index).map(|value| (value.span(), value.get_ref())),
            _ => None,
        }
    }
}
