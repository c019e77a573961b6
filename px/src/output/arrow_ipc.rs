//! Arrow IPC: a stream on stdout, a file (which readers can map and seek in) on disk.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::writer::{FileWriter, StreamWriter};

use crate::error::{Code, Error, Result};

use super::cells::{schema_without_dictionaries, without_dictionaries};
use super::single::Sink;
use super::{Head, Summary};

pub struct Stream<W: Write> {
    out: Option<W>,
    writer: Option<StreamWriter<W>>,
}

impl<W: Write> Stream<W> {
    pub fn new(out: W) -> Self {
        Stream { out: Some(out), writer: None }
    }
}

/// An Arrow or Parquet error while writing; a closed pipe keeps its meaning.
pub fn failed(error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, source) => source.into(),
        other => Error::new(Code::Io, format!("cannot write the result: {other}")),
    }
}

impl<W: Write> Sink for Stream<W> {
    fn begin(&mut self, head: &Head) -> Result<()> {
        if let Some(out) = self.out.take() {
            self.writer = Some(StreamWriter::try_new(out, &head.schema).map_err(failed)?);
        }
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        // In a stream a dictionary may be replaced from batch to batch, so they travel as they came.
        self.writer.as_mut().map_or(Ok(()), |writer| writer.write(batch).map_err(failed))
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.as_mut().map_or(Ok(()), |writer| writer.flush().map_err(failed))
    }

    fn finish(&mut self, _summary: &Summary) -> Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        writer.finish().map_err(failed)?;
        Ok(writer.get_mut().flush()?)
    }
}

pub struct File<W: Write> {
    out: Option<W>,
    writer: Option<FileWriter<W>>,
}

impl<W: Write> File<W> {
    pub fn new(out: W) -> Self {
        File { out: Some(out), writer: None }
    }
}

impl<W: Write> Sink for File<W> {
    fn begin(&mut self, head: &Head) -> Result<()> {
        if let Some(out) = self.out.take() {
            let schema = schema_without_dictionaries(&head.schema);
            self.writer = Some(FileWriter::try_new(out, &schema).map_err(failed)?);
        }
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        // A file may hold one dictionary per column, each of our batches brings its own.
        let batch = without_dictionaries(batch)?;
        self.writer.as_mut().map_or(Ok(()), |writer| writer.write(&batch).map_err(failed))
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, _summary: &Summary) -> Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        writer.finish().map_err(failed)?;
        Ok(writer.get_mut().flush()?)
    }
}
