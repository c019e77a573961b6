use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use wasmtime::component::Resource;

use crate::arrays;
use crate::bindings::pyxis::common::types::{Column, Texts};
use crate::bindings::pyxis::script::batches::{Host, HostBatch, HostBatchStream};
use crate::error::{Error, Exhausted};
use crate::state::{
    Answer, GuestBatch, GuestFrame, GuestStream, HELD_BYTES_MAX, STREAMS_MAX, State, StreamShared, stop,
};

/// Rows of a batch as a script gets it: columns of numbers then have 64 KiB and stay in the cache.
const BATCH_ROWS_MAX: usize = 8_192;

/// Batches made ahead of the script. One is being read, one is ready.
const BATCHES_AHEAD: usize = 2;

impl Host for State {
    async fn collect(&mut self, frame: Resource<GuestFrame>) -> Answer<Resource<GuestStream>> {
        self.enter()?;
        let frame = self.frame(&frame)?;
        if self.streams >= STREAMS_MAX {
            return self.answer(Err(Error::Exhausted(Exhausted::Memory)));
        }
        let (backend, meter) = (Arc::clone(&self.backend), Arc::clone(&self.meter));
        let opened = self
            .outside(move || {
                backend.check(&*frame)?;
                Ok((frame.schema(), frame.collect(meter)))
            })
            .await;
        let opened = opened.and_then(|(schema, batches)| {
            let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
            // On the embedder's threads: what the query costs is charged by the engine, not to the script's processor time.
            self.runtime.spawn(pump(batches, sender));
            let columns: Vec<Column> = schema.fields().iter().map(|f| arrays::column(f)).collect();
            let dictionaries = Mutex::new(columns.iter().map(|_| arrays::Dictionary::default()).collect());
            let shared = Arc::new(StreamShared { columns, schema, dictionaries });
            let stream = self.hand(GuestStream { batches: receiver, done: false, shared })?;
            self.streams += 1;
            Ok(stream)
        });
        self.answer(opened)
    }
}

/// Carries batches to the script until it has enough. Ends with the receiver, which drops the query's stream and so stops it.
async fn pump(
    mut batches: BoxStream<'static, Result<RecordBatch, Error>>,
    sender: mpsc::Sender<Result<RecordBatch, Error>>,
) {
    loop {
        let next = tokio::select! {
            next = batches.next() => next,
            () = sender.closed() => return,
        };
        match next {
            None => return,
            Some(Err(error)) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
            Some(Ok(batch)) => {
                let mut from = 0;
                while from < batch.num_rows() {
                    let rows = BATCH_ROWS_MAX.min(batch.num_rows() - from);
                    if sender.send(Ok(batch.slice(from, rows))).await.is_err() {
                        return;
                    }
                    from += rows;
                }
            }
        }
    }
}

impl HostBatchStream for State {
    async fn next(&mut self, stream: Resource<GuestStream>) -> Answer<Option<Resource<GuestBatch>>> {
        self.enter()?;
        let held = self.table.get_mut(&stream)?;
        if held.done {
            return Ok(Ok(None));
        }
        let (next, shared) = (held.batches.recv().await, Arc::clone(&held.shared));
        let Some(Ok(batch)) = next else {
            held.done = true;
            return match next {
                Some(Err(error)) => self.answer(Err(error)),
                _ => Ok(Ok(None)),
            };
        };
        let bytes = arrays::batch_bytes(&batch);
        if self.held_bytes + bytes > HELD_BYTES_MAX {
            self.table.get_mut(&stream)?.done = true;
            return self.answer(Err(Error::Exhausted(Exhausted::Memory)));
        }
        let made = arrays::plain(&batch).and_then(|arrays| {
            if arrays.len() != shared.columns.len() {
                return Err(Error::Internal(format!(
                    "a batch has {} columns, its frame has {}",
                    arrays.len(),
                    shared.columns.len()
                )));
            }
            self.hand(GuestBatch { batch, arrays, bytes, stream: shared })
        });
        if made.is_ok() {
            self.held_bytes += bytes;
        }
        self.answer(made.map(Some))
    }

    fn columns(&mut self, stream: Resource<GuestStream>) -> wasmtime::Result<Vec<Column>> {
        self.enter()?;
        Ok(self.table.get(&stream)?.shared.columns.clone())
    }

    fn dictionary(&mut self, stream: Resource<GuestStream>, column: u32, from: u32) -> wasmtime::Result<Texts> {
        self.enter()?;
        let shared = &self.table.get(&stream)?.shared;
        if !is_text(shared, column) {
            return Err(broken(format!("column {column} of the frame has no dictionary")));
        }
        let dictionaries = shared.dictionaries.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(dictionaries[column as usize].tail(from))
    }

    fn drop(&mut self, stream: Resource<GuestStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        self.streams -= 1;
        Ok(())
    }
}

impl HostBatch for State {
    fn rows(&mut self, batch: Resource<GuestBatch>) -> wasmtime::Result<u32> {
        self.enter()?;
        Ok(self.table.get(&batch)?.batch.num_rows() as u32)
    }

    fn valid(&mut self, batch: Resource<GuestBatch>, column: u32) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(arrays::valid(self.array(&batch, column)?))
    }

    fn booleans(&mut self, batch: Resource<GuestBatch>, column: u32) -> wasmtime::Result<Vec<u8>> {
        read(self.array(&batch, column)?, column, "boolean", arrays::booleans)
    }

    fn int64s(&mut self, batch: Resource<GuestBatch>, column: u32) -> wasmtime::Result<Vec<i64>> {
        read(self.array(&batch, column)?, column, "int64, time-ns or duration-ns", arrays::int64s)
    }

    fn uint128s(&mut self, batch: Resource<GuestBatch>, column: u32) -> wasmtime::Result<Vec<u64>> {
        read(self.array(&batch, column)?, column, "uint128", arrays::uint128s)
    }

    fn float64s(&mut self, batch: Resource<GuestBatch>, column: u32) -> wasmtime::Result<Vec<f64>> {
        read(self.array(&batch, column)?, column, "float64", arrays::float64s)
    }

    fn codes(&mut self, batch: Resource<GuestBatch>, column: u32) -> Answer<Vec<u32>> {
        let array = Arc::clone(self.array(&batch, column)?);
        let stream = Arc::clone(&self.table.get(&batch)?.stream);
        let mut dictionaries = stream.dictionaries.lock().unwrap_or_else(PoisonError::into_inner);
        let dictionary = &mut dictionaries[column as usize];
        let before = dictionary.bytes();
        let codes = dictionary.codes(&array).ok_or_else(|| wrong_type(column, &array, "utf8"))?;
        let grown = dictionary.bytes() - before;
        drop(dictionaries);
        let codes = codes
            .map_err(|arrays::Full| Error::Exhausted(Exhausted::Memory))
            .and_then(|codes| self.charge_dictionary(grown).map(|()| codes));
        self.answer(codes)
    }

    fn utf8s(&mut self, batch: Resource<GuestBatch>, column: u32) -> wasmtime::Result<Texts> {
        let array = self.array(&batch, column)?;
        // One long text that every row refers to is small until it is written out.
        if arrays::utf8_bytes(array) > HELD_BYTES_MAX {
            return Err(stop(Error::Exhausted(Exhausted::Memory)));
        }
        read(array, column, "utf8", arrays::utf8s)
    }

    fn binaries(&mut self, batch: Resource<GuestBatch>, column: u32) -> wasmtime::Result<Texts> {
        read(self.array(&batch, column)?, column, "binary", arrays::binaries)
    }

    fn arrow_ipc(&mut self, batch: Resource<GuestBatch>) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        let held = self.table.get(&batch)?;
        let written = (|| {
            let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &held.stream.schema)?;
            writer.write(&held.batch)?;
            writer.into_inner()
        })();
        written.map_err(|e| stop(Error::Internal(format!("cannot write a batch as Arrow IPC: {e}"))))
    }

    fn drop(&mut self, batch: Resource<GuestBatch>) -> wasmtime::Result<()> {
        let batch = self.table.delete(batch)?;
        self.held_bytes -= batch.bytes;
        Ok(())
    }
}

impl State {
    fn array(&mut self, batch: &Resource<GuestBatch>, column: u32) -> wasmtime::Result<&ArrayRef> {
        self.enter()?;
        let held = self.table.get(batch)?;
        let columns = held.arrays.len();
        held.arrays
            .get(column as usize)
            .ok_or_else(|| broken(format!("column {column} of a batch with {columns} columns")))
    }
}

fn is_text(shared: &StreamShared, column: u32) -> bool {
    use crate::bindings::pyxis::common::types::DataType;
    shared.columns.get(column as usize).is_some_and(|c| c.data_type == DataType::Utf8)
}

fn read<T>(array: &ArrayRef, column: u32, wanted: &str, read: impl Fn(&ArrayRef) -> Option<T>) -> wasmtime::Result<T> {
    read(array).ok_or_else(|| wrong_type(column, array, wanted))
}

fn wrong_type(column: u32, array: &ArrayRef, wanted: &str) -> wasmtime::Error {
    broken(format!("column {column} is {}, it was read as {wanted}", array.data_type()))
}

/// The script broke the contract.
fn broken(what: String) -> wasmtime::Error {
    stop(Error::Trapped(what))
}
