//! Record batches as Flight messages: small ones joined, large ones cut, memory that a slice does not show left behind.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{CompressionType, root_as_message};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use datafusion::common::{DataFusionError, Result};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use prost::Message;
use tonic::Status;

use super::MESSAGE_BYTES_MAX;
use super::wire::Usage;
use crate::error::{Fault, REASON_CHARS_MAX, fault_in, from_status};

/// Batches smaller than this wait for others: what each message costs is worth some hundred rows.
pub(crate) const BATCH_ROWS_MIN: usize = 4096;
/// Batches larger than this are cut, so that the stream's window, not the size of a batch, bounds what is in flight.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Rows of one message at most. Operators give some thousands.
const ROWS_MAX: i64 = 1 << 24;
/// Smaller batches are sent as they are: compressing costs both sides more than the bytes on a link of a cluster.
const COMPRESS_BYTES_MIN: usize = 16 << 10;

/// Joins small batches.
pub(crate) struct Coalescer {
    schema: SchemaRef,
    held: Vec<RecordBatch>,
    rows: usize,
}

impl Coalescer {
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, held: Vec::new(), rows: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Gives a batch once there is enough.
    pub fn push(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        self.rows += batch.num_rows();
        if batch.num_rows() > 0 {
            self.held.push(batch);
        }
        if self.rows < BATCH_ROWS_MIN { Ok(None) } else { self.flush() }
    }

    /// Gives what there is.
    pub fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        self.rows = 0;
        match self.held.len() {
            0 => Ok(None),
            1 => Ok(self.held.pop()),
            _ => concat_batches(&self.schema, &std::mem::take(&mut self.held)).map(Some),
        }
    }
}

/// Makes Flight messages of batches. Dictionaries stay dictionaries.
pub(crate) struct Encoder {
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
    plain: IpcWriteOptions,
    compressed: IpcWriteOptions,
}

impl Encoder {
    pub fn try_new() -> Result<Self, ArrowError> {
        Ok(Self {
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
            plain: IpcWriteOptions::default(),
            compressed: IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?,
        })
    }

    /// First message of a stream.
    pub fn schema(&mut self, schema: &SchemaRef) -> FlightData {
        self.generator.schema_to_bytes_with_dictionary_tracker(schema, &mut self.dictionaries, &self.plain).into()
    }

    /// Messages of one batch.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<FlightData>, ArrowError> {
        let batch = compact(batch)?;
        let bytes = batch.get_array_memory_size();
        let parts = bytes.div_ceil(BATCH_BYTES_MAX).clamp(1, batch.num_rows().max(1));
        let rows = batch.num_rows().div_ceil(parts).max(1);
        let options = if bytes < COMPRESS_BYTES_MIN { &self.plain } else { &self.compressed };
        let mut messages = Vec::with_capacity(parts + 1);
        let mut from = 0;
        while from < batch.num_rows() {
            let part = batch.slice(from, rows.min(batch.num_rows() - from));
            let (dictionaries, data) =
                self.generator.encode(&part, &mut self.dictionaries, options, &mut self.context)?;
            messages.extend(dictionaries.into_iter().map(FlightData::from));
            messages.push(data.into());
            from += rows;
        }
        Ok(messages)
    }
}

/// A message that carries no Arrow data.
pub(crate) fn usage_message(usage: &Usage) -> FlightData {
    FlightData::new().with_app_metadata(usage.encode_to_vec())
}

/// Batches out of a stream of messages. `on_message` sees the size of each message, `on_usage` each report of the agent;
/// an error of theirs ends the stream.
pub(crate) fn decode(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    schema: SchemaRef,
    on_message: impl Fn(usize) + Send + 'static,
    on_usage: impl Fn(Usage) -> Result<()> + Send + 'static,
) -> BoxStream<'static, Result<RecordBatch>> {
    // A run that is out of processor time is told by the agent that used it which function that was: its word comes next.
    let mut over = None;
    let data = messages.map(Some).chain(futures::stream::once(async { None })).filter_map(move |message| {
        let data = match message {
            Some(Ok(data)) => {
                on_message(data.data_header.len() + data.data_body.len() + data.app_metadata.len());
                let used = match data.app_metadata.is_empty() {
                    true => Ok(()),
                    false => Usage::decode(data.app_metadata.clone()).map_err(malformed).and_then(&on_usage),
                };
                let before = over.take();
                match before.map_or(used, Err).and_then(|()| bounded(&data)) {
                    Ok(()) => (!data.data_header.is_empty()).then_some(Ok(data)),
                    Err(e) if matches!(fault_in(&e), Some(Fault::Function(_))) && data.data_header.is_empty() => {
                        over = Some(e);
                        None
                    }
                    Err(e) => Some(Err(FlightError::ExternalError(Box::new(e)))),
                }
            }
            Some(Err(status)) => Some(Err(FlightError::Tonic(Box::new(status)))),
            None => over.take().map(|e| Err(FlightError::ExternalError(Box::new(e)))),
        };
        futures::future::ready(data)
    });
    // What one agent sends must not end the query of all, not even by a panic of what reads it.
    let batches = AssertUnwindSafe(FlightRecordBatchStream::new_from_flight_data(data)).catch_unwind();
    batches
        .map(move |batch| match batch {
            // The schema on Vizier says more (descriptions) than the one that travelled.
            Ok(Ok(batch)) => {
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options).map_err(malformed)
            }
            Ok(Err(FlightError::Tonic(status))) => Err(from_status(&status)),
            Ok(Err(FlightError::ExternalError(e))) => Err(match e.downcast::<DataFusionError>() {
                Ok(e) => *e,
                Err(e) => malformed(e),
            }),
            Ok(Err(e)) => Err(malformed(e)),
            Err(_) => Err(malformed("it is in no form that can be read")),
        })
        .boxed()
}

/// Looks at what a message says of its size, before anything is allocated by it.
fn bounded(data: &FlightData) -> Result<()> {
    if data.data_header.is_empty() {
        return Ok(());
    }
    let message = root_as_message(&data.data_header).map_err(malformed)?;
    let batch = message
        .header_as_record_batch()
        .or_else(|| message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()));
    let Some(batch) = batch else { return Ok(()) };
    if !(0..=ROWS_MAX).contains(&batch.length()) {
        return Err(malformed(format!("a batch of {} rows", batch.length())));
    }
    if batch.compression().is_none() {
        return Ok(());
    }
    let mut unpacked = 0u64;
    for buffer in batch.buffers().iter().flatten() {
        let from = usize::try_from(buffer.offset()).unwrap_or(usize::MAX);
        let prefix = data.data_body.get(from..).and_then(|rest| rest.first_chunk::<8>());
        // Too short for one is empty; -1 is a buffer that was left as it is.
        if let (Some(prefix), true) = (prefix, buffer.length() >= 8) {
            let claimed = i64::from_le_bytes(*prefix);
            unpacked = unpacked.saturating_add(u64::try_from(claimed).unwrap_or(0));
        }
    }
    if unpacked > MESSAGE_BYTES_MAX as u64 {
        return Err(malformed(format!("a batch of {unpacked} bytes, unpacked")));
    }
    Ok(())
}

/// An agent's answer is not what it should be: its gap.
fn malformed(why: impl std::fmt::Display) -> DataFusionError {
    let why: String = why.to_string().chars().take(REASON_CHARS_MAX).collect();
    Fault::Node(format!("it sent a malformed answer: {why}")).into()
}

/// Without the parts of dictionaries and string buffers that no row of the batch refers to.
fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(compact_array).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

fn compact_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Utf8View if !array.as_string_view().data_buffers().is_empty() => {
            Ok(Arc::new(array.as_string_view().gc()))
        }
        DataType::BinaryView if !array.as_binary_view().data_buffers().is_empty() => {
            Ok(Arc::new(array.as_binary_view().gc()))
        }
        DataType::Dictionary(key, _) if **key == DataType::Int32 => {
            let dictionary = array.as_dictionary::<Int32Type>();
            // At most one value in two is unused when there are half as many rows as values: not worth the work.
            if dictionary.values().len() <= dictionary.len() / 2 {
                return Ok(array.clone());
            }
            Ok(Arc::new(compact_dictionary(dictionary)?))
        }
        _ => Ok(array.clone()),
    }
}

pub(crate) fn compact_dictionary(array: &DictionaryArray<Int32Type>) -> Result<DictionaryArray<Int32Type>, ArrowError> {
    const UNSEEN: i32 = -1;
    let mut moved = vec![UNSEEN; array.values().len()];
    let mut used: Vec<i32> = Vec::new();
    let keys: Int32Array = array
        .keys()
        .iter()
        .map(|key| {
            key.map(|key| {
                let place = &mut moved[key as usize];
                if *place == UNSEEN {
                    *place = used.len() as i32;
                    used.push(key);
                }
                *place
            })
        })
        .collect();
    if used.len() == array.values().len() {
        return Ok(array.clone());
    }
    let values = take(array.values(), &Int32Array::from(used), None)?;
    DictionaryArray::try_new(keys, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use futures::TryStreamExt;

    fn sample(rows: i64) -> RecordBatch {
        let values = StringArray::from_iter_values((0..100).map(|i| format!("service-{i}")));
        let keys = Int32Array::from_iter_values((0..rows).map(|i| (i % 3) as i32 + 40));
        let dictionary = DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values)).unwrap();
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("s", dictionary.data_type().clone(), true),
        ]);
        let numbers = Int64Array::from_iter_values(0..rows);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers), Arc::new(dictionary)]).unwrap()
    }

    #[tokio::test]
    async fn batches_survive_the_wire_as_they_were() {
        let batches = [sample(10), sample(200_000)];
        let schema = batches[0].schema();
        let mut encoder = Encoder::try_new().unwrap();
        let mut messages = vec![encoder.schema(&schema)];
        for batch in &batches {
            messages.extend(encoder.batch(batch).unwrap());
        }
        messages.push(usage_message(&Usage { rows_scanned: 7, bytes_scanned: 8, elapsed_ns: 9, ..Usage::default() }));
        assert!(messages.iter().all(|m| m.data_body.len() < 2 * BATCH_BYTES_MAX), "large batches are cut");
        let (tx, rx) = std::sync::mpsc::channel();
        let stream = futures::stream::iter(messages.into_iter().map(Ok));
        let decoded: Vec<_> = decode(
            stream,
            schema.clone(),
            |_| {},
            move |usage| {
                tx.send(usage).unwrap();
                Ok(())
            },
        )
        .try_collect()
        .await
        .unwrap();
        assert_eq!(rx.recv().unwrap().rows_scanned, 7);
        let whole = concat_batches(&schema, &decoded).unwrap();
        let expected = concat_batches(&schema, &batches).unwrap();
        assert_eq!(whole.num_rows(), expected.num_rows());
        assert_eq!(whole.column(0), expected.column(0));
        let strings = |b: &RecordBatch| arrow::compute::cast(b.column(1), &DataType::Utf8).unwrap();
        assert_eq!(&strings(&whole), &strings(&expected));
    }

    #[test]
    fn unused_dictionary_values_stay_behind() {
        let batch = sample(10);
        let compacted = compact(&batch).unwrap();
        assert_eq!(compacted.column(1).as_dictionary::<Int32Type>().values().len(), 3);
        assert_eq!(
            arrow::compute::cast(compacted.column(1), &DataType::Utf8).unwrap().as_ref(),
            arrow::compute::cast(batch.column(1), &DataType::Utf8).unwrap().as_ref()
        );
    }

    #[test]
    fn small_batches_are_joined() {
        let mut coalescer = Coalescer::new(sample(1).schema());
        let mut out = vec![];
        for _ in 0..BATCH_ROWS_MIN / 16 + 1 {
            out.extend(coalescer.push(sample(16)).unwrap());
        }
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].num_rows(), BATCH_ROWS_MIN);
        assert_eq!(coalescer.flush().unwrap().unwrap().num_rows(), 16);
        assert!(coalescer.is_empty());
    }
}
