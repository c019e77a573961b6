//! A table function at work.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use wasmtime::component::ResourceAny;

use super::columns;
use super::instance::Instance;
use crate::backend::Scalar;
use crate::error::Error;
use crate::manifest::function::Export;
use crate::rows;

/// Rows on their way.
pub struct Cursor {
    instance: Instance,
    handle: ResourceAny,
    export: Export,
    schema: SchemaRef,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("function", &self.export.name).finish_non_exhaustive()
    }
}

impl Cursor {
    pub(super) fn new(mut instance: Instance, export: Export, arguments: &[Scalar]) -> Result<Self, Error> {
        let wit: Vec<_> =
            (0..export.args.len()).map(|i| columns::scalar_out(arguments.get(i).unwrap_or(&Scalar::Null))).collect();
        let handle = instance.call(&export.name, |store, guest, name| {
            guest.pyxis_function_tables().cursor().call_open(store, name, &wit)
        })?;
        let schema = columns::schema(&export.columns);
        Ok(Self { instance, handle, export, schema })
    }

    /// The columns its rows have.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next rows; none at the end.
    pub fn next_rows(&mut self) -> Result<Option<RecordBatch>, Error> {
        let handle = self.handle;
        let rows = self.instance.call(&self.export.name, |store, guest, _| {
            guest.pyxis_function_tables().cursor().call_next(store, handle)
        })?;
        let Some(rows) = rows else { return Ok(None) };
        let broke = |why: String| self.instance.broke(&self.export.name, &why);
        let batch = rows::batch(rows).map_err(|e| broke(format!("gave rows that cannot be read: {e}")))?;
        let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
        let declared: Vec<_> = self.schema.fields().iter().map(|f| f.name().clone()).collect();
        if names != declared {
            let (names, declared) = (names.join(", "), declared.join(", "));
            return Err(broke(format!("gave the columns {names}, its manifest declares {declared}")));
        }
        let of = |(array, field): (&ArrayRef, &Arc<arrow::datatypes::Field>)| {
            let fits = super::arrow_like(array.data_type(), field.data_type());
            if !fits {
                let (is, name) = (array.data_type(), field.name());
                return Err(broke(format!("gave {is} in the column `{name}`, declared is {}", field.data_type())));
            }
            cast(array, field.data_type()).map_err(|e| broke(format!("gave a column that cannot be read: {e}")))
        };
        let arrays = batch.columns().iter().zip(self.schema.fields()).map(of).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map(Some)
            .map_err(|e| Error::Internal(format!("checked columns make no batch: {e}")))
    }
}
