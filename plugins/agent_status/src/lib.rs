//! What Pyxis itself costs, what it lost, and what its probes are doing.

use pyxis_sdk::prelude::*;

pyxis_sdk::script!(run);

fn run(args: Args) -> Result<()> {
    cost()?.display("cost")?;
    loss()?.display("loss")?;
    probes(args.boolean("all-probes")?)?.display("probes")
}

/// Counters of `agent_stats`.
const COUNTERS: [&str; 4] = ["cpu_ns", "events", "events_lost", "rows_appended"];

fn cost() -> Result<Frame> {
    // By agent, since each has a component of that name; from sample to sample, since a component that began anew counts from
    // nothing again, and what it had counted before is no negative growth.
    let before = |counter: &&str| {
        let sample = "(PARTITION BY agent, component ORDER BY time_)";
        expr(format!("lag({counter}) OVER {sample}")).named(format!("{counter}_before"))
    };
    let grown = |counter: &str| {
        format!("sum(CASE WHEN {counter} < {counter}_before THEN {counter} ELSE {counter} - {counter}_before END)")
    };
    let per_second = |column: &str, name: &str| {
        expr(format!("CAST({column} AS DOUBLE) / nullif(CAST(over_ns AS DOUBLE) / 1e9, 0)")).named(name)
    };
    table("agent_stats")?
        .window(COUNTERS.iter().map(before))?
        .with_columns([expr("CAST(time_ AS BIGINT)").named("at")])?
        .aggregate(
            [col("agent"), col("component")],
            [
                expr("max(at) - min(at)").named("over_ns"),
                expr(grown("cpu_ns")).named("cpu_ns"),
                expr(grown("events")).named("events_grown"),
                expr(grown("rows_appended")).named("rows_grown"),
                expr(format!("coalesce({}, 0)", grown("events_lost"))).named("lost"),
                expr("last_value(rss_bytes ORDER BY time_)").named("memory"),
                expr("last_value(ring_bytes_waiting ORDER BY time_)").named("ring_waiting"),
            ],
        )?
        .select([
            col("agent").named("agent"),
            col("component").named("component"),
            expr("CAST(cpu_ns AS DOUBLE) / nullif(over_ns, 0)").named("cpu"),
            col("memory").named("memory"),
            col("ring_waiting").named("ring_waiting"),
            per_second("events_grown", "events"),
            col("lost").named("lost"),
            per_second("rows_grown", "rows"),
        ])?
        .sort([asc("agent"), asc("component")])
}

fn loss() -> Result<Frame> {
    table("data_loss")?
        .aggregate(
            [
                col("agent").named("agent"),
                col("table_name").named("table"),
                col("source").named("source"),
                col("reason").named("reason"),
            ],
            [
                sum("events").named("events"),
                sum("bytes").named("bytes"),
                // Where nobody counted there is a time without capture instead.
                expr("sum(CASE WHEN events IS NULL THEN CAST(duration_ns AS BIGINT) END)").named("unseen"),
                max("time_").named("last"),
            ],
        )?
        .sort([desc("unseen"), desc("events"), asc("reason")])
}

fn probes(all: bool) -> Result<Frame> {
    // A probe's state is written when it changes, which may be long before the range.
    Frame::of_range("probe_status", 0..clock::range_ns().end)?
        .aggregate(
            [col("source_connector").named("connector"), col("tracepoint").named("probe")],
            [
                expr("last_value(status ORDER BY time_)").named("status"),
                expr("last_value(error ORDER BY time_)").named("error"),
                max("time_").named("since"),
            ],
        )?
        .filter_some((!all).then(|| col("status").ne(0)))?
        .sort([asc("probe")])
}
