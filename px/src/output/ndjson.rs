//! One JSON object per row, written as it arrives.

use std::io::Write;

use arrow::array::RecordBatch;

use crate::error::Result;

use super::cells::{Column, columns, quote};
use super::{Head, Options, Summary, Writer};

pub struct Lines<W> {
    out: W,
    /// Rows say which table they are of, unless there can be only one.
    name_tables: bool,
    follow: bool,
    heads: Vec<Head>,
    line: String,
}

impl<W: Write> Lines<W> {
    pub fn new(out: W, options: &Options) -> Self {
        Lines { out, name_tables: !options.one_table, follow: options.follow, heads: Vec::new(), line: String::new() }
    }
}

impl<W: Write> Writer for Lines<W> {
    fn table(&mut self, table: usize, head: &Head) -> Result<()> {
        self.heads.truncate(table);
        self.heads.push(head.clone());
        Ok(())
    }

    fn batch(&mut self, table: usize, batch: RecordBatch) -> Result<()> {
        let head = &self.heads[table];
        let columns = columns(&batch)?;
        let mut prefix = String::from("{");
        if self.name_tables {
            prefix.push_str("\"_table\":");
            quote(&head.name, &mut prefix);
        }
        if self.follow && head.round > 0 {
            if prefix.len() > 1 {
                prefix.push(',');
            }
            prefix.push_str(&format!("\"_round\":{}", head.round));
        }
        let keys = keys(&batch);
        for row in 0..batch.num_rows() {
            self.line.clear();
            self.line.push_str(&prefix);
            object_rest(&mut self.line, &keys, &columns, row);
            self.line.push('\n');
            self.out.write_all(self.line.as_bytes())?;
        }
        if self.follow {
            self.out.flush()?;
        }
        Ok(())
    }

    fn round(&mut self, _summary: &Summary) -> Result<()> {
        Ok(self.out.flush()?)
    }

    fn finish(&mut self, _summary: &Summary) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// The columns' names as JSON strings.
pub fn keys(batch: &RecordBatch) -> Vec<String> {
    let name = |name: &String| {
        let mut key = String::new();
        quote(name, &mut key);
        key
    };
    batch.schema().fields().iter().map(|field| name(field.name())).collect()
}

/// `"a":1,"b":2}` after the brace (and what may follow it) that is already in `out`.
pub fn object_rest(out: &mut String, keys: &[String], columns: &[Column], row: usize) {
    for (key, column) in keys.iter().zip(columns) {
        if !out.ends_with('{') {
            out.push(',');
        }
        out.push_str(key);
        out.push(':');
        column.json(row, out);
    }
    out.push('}');
}
