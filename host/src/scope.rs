//! What a manifest lets a script read.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::backend::{Backend, Frame, Scalar, TableInfo, TimeRange};
use crate::error::Error;
use crate::manifest::Manifest;

/// A backend that shows and reads only the tables a manifest names.
pub(crate) struct Scope {
    inner: Arc<dyn Backend>,
    manifest: Arc<Manifest>,
}

impl Scope {
    pub(crate) fn new(inner: Arc<dyn Backend>, manifest: Arc<Manifest>) -> Self {
        Self { inner, manifest }
    }

    /// Refuses a plan that reads a table the manifest does not name, however it came to: SQL text, a sub-query in an
    /// expression, a view.
    pub(crate) fn check(&self, frame: &dyn Frame) -> Result<(), Error> {
        match frame.sources().into_iter().find(|table| !self.allows(table)) {
            Some(table) => Err(self.denied(&table)),
            None => Ok(()),
        }
    }

    fn allows(&self, table: &str) -> bool {
        self.manifest.tables.iter().any(|allowed| allowed == table)
    }

    fn denied(&self, table: &str) -> Error {
        Error::Denied(format!(
            "script `{}` reads table `{table}`, which its manifest does not name (add it to tables in plugin.toml)",
            self.manifest.name
        ))
    }
}

impl Backend for Scope {
    fn tables(&self) -> Vec<TableInfo> {
        self.inner.tables().into_iter().filter(|t| self.allows(&t.name)).collect()
    }

    fn table(&self, name: &str, range: Option<TimeRange>) -> Result<Arc<dyn Frame>, Error> {
        // A name that does not exist is a mistake first: the backend says so, with the nearest name.
        if !self.allows(name) && self.inner.tables().iter().any(|t| t.name == name) {
            return Err(self.denied(name));
        }
        let frame = self.inner.table(name, range)?;
        self.check(&*frame)?;
        Ok(frame)
    }

    fn sql(&self, text: &str, params: &[(String, Scalar)]) -> Result<Arc<dyn Frame>, Error> {
        let frame = self.inner.sql(text, params)?;
        self.check(&*frame)?;
        Ok(frame)
    }

    fn inline(&self, batch: RecordBatch) -> Result<Arc<dyn Frame>, Error> {
        self.inner.inline(batch)
    }
}
