//! The slowest HTTP requests.

use pyxis_sdk::prelude::*;

pyxis_sdk::script!(run);

fn run(args: Args) -> Result<()> {
    let requests = table("http_events")?
        .filter(col("latency").ge(args.duration_ns("min-latency")?))?
        .filter_some(services::side(&args.string("side")?))?
        .filter_some(args.get::<Option<String>>("path")?.map(|path| col("req_path").contains(&path)))?;
    services::with_service(&requests)?
        .filter_some(args.get::<Option<String>>("service")?.map(|service| col("service").contains(&service)))?
        .select([
            col("latency").named("latency"),
            col("time_").named("time_"),
            col("service").named("service"),
            expr("trace_role_name(trace_role)").named("side"),
            col("req_method").named("method"),
            col("req_path").named("path"),
            col("resp_status").named("status"),
            col("resp_body_size").named("resp_bytes"),
            col("remote_addr").named("remote_addr"),
        ])?
        .sort([desc("latency")])?
        .limit(args.count("limit")?)?
        .display("slow_requests")
}
