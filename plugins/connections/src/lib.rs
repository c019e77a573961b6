//! Who talks to whom.

use pyxis_sdk::prelude::*;

pyxis_sdk::script!(run);

fn run(args: Args) -> Result<()> {
    let keys = ["upid", "trace_role", "protocol", "remote_addr", "remote_port"];
    // Counters only grow, so the largest is the last; the gauge is not.
    let endpoints = table("conn_stats")?
        .filter_some(args.get::<Option<String>>("remote")?.map(|remote| col("remote_addr").eq(remote)))?
        .aggregate(
            keys.map(col),
            [
                expr("last_value(conn_active ORDER BY time_)").named("open"),
                max("conn_open").named("opened"),
                max("conn_close").named("closed"),
                max("bytes_sent").named("sent"),
                max("bytes_recv").named("received"),
            ],
        )?
        .filter_some(args.boolean("open")?.then(|| col("open").gt(0)))?;
    services::with_service(&endpoints)?
        .filter_some(args.get::<Option<String>>("service")?.map(|service| col("service").contains(&service)))?
        .select([
            col("service").named("service"),
            expr("upid_pid(upid)").named("pid"),
            expr("trace_role_name(trace_role)").named("side"),
            expr("protocol_name(protocol)").named("protocol"),
            col("remote_addr").named("remote_addr"),
            col("remote_port").named("remote_port"),
            col("open").named("open"),
            col("opened").named("opened"),
            col("closed").named("closed"),
            col("sent").named("sent"),
            col("received").named("received"),
        ])?
        .sort([desc("sent + received"), asc("service"), asc("remote_addr")])?
        .limit(args.count("limit")?)?
        .display("connections")
}
