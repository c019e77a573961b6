//! The output tables of one round: numbers, views, rows sent, and cutting.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use host::error::Error;
use host_manifest::View;
use vizier_api::execute_response::Event;
use vizier_api::{BATCH_BYTES_TARGET, Batch, TableStarted, ipc};

use super::output::Output;

/// Tables begun in one round.
#[derive(Default)]
pub struct Tables {
    by_name: BTreeMap<String, u32>,
    views: BTreeMap<String, String>,
}

impl Tables {
    /// With the views that the script's manifest declares.
    pub fn new(views: &[View]) -> Self {
        let views = views.iter().filter_map(|v| Some((v.table.clone(), serde_json::to_string(v).ok()?))).collect();
        Self { by_name: BTreeMap::new(), views }
    }

    /// A view declared at run time. It counts if it comes before its table begins.
    pub fn view(&mut self, json: &str) -> Result<(), Error> {
        let view =
            View::from_json(json).map_err(|e| Error::Invalid { message: e.message, hint: e.hint, position: None })?;
        self.views.insert(view.table, json.to_owned());
        Ok(())
    }

    /// The number of a table, and the message that begins it the first time.
    pub fn begin(&mut self, name: &str, schema: &SchemaRef, round: u64) -> Result<(u32, Option<Event>), Error> {
        if let Some(number) = self.by_name.get(name) {
            return Ok((*number, None));
        }
        let number = self.by_name.len() as u32;
        self.by_name.insert(name.to_owned(), number);
        let started = TableStarted {
            table: number,
            name: name.to_owned(),
            schema: ipc::encode_schema(schema).map_err(internal)?,
            view: self.views.get(name).cloned().unwrap_or_default(),
            round,
        };
        Ok((number, Some(Event::Table(started))))
    }
}

/// Sends rows of one table, in messages of about [`BATCH_BYTES_TARGET`]. False: nobody is there any more.
pub async fn send(output: &Output, table: u32, batch: &RecordBatch) -> Result<bool, Error> {
    for part in parts(batch) {
        let part = compact(&part).map_err(internal)?;
        let ipc = ipc::encode_batch(&part).map_err(internal)?;
        let message = Batch { table, ipc, rows: part.num_rows() as u64 };
        if !output.send(Event::Batch(message)).await {
            return Ok(false);
        }
    }
    Ok(true)
}

pub fn internal(error: ArrowError) -> Error {
    Error::Internal(error.to_string())
}

fn parts(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + '_ {
    let rows = batch.num_rows();
    let count = bytes_of(batch).div_ceil(BATCH_BYTES_TARGET).clamp(1, rows.max(1));
    let step = rows.div_ceil(count).max(1);
    (0..rows).step_by(step).map(move |from| batch.slice(from, step.min(rows - from)))
}

/// Bytes of the rows that a batch shows, not of the memory behind it.
pub fn bytes_of(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size()))
        .sum()
}

/// A dictionary with more entries than there are rows would travel whole with a few rows.
fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows();
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Dictionary(_, value) if column.as_any_dictionary().values().len() > rows => {
            let plain: ArrayRef = cast(column, value)?;
            cast(&plain, column.data_type())
        }
        _ => Ok(column.clone()),
    });
    RecordBatch::try_new(batch.schema(), columns.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn large_batches_are_cut_and_nothing_is_lost() {
        let text = "x".repeat(10_000);
        let batch = RecordBatch::try_from_iter([(
            "body",
            Arc::new(StringArray::from_iter_values((0..1000).map(|_| text.as_str()))) as ArrayRef,
        )])
        .unwrap();
        let parts: Vec<_> = parts(&batch).collect();
        assert!(parts.len() >= 9, "{}", parts.len());
        assert!(parts.iter().all(|p| bytes_of(p) <= BATCH_BYTES_TARGET + 20_000));
        assert_eq!(parts.iter().map(RecordBatch::num_rows).sum::<usize>(), 1000);
    }

    #[test]
    fn a_slice_leaves_the_rest_of_its_dictionary_behind() {
        let words: DictionaryArray<Int32Type> =
            (0..5000).map(|n| format!("word {n}")).collect::<Vec<_>>().iter().map(|s| s.as_str()).collect();
        let batch = RecordBatch::try_from_iter([
            ("word", Arc::new(words) as ArrayRef),
            ("n", Arc::new(Int64Array::from_iter_values(0..5000)) as ArrayRef),
        ])
        .unwrap();
        let slice = batch.slice(4000, 2);
        let small = compact(&slice).unwrap();
        assert_eq!(small, slice);
        assert_eq!(small.column(0).as_any_dictionary().values().len(), 2);
    }
}
