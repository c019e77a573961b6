//! Results on their way out: one writer per format, all behind [`Writer`].
//!
//! stdout carries data and nothing else. Text that came from captured traffic is hostile: it is made printable before it
//! reaches a terminal ([`text::sanitize`]).

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::ValueEnum;
use host_manifest::View;

use crate::error::{Error, Result};
use crate::style::Terminal;

pub mod arrow_ipc;
pub mod cells;
pub mod csv;
pub mod directory;
pub mod grid;
pub mod human;
pub mod json;
pub mod live;
pub mod meaning;
pub mod ndjson;
pub mod parquet;
pub mod single;
pub mod table;
pub mod text;

#[cfg(test)]
pub mod sample;
#[cfg(test)]
mod tests;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns with units, for people.
    Table,
    /// One document: {"tables": {name: [row, …]}, "complete": …, "statistics": …}.
    Json,
    /// One row per line as it arrives, each with its table in `_table`.
    Ndjson,
    /// With a header; one table, or a file per table with -d.
    Csv,
    /// Arrow IPC stream; one table, or a file per table with -d.
    Arrow,
    /// One table, or a file per table with -d.
    Parquet,
}

impl Format {
    pub const fn extension(self) -> &'static str {
        match self {
            Format::Table => "txt",
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
            Format::Arrow => "arrow",
            Format::Parquet => "parquet",
        }
    }

    /// Errors and notes are machine-readable too.
    pub const fn for_programs(self) -> bool {
        matches!(self, Format::Json | Format::Ndjson)
    }

    pub const fn binary(self) -> bool {
        matches!(self, Format::Arrow | Format::Parquet)
    }
}

/// A table of the result, as its first message announced it.
#[derive(Debug, Clone)]
pub struct Head {
    pub name: String,
    pub schema: SchemaRef,
    /// With `--follow`: rounds count up, and a head with a higher round replaces the table.
    pub round: u64,
    /// How its author wants it shown to people.
    pub view: Option<Arc<View>>,
    /// The person said which columns; the view does not take any away.
    pub columns_chosen: bool,
}

/// What is known when a round or the whole run is over.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub complete: bool,
    /// As [`crate::query::completeness`] and [`crate::query::statistics`] render them for programs.
    pub completeness: serde_json::Value,
    pub statistics: serde_json::Value,
    pub error: Option<serde_json::Value>,
    /// The run ended early and the person said beforehand that what there is will do.
    pub will_do: bool,
    /// The remarks of [`crate::query::completeness`] in words; a display that redraws shows them itself.
    pub notes: Vec<String>,
}

/// Takes a result apart into bytes. Tables are numbered in the order of their heads within a round.
pub trait Writer {
    fn table(&mut self, table: usize, head: &Head) -> Result<()>;
    fn batch(&mut self, table: usize, batch: RecordBatch) -> Result<()>;
    /// One round of `--follow` is complete.
    fn round(&mut self, _summary: &Summary) -> Result<()> {
        Ok(())
    }
    /// Nothing comes after this; also called when the run failed after it had begun.
    fn finish(&mut self, summary: &Summary) -> Result<()>;
    /// Whether the writer shows notes itself, so that they must not be printed over its display.
    fn shows_notes(&self) -> bool {
        false
    }
}

/// Takes everything and gives nothing: what is left when the real writer has been put away.
pub struct Nothing;

impl Writer for Nothing {
    fn table(&mut self, _table: usize, _head: &Head) -> Result<()> {
        Ok(())
    }

    fn batch(&mut self, _table: usize, _batch: RecordBatch) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, _summary: &Summary) -> Result<()> {
        Ok(())
    }
}

/// How a result is wanted.
#[derive(Debug, Clone)]
pub struct Options {
    pub format: Format,
    pub headers: bool,
    pub follow: bool,
    /// It is known that new rows are wanted, not results that replace one another.
    pub tail: bool,
    /// `--table` was given, or the query can only have one.
    pub one_table: bool,
    /// Where a file per table goes.
    pub directory: Option<std::path::PathBuf>,
    /// What is run, for titles.
    pub title: String,
}

/// The writer for these options, to stdout or into a directory.
pub fn open(options: &Options, terminal: &Terminal) -> Result<Box<dyn Writer>> {
    check(options, terminal)?;
    if let Some(directory) = &options.directory {
        return Ok(Box::new(directory::Files::create(directory, options, *terminal)?));
    }
    if options.format == Format::Table && options.follow && terminal.out_tty {
        return Ok(Box::new(live::Live::new(std::io::stdout(), *terminal, options)));
    }
    // Line buffering would cost a system call per row; flushing at each round and at the end is what is needed.
    let out = std::io::BufWriter::with_capacity(OUT_BUFFER_BYTES, std::io::stdout());
    to(options, out, terminal)
}

/// Large enough that a result of 10,000 rows takes tens of writes, small enough to stay in the L2 cache.
const OUT_BUFFER_BYTES: usize = 128 << 10;

/// The writer for these options into `out`.
pub fn to(options: &Options, out: impl Write + Send + 'static, terminal: &Terminal) -> Result<Box<dyn Writer>> {
    Ok(match options.format {
        Format::Table => Box::new(table::Tables::new(out, terminal.out, terminal.size().map(|(w, _)| w), options)),
        Format::Json => Box::new(json::Document::new(out)),
        Format::Ndjson => Box::new(ndjson::Lines::new(out, options)),
        Format::Csv => Box::new(single::Single::new(csv::Csv::new(out, options.headers), options)),
        Format::Arrow => Box::new(single::Single::new(arrow_ipc::Stream::new(out), options)),
        Format::Parquet => Box::new(single::Single::new(parquet::Parquet::new(out), options)),
    })
}

fn check(options: &Options, terminal: &Terminal) -> Result<()> {
    let name = options.format.extension();
    if options.follow && matches!(options.format, Format::Json | Format::Parquet) {
        return Err(Error::usage(format!("-o {name} has an end, --follow has none"))
            .hint("use -o ndjson, which gives each row as it arrives"));
    }
    if options.follow && options.directory.is_some() {
        return Err(Error::usage("--follow writes to stdout, not into a directory")
            .hint("leave -d out, and redirect stdout to a file"));
    }
    if options.format.binary() && options.directory.is_none() && terminal.out_tty {
        return Err(Error::usage(format!("-o {name} is binary and stdout is a terminal"))
            .hint(format!("redirect it (> result.{name}), or write a file per table with -d DIR")));
    }
    Ok(())
}
