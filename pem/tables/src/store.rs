//! All tables of a process under one byte budget.

use std::sync::{Arc, Mutex};

use crate::encode::Encoder;
use crate::spec::TableSpec;
use crate::table::Table;

/// How a store is dimensioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Bytes that all tables together may keep. Each gets its spec's share of it.
    pub budget_bytes: usize,
    /// Rows of a sealed batch. The default is what DataFusion works on at a time, so that a scan hands out whole batches.
    pub batch_rows: usize,
}

/// 256 MiB hold about 2 M requests with headers and bodies: minutes of a busy node, a day of a quiet one.
pub const BUDGET_BYTES_DEFAULT: usize = 256 << 20;

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig { budget_bytes: BUDGET_BYTES_DEFAULT, batch_rows: 8192 }
    }
}

/// The tables of a process.
///
/// Besides what the tables count as theirs, a store holds the memory in which batches are encoded: twice the text of the largest
/// column of a batch, some 8 MiB at most.
#[derive(Debug)]
pub struct Store {
    tables: Vec<Arc<Table>>,
}

impl Store {
    /// Empty tables, one per spec, in the order given.
    pub fn new(config: StoreConfig, specs: &[&'static TableSpec]) -> Arc<Store> {
        let shares: u64 = specs.iter().map(|spec| u64::from(spec.budget_share)).sum();
        let encoder = Arc::new(Mutex::new(Encoder::new()));
        let tables = specs
            .iter()
            .map(|spec| {
                let share = config.budget_bytes as u128 * u128::from(spec.budget_share) / u128::from(shares.max(1));
                Arc::new(Table::new(spec, share as usize, config.batch_rows, encoder.clone()))
            })
            .collect();
        Arc::new(Store { tables })
    }

    /// Table by name.
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.tables.iter().find(|table| table.spec().name == name).cloned()
    }

    /// Every table, in the order of the specs.
    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.tables.clone()
    }
}
