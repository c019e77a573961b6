//! What became of runs: rows of the table `plugin_runs`, which is queried like any other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use pem_tables::{Appender, Store, StoreConfig, Value, catalog};

use super::Client;

/// What a run used, over all its rounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Processor time of the guest.
    pub guest_cpu_ns: u64,
    /// Processor time of planning for it.
    pub host_cpu_ns: u64,
    /// Most memory it had at once.
    pub memory_peak_bytes: u64,
    /// Rows read for it.
    pub rows_scanned: u64,
    /// Bytes of the columns read for it.
    pub bytes_scanned: u64,
    /// Rows put out.
    pub rows_output: u64,
    /// Their bytes.
    pub bytes_output: u64,
    /// Calls into the host.
    pub host_calls: u64,
    /// From a slot to a guest that is ready, in the first round.
    pub instantiate_ns: u64,
    /// Until the last frame was handed to the engine, summed.
    pub plan_ns: u64,
    /// Agents that worked for it.
    pub agents: BTreeSet<String>,
}

impl Used {
    /// Another round.
    pub fn add(&mut self, round: &Self) {
        self.guest_cpu_ns += round.guest_cpu_ns;
        self.host_cpu_ns += round.host_cpu_ns;
        self.memory_peak_bytes = self.memory_peak_bytes.max(round.memory_peak_bytes);
        self.rows_scanned += round.rows_scanned;
        self.bytes_scanned += round.bytes_scanned;
        self.rows_output += round.rows_output;
        self.bytes_output += round.bytes_output;
        self.host_calls += round.host_calls;
        if self.instantiate_ns == 0 {
            self.instantiate_ns = round.instantiate_ns;
        }
        self.plan_ns += round.plan_ns;
        self.agents.extend(round.agents.iter().cloned());
    }
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Id, as in `Started`.
    pub run_id: String,
    /// Name of the script, or `sql`.
    pub name: String,
    /// Digest of the component, empty for SQL.
    pub digest: String,
    /// `script` or `sql`.
    pub kind: &'static str,
    /// Who it counted against.
    pub tenant: String,
    /// Who asked for it.
    pub client: Client,
    /// ns since the epoch.
    pub started_time_ns: i64,
    /// How long it took.
    pub total_ns: u64,
    /// How it ended.
    pub status: vizier_api::Status,
    /// What it used.
    pub used: Used,
    /// Agents missing in its last round.
    pub missing: usize,
    /// Rounds, 1 without follow.
    pub rounds: u64,
}

/// The table, and the one place that writes to it.
pub struct History {
    store: Arc<Store>,
    appender: Mutex<Appender>,
}

impl History {
    /// Empty; the oldest rows go when there are more than so many bytes.
    pub fn new(budget_bytes: usize) -> Self {
        let config = StoreConfig { budget_bytes, ..StoreConfig::default() };
        let store = Store::new(config, catalog::VIZIER);
        let table = store.table(catalog::PLUGIN_RUNS.name).expect("the catalog has it");
        let appender = Mutex::new(table.appender());
        Self { store, appender }
    }

    /// For the engine to read.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Writes down what became of a run. It can be queried at once.
    pub fn record(&self, record: &Record) {
        let int = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let client = record.client.to_string();
        let status = record.status.code().as_str_name().to_lowercase();
        let used = &record.used;
        let row = [
            Value::Time(record.started_time_ns),
            Value::Str(&record.run_id),
            Value::Str(&record.name),
            Value::Str(&record.digest),
            Value::Str(record.kind),
            Value::Str(&record.tenant),
            Value::Str(&client),
            Value::Str(&status),
            Value::Str(&record.status.exhausted),
            Value::Str(&record.status.message),
            int(record.rounds),
            int(used.guest_cpu_ns),
            int(used.host_cpu_ns),
            int(used.memory_peak_bytes),
            int(used.rows_scanned),
            int(used.bytes_scanned),
            int(used.rows_output),
            int(used.bytes_output),
            int(used.host_calls),
            int(used.instantiate_ns),
            int(used.plan_ns),
            int(record.total_ns),
            int(used.agents.len() as u64),
            int(record.missing as u64),
        ];
        let mut appender = self.appender.lock().expect("no panic while it is held");
        match appender.append(&row) {
            Ok(()) => appender.publish(record.started_time_ns),
            Err(error) => tracing::error!(%error, run = %record.run_id, "a run is not in plugin_runs"),
        }
    }
}
