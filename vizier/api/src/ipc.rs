//! Arrow schemas and batches as the bytes the messages carry.
//!
//! `TableStarted::schema` and `Table::schema` are an Arrow IPC stream without batches; `Batch::ipc` is an Arrow IPC stream
//! of one batch, with its schema and dictionaries, so that any client can read it by itself.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;

/// A schema as an IPC stream without batches.
pub fn encode_schema(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    writer.finish()?;
    writer.into_inner()
}

/// The schema of an IPC stream.
pub fn decode_schema(bytes: &[u8]) -> Result<SchemaRef, ArrowError> {
    Ok(StreamReader::try_new(Cursor::new(bytes), None)?.schema())
}

/// A batch as an IPC stream of its own.
pub fn encode_batch(batch: &RecordBatch) -> Result<Bytes, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::with_capacity(1024), &batch.schema())?;
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner()?.into())
}

/// The batches of an IPC stream, usually one.
pub fn decode_batches(bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    StreamReader::try_new(Cursor::new(bytes), None)?.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int64Array};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn a_batch_with_a_dictionary_comes_back_the_same_by_itself() {
        let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let batch = RecordBatch::try_from_iter([
            ("word", Arc::new(words) as ArrayRef),
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        ])
        .unwrap();
        let bytes = encode_batch(&batch).unwrap();
        assert_eq!(decode_batches(&bytes).unwrap(), [batch.clone()]);
        assert_eq!(decode_schema(&encode_schema(&batch.schema()).unwrap()).unwrap(), batch.schema());
    }

    #[test]
    fn bytes_that_are_no_stream_are_an_error() {
        assert!(decode_schema(b"nonsense").is_err());
        assert!(decode_batches(&[]).is_err());
    }
}
