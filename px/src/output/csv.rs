//! Comma-separated values as RFC 4180 has them, lines ended by a line feed.

use std::io::Write;

use arrow::array::RecordBatch;

use crate::error::Result;

use super::cells::columns;
use super::single::Sink;
use super::{Head, Summary};

pub struct Csv<W> {
    out: W,
    headers: bool,
    line: String,
    cell: String,
}

impl<W: Write> Csv<W> {
    pub fn new(out: W, headers: bool) -> Self {
        Csv { out, headers, line: String::new(), cell: String::new() }
    }
}

fn field(line: &mut String, text: &str) {
    if text.bytes().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r')) {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(text);
    }
}

impl<W: Write> Sink for Csv<W> {
    fn begin(&mut self, head: &Head) -> Result<()> {
        if !self.headers {
            return Ok(());
        }
        self.line.clear();
        for (n, column) in head.schema.fields().iter().enumerate() {
            if n > 0 {
                self.line.push(',');
            }
            field(&mut self.line, column.name());
        }
        self.line.push('\n');
        Ok(self.out.write_all(self.line.as_bytes())?)
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = columns(batch)?;
        for row in 0..batch.num_rows() {
            self.line.clear();
            for (n, column) in columns.iter().enumerate() {
                if n > 0 {
                    self.line.push(',');
                }
                self.cell.clear();
                column.plain(row, &mut self.cell);
                if self.cell.is_empty() && !column.is_null(row) {
                    // So that an empty text and no value at all stay apart.
                    self.line.push_str("\"\"");
                } else {
                    field(&mut self.line, &self.cell);
                }
            }
            self.line.push('\n');
            self.out.write_all(self.line.as_bytes())?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }

    fn finish(&mut self, _summary: &Summary) -> Result<()> {
        self.flush()
    }
}
