//! All tables of a process under one byte budget.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

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
    /// Tables that may be added later ([`Store::add`]). Their budgets are set aside from the start, so that one more table
    /// takes nothing from those there are.
    pub declared_max: usize,
}

/// Share of each table that is added later, where the catalogue's shares are 100 together: 5 MiB of the default budget, some
/// 50,000 rows of a protocol.
pub(crate) const DECLARED_SHARE: u32 = 2;

/// 256 MiB hold about 2 M requests with headers and bodies: minutes of a busy node, a day of a quiet one.
pub const BUDGET_BYTES_DEFAULT: usize = 256 << 20;

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig { budget_bytes: BUDGET_BYTES_DEFAULT, batch_rows: 8192, declared_max: 0 }
    }
}

/// The tables of a process.
///
/// Besides what the tables count as theirs, a store holds the memory in which batches are encoded: twice the text of the largest
/// column of a batch, some 8 MiB at most.
#[derive(Debug)]
pub struct Store {
    tables: RwLock<Vec<Arc<Table>>>,
    config: StoreConfig,
    /// Of all specs there may be.
    shares: u64,
    encoder: Arc<Mutex<Encoder>>,
    /// Tables of the beginning.
    fixed: usize,
}

/// Why a table was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Another table has its name.
    #[error("there is a table {0} already, with other columns or of another origin: choose another name")]
    Taken(&'static str),
    /// No budget is left.
    #[error("{0} tables were added already, which is as many as have a budget here: remove a plugin and restart")]
    TooMany(usize),
}

impl Store {
    /// Empty tables, one per spec, in the order given.
    pub fn new(config: StoreConfig, specs: &[&'static TableSpec]) -> Arc<Store> {
        let fixed: u64 = specs.iter().map(|spec| u64::from(spec.budget_share)).sum();
        let shares = fixed + config.declared_max as u64 * u64::from(DECLARED_SHARE);
        let encoder = Arc::new(Mutex::new(Encoder::new()));
        let store = Store { tables: RwLock::default(), fixed: specs.len(), config, shares: shares.max(1), encoder };
        let tables = specs.iter().map(|spec| store.make(spec)).collect();
        Arc::new(Store { tables: RwLock::new(tables), ..store })
    }

    fn make(&self, spec: &'static TableSpec) -> Arc<Table> {
        let share = self.config.budget_bytes as u128 * u128::from(spec.budget_share) / u128::from(self.shares);
        Arc::new(Table::new(spec, share as usize, self.config.batch_rows, self.encoder.clone()))
    }

    /// Adds a table that was declared while the process runs ([`TableSpec::declare`]), or gives the one that was added for
    /// the same declaration before. It is a table like any other from then on, and stays.
    pub fn add(&self, spec: &'static TableSpec) -> Result<Arc<Table>, AddError> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = tables.iter().position(|table| table.spec().name == spec.name) {
            let same = at >= self.fixed && tables[at].spec() == spec;
            return if same { Ok(tables[at].clone()) } else { Err(AddError::Taken(spec.name)) };
        }
        let added = tables.len() - self.fixed;
        if added >= self.config.declared_max {
            return Err(AddError::TooMany(added));
        }
        let table = self.make(spec);
        tables.push(table.clone());
        Ok(table)
    }

    /// Table by name.
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.read().iter().find(|table| table.spec().name == name).cloned()
    }

    /// Every table, in the order of the specs; then those that were added, in the order in which they were.
    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.read().clone()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Table>>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }
}
