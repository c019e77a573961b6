//! Rate, errors, latency and bytes of HTTP requests, by service and path pattern.

use pyxis_sdk::prelude::*;

pyxis_sdk::script!(run);

fn run(args: Args) -> Result<()> {
    let requests = table("http_events")?
        .filter_some(services::side(&args.string("side")?))?
        .filter_some(args.get::<Option<String>>("path")?.map(|path| col("req_path").contains(&path)))?;
    let requests = services::with_service(&requests)?
        .filter_some(args.get::<Option<String>>("service")?.map(|service| col("service").contains(&service)))?;
    let mut keys = vec![col("service").named("service")];
    if args.string("by")? == "path" {
        keys.push(expr("path_pattern(req_path)").named("path"));
    }
    let names: Vec<Named> = keys.iter().map(|key| col(key.name()).named(key.name())).collect();
    let totals = requests.aggregate(
        keys,
        [
            count().named("requests"),
            count_where(col("resp_status").ge(400)).named("failed"),
            quantile("latency", 0.5).named("p50"),
            quantile("latency", 0.9).named("p90"),
            quantile("latency", 0.99).named("p99"),
            sum("req_body_size").named("in_total"),
            sum("resp_body_size").named("out_total"),
        ],
    )?;
    let per_second = |column: &str, name: &str| (col(column) / lit(clock::range_s())).named(name);
    let shown = [
        col("requests").named("requests"),
        per_second("requests", "rate"),
        expr("CAST(failed AS DOUBLE) / requests").named("errors"),
        col("p50").named("p50"),
        col("p90").named("p90"),
        col("p99").named("p99"),
        per_second("in_total", "bytes_in"),
        per_second("out_total", "bytes_out"),
    ];
    totals
        .select(names.into_iter().chain(shown))?
        // The service breaks ties, so that refreshing does not shuffle rows.
        .sort([desc("requests"), asc("service")])?
        .limit(args.count("limit")?)?
        .display("service_stats")
}
