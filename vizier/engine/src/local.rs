//! Tables that Vizier itself keeps, beside those of the agents: what only it can know. They are planned, put below policy and
//! charged like any other; what is read is what the table holds when the query is planned.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::ExecutionPlan;
use host::backend::TimeRange;
use host::meter::Meter;
use pem_tables::{Store, Table};

use crate::error::Fault;
use crate::exchange::TableDef;

/// Vizier's own tables, by name.
#[derive(Debug, Default)]
pub(crate) struct Locals(BTreeMap<String, (Arc<TableDef>, Arc<Table>)>);

impl Locals {
    pub fn of(store: &Store) -> Self {
        let tables = store.tables().into_iter().map(|table| {
            let spec = table.spec();
            let def = TableDef {
                name: spec.name.to_owned(),
                description: spec.description.to_owned(),
                schema: table.schema(),
                rows: table.stats().rows,
                agents: Vec::new(),
            };
            (spec.name.to_owned(), (Arc::new(def), table))
        });
        Self(tables.collect())
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// The table, for a run whose work is charged to this meter.
    pub fn get(&self, name: &str, meter: &Arc<Meter>) -> Option<(Arc<TableDef>, LocalTable)> {
        let (def, table) = self.0.get(name)?;
        Some((def.clone(), LocalTable { table: table.clone(), meter: meter.clone() }))
    }
}

/// One of them in one run.
#[derive(Clone, Debug)]
pub(crate) struct LocalTable {
    table: Arc<Table>,
    meter: Arc<Meter>,
}

impl LocalTable {
    /// Its rows in the range, as an operator of Vizier's.
    pub fn scan(&self, range: TimeRange, projection: Option<&Vec<usize>>) -> Result<Arc<dyn ExecutionPlan>> {
        let range = pem_tables::TimeRange { start_ns: range.start_ns, end_ns: range.end_ns };
        let batches: Vec<_> = self.table.scan(range, None).collect();
        let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        let bytes: usize = batches.iter().map(|batch| batch.get_array_memory_size()).sum();
        self.meter.charge_scan(rows as u64, bytes as u64).map_err(|_| Fault::Rows)?;
        Ok(MemorySourceConfig::try_new_exec(&[batches], self.table.schema(), projection.cloned())?)
    }
}
