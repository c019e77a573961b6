use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use wasmtime::component::Resource;

use crate::arrays;
use crate::bindings::pyxis::common::types::Rows;
use crate::bindings::pyxis::script::output::Host;
use crate::convert::{self, invalid};
use crate::error::{Error, Exhausted};
use crate::manifest::{View, nearest};
use crate::rows;
use crate::state::{Answer, GuestFrame, Output, State};

impl Host for State {
    async fn display(&mut self, name: String, frame: Resource<GuestFrame>) -> Answer<()> {
        self.enter()?;
        let frame = self.frame(&frame)?;
        let shown = self.show(name, frame).await;
        self.answer(shown)
    }

    async fn emit(&mut self, name: String, rows: Rows) -> Answer<()> {
        self.enter()?;
        let emitted = self.put_out(name, rows).await;
        self.answer(emitted)
    }

    async fn view(&mut self, json: String) -> Answer<()> {
        self.enter()?;
        let sink = Arc::clone(&self.sink);
        let declared = self
            .outside(move || {
                View::from_json(&convert::text(json.clone())?).map_err(|e| Error::Invalid {
                    message: e.message,
                    hint: e.hint,
                    position: None,
                })?;
                sink.view(&json)
            })
            .await;
        self.answer(declared)
    }
}

impl State {
    async fn show(&mut self, name: String, frame: Arc<dyn crate::backend::Frame>) -> Result<(), Error> {
        self.check_name(&name)?;
        if self.outputs.contains_key(&name) {
            return Err(invalid(format!("output table `{name}` was displayed or emitted before")));
        }
        self.charge_table(&name)?;
        self.outputs.insert(name.clone(), Output::Displayed);
        let (backend, sink) = (Arc::clone(&self.backend), Arc::clone(&self.sink));
        self.outside(move || {
            backend.check(&*frame)?;
            sink.display(&name, frame)
        })
        .await
    }

    async fn put_out(&mut self, name: String, rows: Rows) -> Result<(), Error> {
        self.check_name(&name)?;
        let batch = rows::batch(rows)?;
        match self.outputs.get(&name) {
            Some(Output::Emitted(schema)) if *schema == batch.schema() => {}
            Some(Output::Emitted(schema)) => {
                let names = |s: &arrow::datatypes::Schema| {
                    s.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type())).collect::<Vec<_>>().join(", ")
                };
                return Err(invalid(format!(
                    "output table `{name}` has columns ({}), not ({})",
                    names(schema),
                    names(&batch.schema())
                )));
            }
            Some(Output::Displayed) => return Err(invalid(format!("output table `{name}` was displayed before"))),
            None => {
                self.charge_table(&name)?;
                self.outputs.insert(name.clone(), Output::Emitted(batch.schema()));
            }
        }
        let fits = self.fitting(&batch);
        let cut = fits < batch.num_rows();
        // A slice would hold on to all of it.
        let batch = match fits {
            0 => RecordBatch::new_empty(batch.schema()),
            _ if cut && batch.num_columns() > 0 => {
                take_record_batch(&batch, &UInt32Array::from_iter_values(0..fits as u32))
                    .map_err(|e| Error::Internal(format!("cannot cut a batch: {e}")))?
            }
            _ => batch.slice(0, fits),
        };
        self.meter.charge_output(fits as u64, arrays::batch_bytes(&batch))?;
        if cut {
            self.mark_truncated(&name);
        }
        // An empty table is a table too: its first batch goes out even when it has no rows.
        let sink = Arc::clone(&self.sink);
        self.outside(move || sink.emit(&name, batch)).await?;
        if cut { Err(Error::Exhausted(Exhausted::Output)) } else { Ok(()) }
    }

    /// Rows of the batch that the output budget still has room for.
    fn fitting(&self, batch: &RecordBatch) -> usize {
        let meter = &self.meter;
        let rows_left = meter.budget.output_rows.saturating_sub(meter.output_rows.load(Ordering::Relaxed));
        let bytes_left = meter.budget.output_bytes.saturating_sub(meter.output_bytes.load(Ordering::Relaxed));
        let mut rows = (batch.num_rows() as u64).min(rows_left) as usize;
        // Rows differ in size: halve until it fits. A table that is too large by one row may lose up to half; it is cut anyway.
        while rows > 0 && arrays::batch_bytes(&batch.slice(0, rows)) > bytes_left {
            rows /= 2;
        }
        rows
    }

    fn charge_table(&self, name: &str) -> Result<(), Error> {
        let tables = self.meter.output_tables.fetch_add(1, Ordering::Relaxed) + 1;
        if tables > self.meter.budget.output_tables {
            self.meter.output_tables.fetch_sub(1, Ordering::Relaxed);
            self.mark_truncated(name);
            return Err(Error::Exhausted(Exhausted::Output));
        }
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), Error> {
        convert::name(name.to_owned())?;
        if name.chars().any(char::is_control) {
            return Err(invalid("the name of an output table has control characters".into()));
        }
        let declared: Vec<&str> = self.manifest.outputs.iter().map(|o| o.name.as_str()).collect();
        if declared.is_empty() || declared.contains(&name) {
            return Ok(());
        }
        Err(Error::Invalid {
            message: format!("the manifest of script `{}` has no output `{name}`", self.manifest.name),
            hint: Some(match nearest(name, &declared) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it has {}", declared.join(", ")),
            }),
            position: None,
        })
    }
}
