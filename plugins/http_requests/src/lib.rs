//! The latest HTTP requests, one row each.

use pyxis_sdk::prelude::*;

pyxis_sdk::script!(run);

fn run(args: Args) -> Result<()> {
    let requests = table("http_events")?
        .filter_some(services::side(&args.string("side")?))?
        .filter_some(args.get::<Option<String>>("path")?.map(|path| col("req_path").contains(&path)))?
        .filter_some(args.get::<Option<String>>("method")?.map(|method| col("req_method").eq(method.to_uppercase())))?
        .filter(col("resp_status").ge(args.int64("min-status")?))?
        .filter(col("latency").ge(args.duration_ns("min-latency")?))?;
    services::with_service(&requests)?
        .filter_some(args.get::<Option<String>>("service")?.map(|service| col("service").contains(&service)))?
        .select([
            col("time_").named("time_"),
            col("service").named("service"),
            expr("trace_role_name(trace_role)").named("side"),
            col("req_method").named("method"),
            col("req_path").named("path"),
            col("resp_status").named("status"),
            col("latency").named("latency"),
            col("req_body_size").named("req_bytes"),
            col("resp_body_size").named("resp_bytes"),
            col("remote_addr").named("remote_addr"),
            col("remote_port").named("remote_port"),
        ])?
        // The latest, then in the order they came.
        .sort([desc("time_")])?
        .limit(args.count("limit")?)?
        .sort([asc("time_")])?
        .display("http_requests")
}
