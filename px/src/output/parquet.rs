//! Parquet, compressed with zstd.

use std::io::Write;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::error::{Code, Error, Result};

use super::single::Sink;
use super::{Head, Summary};

pub struct Parquet<W: Write + Send> {
    out: Option<W>,
    writer: Option<ArrowWriter<W>>,
}

impl<W: Write + Send> Parquet<W> {
    pub fn new(out: W) -> Self {
        Parquet { out: Some(out), writer: None }
    }
}

fn failed(error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => (*source).into(),
            Err(other) => Error::new(Code::Io, format!("cannot write the result: {other}")),
        },
        other => Error::new(Code::Io, format!("cannot write the result: {other}")),
    }
}

impl<W: Write + Send> Sink for Parquet<W> {
    fn begin(&mut self, head: &Head) -> Result<()> {
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        if let Some(out) = self.out.take() {
            self.writer = Some(ArrowWriter::try_new(out, head.schema.clone(), Some(properties)).map_err(failed)?);
        }
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.as_mut().map_or(Ok(()), |writer| writer.write(batch).map_err(failed))
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, _summary: &Summary) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let mut out = writer.into_inner().map_err(failed)?;
        Ok(out.flush()?)
    }
}
