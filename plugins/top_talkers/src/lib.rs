//! Which services exchange most bytes with which addresses, within the time range.

use pyxis_sdk::prelude::*;

pyxis_sdk::script!(run);

fn run(args: Args) -> Result<()> {
    // What each endpoint's counters grew by. One sample tells what happened before it was taken: from nothing to there, unless
    // the endpoint was known before the range, which its own row cannot tell; so the first sample counts as the start.
    let grown = |column: &str| format!("max({column}) - min({column})");
    let endpoints = table("conn_stats")?.aggregate(
        ["upid", "trace_role", "remote_addr", "remote_port"].map(col),
        [
            expr(grown("bytes_sent")).named("sent_bytes"),
            expr(grown("bytes_recv")).named("received_bytes"),
            expr(grown("conn_open")).named("opened"),
        ],
    )?;
    let mut keys = vec![col("service").named("service")];
    if args.string("by")? == "remote" {
        keys.push(expr("trace_role_name(trace_role)").named("side"));
        keys.push(col("remote_addr").named("remote_addr"));
    }
    let names: Vec<Named> = keys.iter().map(|key| col(key.name()).named(key.name())).collect();
    let seconds = clock::range_s();
    services::with_service(&endpoints)?
        .filter_some(args.get::<Option<String>>("service")?.map(|service| col("service").contains(&service)))?
        .aggregate(
            keys,
            [
                sum("sent_bytes").named("sent_bytes"),
                sum("received_bytes").named("received_bytes"),
                sum("opened").named("opened"),
            ],
        )?
        .select(names.into_iter().chain([
            expr("sent_bytes + received_bytes").named("total"),
            (col("sent_bytes") / lit(seconds)).named("sent"),
            (col("received_bytes") / lit(seconds)).named("received"),
            col("opened").named("opened"),
        ]))?
        .sort([desc("total"), asc("service")])?
        .limit(args.count("limit")?)?
        .display("top_talkers")
}
