//! Formats that hold one table.

use arrow::array::RecordBatch;

use crate::error::{Error, Result};

use super::{Head, Options, Summary, Writer};

/// A format that holds one table.
pub trait Sink {
    fn begin(&mut self, head: &Head) -> Result<()>;
    fn batch(&mut self, batch: &RecordBatch) -> Result<()>;
    fn flush(&mut self) -> Result<()>;
    fn finish(&mut self, summary: &Summary) -> Result<()>;
}

/// As long as the first table is smaller than this, nothing is written: a second table would make the result unfit for the
/// format, and that is better said before half of it is in somebody's file.
const HELD_BYTES_MAX: usize = 8 << 20;

/// Gives a [`Sink`] the one table of a result, and refuses a second.
pub struct Single<S> {
    sink: S,
    extension: &'static str,
    follow: bool,
    head: Option<Head>,
    begun: bool,
    held: Vec<RecordBatch>,
    held_bytes: usize,
}

impl<S: Sink> Single<S> {
    pub fn new(sink: S, options: &Options) -> Self {
        Single {
            sink,
            extension: options.format.extension(),
            follow: options.follow,
            head: None,
            begun: false,
            held: Vec::new(),
            held_bytes: 0,
        }
    }

    fn release(&mut self) -> Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        if !std::mem::replace(&mut self.begun, true) {
            self.sink.begin(head)?;
        }
        self.held_bytes = 0;
        self.held.drain(..).try_for_each(|batch| self.sink.batch(&batch))
    }
}

impl<S: Sink> Writer for Single<S> {
    fn table(&mut self, table: usize, head: &Head) -> Result<()> {
        if table == 0 {
            // A later round of a refreshed query goes on below the first.
            self.head.get_or_insert_with(|| head.clone());
            return Ok(());
        }
        let first = self.head.as_ref().map_or("", |head| head.name.as_str());
        Err(Error::usage(format!(
            "-o {} holds one table, and the result has several: {first}, {}, …",
            self.extension, head.name
        ))
        .hint(format!("choose one with --table {first}, or write a file per table with -d DIR")))
    }

    fn batch(&mut self, _table: usize, batch: RecordBatch) -> Result<()> {
        self.held_bytes += batch.get_array_memory_size();
        self.held.push(batch);
        if self.begun || self.held_bytes > HELD_BYTES_MAX {
            self.release()?;
        }
        Ok(())
    }

    fn round(&mut self, _summary: &Summary) -> Result<()> {
        if self.follow {
            self.release()?;
            self.sink.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> Result<()> {
        self.release()?;
        if self.begun { self.sink.finish(summary) } else { Ok(()) }
    }
}
