//! Processes with their processor time, memory and disk traffic.

use pyxis_sdk::prelude::*;

pyxis_sdk::script!(run);

fn run(args: Args) -> Result<()> {
    // Counters of the process: what grew between the first and the last sample, over the time between the two.
    let grown = |column: &str| format!("max({column}) - min({column})");
    let samples = table("process_stats")?.with_columns([
        expr("CAST(time_ AS BIGINT)").named("at"),
        expr("cpu_utime_ns + cpu_ktime_ns").named("cpu_ns"),
    ])?;
    let used = samples.aggregate(
        [col("upid")],
        [
            expr(grown("cpu_ns")).named("cpu_ns"),
            expr(grown("at")).named("over_ns"),
            expr(grown("read_bytes")).named("read_bytes"),
            expr(grown("write_bytes")).named("write_bytes"),
            expr("last_value(rss_bytes ORDER BY time_)").named("rss"),
            expr("last_value(num_threads ORDER BY time_)").named("threads"),
        ],
    )?;
    // One sample alone says nothing of rates: null rather than zero.
    let per_second = |column: &str, name: &str| {
        expr(format!("CAST({column} AS DOUBLE) / nullif(CAST(over_ns AS DOUBLE) / 1e9, 0)")).named(name)
    };
    let names = services::processes()?.select([
        col("upid").named("process_upid"),
        col("service").named("known_service"),
        col("cmdline").named("command"),
        col("started_at").named("started_at"),
    ])?;
    let order = match args.string("sort")?.as_str() {
        "memory" => "rss",
        "disk" => "coalesce(read, 0) + coalesce(written, 0)",
        _ => "cpu",
    };
    used.join(&names, JoinKind::Left, [("upid", "process_upid")])?
        .select([
            expr("coalesce(known_service, upid_string(upid))").named("service"),
            expr("upid_pid(upid)").named("pid"),
            expr("CAST(cpu_ns AS DOUBLE) / nullif(over_ns, 0)").named("cpu"),
            col("rss").named("rss"),
            col("threads").named("threads"),
            per_second("read_bytes", "read"),
            per_second("write_bytes", "written"),
            col("started_at").named("started_at"),
            col("command").named("command"),
        ])?
        .filter_some(args.get::<Option<String>>("service")?.map(|service| col("service").contains(&service)))?
        .sort([desc(order), asc("pid")])?
        .limit(args.count("limit")?)?
        .display("processes")
}
