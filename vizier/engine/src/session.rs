//! Sessions of both sides: the same functions, and options that suit each.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;

use crate::functions;

/// Functions that are not offered: a query's result follows from its input and its time alone, and no call makes gigabytes out
/// of a few bytes, which no budget would see before they are there.
const HIDDEN: [&str; 10] =
    ["random", "uuid", "version", "repeat", "lpad", "rpad", "array_repeat", "array_resize", "generate_series", "range"];

/// Rows per batch inside plans.
const BATCH_ROWS: usize = 8192;

/// Vizier's session: for planning and for what runs above the cut.
pub(crate) fn vizier(threads: usize, memory_bytes: usize) -> Result<SessionState> {
    let mut config = SessionConfig::new().with_target_partitions(threads.max(2)).with_batch_size(BATCH_ROWS);
    let options = config.options_mut();
    // A round-robin repartition above the leaf would let the cut land below the partial aggregate.
    options.optimizer.enable_round_robin_repartition = false;
    // Evaluated first and inlined by `subquery`; a join would ship every row.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    // Filters that change while a plan runs cannot follow it to another process.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.execution.time_zone = Some("UTC".into());
    options.execution.enable_recursive_ctes = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    build(config, memory_bytes)
}

/// A PEM's session: one partition, so that a query takes one core of the node at most.
pub(crate) fn agent(memory_bytes: usize) -> Result<SessionState> {
    build(SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS), memory_bytes)
}

fn build(config: SessionConfig, memory_bytes: usize) -> Result<SessionState> {
    let mut builder =
        SessionStateBuilder::new().with_config(config).with_runtime_env(runtime(memory_bytes)?).with_default_features();
    let scalars = builder.scalar_functions().get_or_insert_default();
    scalars.retain(|function| !HIDDEN.contains(&function.name()));
    scalars.extend(functions::scalars());
    builder.aggregate_functions().get_or_insert_default().extend(functions::aggregates());
    Ok(builder.build())
}

fn runtime(memory_bytes: usize) -> Result<Arc<RuntimeEnv>> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory_bytes)))
        // Nothing spills: a query that does not fit fails by name instead of filling a disk.
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
}

/// Options whose meaning must be the same on both sides and that differ from the defaults.
pub(crate) fn shared_options(options: &ConfigOptions) -> BTreeMap<String, String> {
    // Planning is over when a fragment leaves, and partitions are the agent's own business.
    let execution = |key: &str| key.starts_with("datafusion.execution.") && !key.ends_with(".target_partitions");
    let defaults: BTreeMap<_, _> = ConfigOptions::default().entries().into_iter().map(|e| (e.key, e.value)).collect();
    options
        .entries()
        .into_iter()
        .filter(|entry| execution(&entry.key) && defaults.get(&entry.key) != Some(&entry.value))
        .filter_map(|entry| Some((entry.key, entry.value?)))
        .collect()
}
