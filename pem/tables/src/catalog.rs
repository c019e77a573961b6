//! The tables of Pyxis, one file each. Names, columns, types and semantics of the tables that Pixie has are Pixie's, in
//! its order, so that its users and scripts find what they know; the others are ours.
//!
//! To add a table: one file here, one line in [`ALL`]; `tests/catalog.txt` shows what changed.

mod agent_stats;
mod conn_stats;
mod data_loss;
pub mod enums;
mod http_events;
mod network_stats;
mod plugin_runs;
mod probe_status;
mod proc_exit_events;
mod process_stats;
mod processes;
mod stirling_error;

use crate::spec::TableSpec;

pub use agent_stats::AGENT_STATS;
pub use conn_stats::CONN_STATS;
pub use data_loss::DATA_LOSS;
pub use http_events::HTTP_EVENTS;
pub use network_stats::NETWORK_STATS;
pub use plugin_runs::PLUGIN_RUNS;
pub use probe_status::PROBE_STATUS;
pub use proc_exit_events::PROC_EXIT_EVENTS;
pub use process_stats::PROCESS_STATS;
pub use processes::PROCESSES;
pub use stirling_error::AGENT_ERRORS;

/// Every table a PEM keeps.
pub static ALL: &[&TableSpec] = &[
    &HTTP_EVENTS,
    &CONN_STATS,
    &PROCESS_STATS,
    &NETWORK_STATS,
    &PROC_EXIT_EVENTS,
    &AGENT_ERRORS,
    &PROBE_STATUS,
    &DATA_LOSS,
    &PROCESSES,
    &AGENT_STATS,
];

/// Every table Vizier keeps itself.
pub static VIZIER: &[&TableSpec] = &[&PLUGIN_RUNS];

/// Table by name.
pub fn find(name: &str) -> Option<&'static TableSpec> {
    ALL.iter().chain(VIZIER).find(|spec| spec.name == name).copied()
}

#[cfg(test)]
mod tests;
