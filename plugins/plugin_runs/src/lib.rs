//! What scripts and queries cost, and how they ended.

use pyxis_sdk::prelude::*;

pyxis_sdk::script!(run);

fn run(args: Args) -> Result<()> {
    let script = args.get::<Option<String>>("script")?;
    let runs = table("plugin_runs")?
        .filter_some(script.map(|name| col("name").eq(name)))?
        .filter_some(args.boolean("failed")?.then(|| col("status").ne("ok")))?;
    runs.aggregate(
        [col("name").named("name"), col("tenant").named("tenant")],
        [
            count().named("runs"),
            expr("sum(CASE WHEN status = 'ok' THEN 0 ELSE 1 END)").named("failed"),
            expr("sum(guest_cpu_ns + host_cpu_ns)").named("cpu"),
            quantile("total_ns", 0.5).named("p50"),
            quantile("total_ns", 0.99).named("p99"),
            max("memory_peak_bytes").named("memory"),
            sum("rows_scanned").named("scanned"),
            sum("bytes_output").named("output"),
        ],
    )?
    .sort([desc("cpu")])?
    .display("scripts")?;
    runs.select([
        col("time_").named("time_"),
        col("name").named("name"),
        col("tenant").named("tenant"),
        col("status").named("status"),
        col("total_ns").named("total"),
        col("guest_cpu_ns").named("cpu"),
        col("host_cpu_ns").named("planning"),
        col("memory_peak_bytes").named("memory"),
        col("rows_scanned").named("scanned"),
        col("bytes_output").named("output"),
        col("host_calls").named("calls"),
        col("error").named("error"),
    ])?
    .sort([desc("time_")])?
    .limit(args.count("limit")?)?
    .display("runs")
}
