//! The way into one table.

use pem_tables::{Appender, Store, Value};

use super::loss::{Ledger, Source};
use crate::protocols::Rows;

/// A table's writer, with its own count of what went in and what was refused.
pub struct Sink {
    table: &'static str,
    /// `None` when the store was made without this table: its rows are dropped and counted.
    appender: Option<Appender>,
    appended: u64,
    refused: u64,
}

impl Sink {
    /// Takes the writer of a table.
    pub fn new(store: &Store, table: &'static str) -> Self {
        let appender = store.table(table).and_then(|table| table.try_appender());
        Self { table, appender, appended: 0, refused: 0 }
    }

    /// Rows that went in since the start.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// Makes rows visible, and tells what was refused.
    pub fn publish(&mut self, now_ns: i64, ledger: &mut Ledger) {
        if let Some(appender) = &mut self.appender {
            appender.publish(now_ns);
        }
        let refused = std::mem::take(&mut self.refused);
        if refused > 0 {
            ledger.add(Source::Store, self.table, "row_refused", refused, 0);
        }
    }
}

impl Rows for Sink {
    fn append(&mut self, row: &[Value<'_>]) {
        match self.appender.as_mut().map(|appender| appender.append(row)) {
            Some(Ok(())) => self.appended += 1,
            // A row that does not fit its table is our own mistake, which the tests of each producer exclude.
            Some(Err(_)) | None => self.refused += 1,
        }
    }
}
