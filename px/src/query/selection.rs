//! `--table` and `--columns`: which part of a result is wanted.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};

use crate::error::{Code, Error, Result};
use crate::suggest;

#[derive(Debug, Default)]
pub struct Selection {
    table: Option<String>,
    columns: Vec<String>,
    /// Tables and columns that the result had, to tell what can be asked for.
    tables_seen: BTreeSet<String>,
    columns_seen: BTreeSet<String>,
}

/// What of one table is wanted.
#[derive(Debug, Clone)]
pub struct Part {
    indices: Option<Vec<usize>>,
    pub schema: SchemaRef,
}

impl Selection {
    pub fn new(table: Option<String>, columns: Vec<String>) -> Self {
        Selection { table, columns, ..Selection::default() }
    }

    /// `None`: nothing of this table.
    pub fn part(&mut self, table: &str, schema: &SchemaRef) -> Option<Part> {
        self.tables_seen.insert(table.to_owned());
        if self.table.as_ref().is_some_and(|wanted| wanted != table) {
            return None;
        }
        self.columns_seen.extend(schema.fields().iter().map(|field| field.name().clone()));
        if self.columns.is_empty() {
            return Some(Part { indices: None, schema: schema.clone() });
        }
        let indices: Vec<usize> = self.columns.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        if indices.is_empty() {
            return None;
        }
        let fields: Vec<_> = indices.iter().map(|index| schema.fields()[*index].clone()).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        Some(Part { indices: Some(indices), schema })
    }

    /// At the end: something that was asked for and never came is a mistake of the command line. A result without any table
    /// proves nothing.
    pub fn check(&self) -> Result<()> {
        if self.tables_seen.is_empty() {
            return Ok(());
        }
        if let Some(table) = self.table.as_ref().filter(|table| !self.tables_seen.contains(*table)) {
            return Err(unknown("table", table, &self.tables_seen));
        }
        match self.columns.iter().find(|column| !self.columns_seen.contains(*column)) {
            Some(column) => Err(unknown("column", column, &self.columns_seen)),
            None => Ok(()),
        }
    }
}

impl Part {
    /// Whether the person named the columns.
    pub fn columns_chosen(&self) -> bool {
        self.indices.is_some()
    }

    pub fn of(&self, batch: RecordBatch) -> Result<RecordBatch> {
        match &self.indices {
            None => Ok(batch),
            Some(indices) => batch.project(indices).map_err(|e| Error::internal(e.to_string())),
        }
    }
}

fn unknown(what: &str, name: &str, there: &BTreeSet<String>) -> Error {
    let all: Vec<&str> = there.iter().map(String::as_str).collect();
    let hint = suggest::hint(name, all.iter().copied()).unwrap_or_else(|| format!("there are: {}", all.join(", ")));
    Error::new(Code::Usage, format!("the result has no {what} {name}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[test]
    fn columns_come_in_the_order_asked_for() {
        let mut selection = Selection::new(None, vec!["latency".into(), "req_path".into()]);
        let part = selection.part("t", &sample::batch().schema()).unwrap();
        let batch = part.of(sample::batch()).unwrap();
        let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["latency", "req_path"]);
        assert!(selection.check().is_ok());
    }

    #[test]
    fn what_never_came_is_named_with_the_nearest() {
        let mut selection = Selection::new(None, vec!["latencyy".into()]);
        assert!(selection.part("t", &sample::batch().schema()).is_none());
        let error = selection.check().unwrap_err();
        assert_eq!(error.message, "the result has no column latencyy");
        assert_eq!(error.hint.as_deref(), Some("did you mean latency?"));
        let mut selection = Selection::new(Some("b".into()), vec![]);
        assert!(selection.part("a", &sample::batch().schema()).is_none());
        assert_eq!(selection.check().unwrap_err().exit().code(), 2);
    }
}
