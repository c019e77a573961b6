//! What the commands that list things have in common.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::error::Result;
use crate::output::grid::Grid;
use crate::style::Terminal;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ListFormat {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// One document.
    Json,
    /// One object per line.
    Ndjson,
}

#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Output format: table, json, ndjson
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    pub output: ListFormat,

    /// Leave out the line with the columns' names
    #[arg(long)]
    pub no_headers: bool,
}

impl ListArgs {
    /// Prints a list: `name` is its key in the JSON document.
    pub fn print(&self, terminal: &Terminal, name: &str, items: Vec<Value>, grid: impl FnOnce() -> Grid) -> Result<()> {
        let mut text = String::new();
        match self.output {
            ListFormat::Json => text = format!("{:#}\n", json!({ name: items })),
            ListFormat::Ndjson => items.iter().for_each(|item| text.push_str(&format!("{item}\n"))),
            ListFormat::Table => {
                let grid = grid();
                let layout = grid.layout(terminal.size().map(|(width, _)| width));
                if !self.no_headers {
                    grid.header(&layout, terminal.out, &mut text);
                }
                grid.body(&layout, terminal.out, 0..grid.rows(), &mut text);
            }
        }
        print(&text)
    }
}

/// To stdout, where a closed pipe is an error that ends the command quietly, not a panic.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
