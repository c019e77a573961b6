//! The whole result as one JSON document, with what is known about it.

use std::io::Write;

use arrow::array::RecordBatch;

use crate::error::Result;

use super::cells::{columns, quote};
use super::ndjson::{keys, object_rest};
use super::{Head, Summary, Writer};

/// Tables are kept as Arrow until the end: batches of several tables may arrive interleaved, a document has them one after
/// the other. Bounded by the rows and bytes that Vizier lets a run put out.
pub struct Document<W> {
    out: W,
    tables: Vec<(Head, Vec<RecordBatch>)>,
}

impl<W: Write> Document<W> {
    pub fn new(out: W) -> Self {
        Document { out, tables: Vec::new() }
    }
}

impl<W: Write> Writer for Document<W> {
    fn table(&mut self, table: usize, head: &Head) -> Result<()> {
        self.tables.truncate(table);
        self.tables.push((head.clone(), Vec::new()));
        Ok(())
    }

    fn batch(&mut self, table: usize, batch: RecordBatch) -> Result<()> {
        self.tables[table].1.push(batch);
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> Result<()> {
        let mut text = String::from("{\"tables\":{");
        for (n, (head, batches)) in self.tables.iter().enumerate() {
            text.push_str(if n == 0 { "\n" } else { ",\n" });
            quote(&head.name, &mut text);
            text.push_str(":[");
            let mut first = true;
            for batch in batches {
                let (keys, columns) = (keys(batch), columns(batch)?);
                for row in 0..batch.num_rows() {
                    text.push_str(if first { "\n{" } else { ",\n{" });
                    first = false;
                    object_rest(&mut text, &keys, &columns, row);
                }
                self.out.write_all(text.as_bytes())?;
                text.clear();
            }
            text.push_str(if first { "]" } else { "\n]" });
        }
        text.push_str(if self.tables.is_empty() { "}" } else { "\n}" });
        text.push_str(&format!(",\n\"complete\":{}", summary.complete));
        text.push_str(&format!(",\n\"completeness\":{}", summary.completeness));
        text.push_str(&format!(",\n\"statistics\":{}", summary.statistics));
        if let Some(error) = &summary.error {
            text.push_str(&format!(",\n\"error\":{error}"));
        }
        text.push_str("}\n");
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }
}
