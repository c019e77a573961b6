//! What the table store costs and gives on HTTP traffic: `cargo run -p pem-tables --example store_bench [rows [all|write [budget MiB]]]`.

mod traffic;

use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use nix::time::{ClockId, clock_gettime};
use pem_tables::{Literal, Predicate, Store, StoreConfig, Table, TimeRange, Value, catalog};
use traffic::{Request, Traffic};

/// CPU time of this thread: what a thing costs, whatever else the machine does meanwhile.
struct Clock(Duration);

impl Clock {
    fn start() -> Clock {
        Clock(Clock::read())
    }

    fn elapsed(&self) -> Duration {
        Clock::read() - self.0
    }

    fn read() -> Duration {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has it").into()
    }
}

/// Requests a second of the traffic, and so rows of a publish at ten publishes a second.
const RATE: usize = 5_000;

fn main() {
    let rows: usize = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().expect("number of rows"));
    let budget_mib: usize = std::env::args().nth(3).map_or(4096, |text| text.parse().expect("budget in MiB"));
    let config = StoreConfig { budget_bytes: budget_mib << 20, ..StoreConfig::default() };
    let store = Store::new(config, &[&catalog::HTTP_EVENTS]);
    let table = store.table("http_events").expect("it is in the catalog");
    let before = resident();
    write(&table, rows);
    println!(
        "  resident memory grew by {} MiB; the table counts {}",
        (resident() - before) >> 20,
        table.stats().bytes >> 20
    );
    if std::env::args().nth(2).is_some_and(|only| only == "write") {
        return;
    }
    size(&table);
    scan(&table);
}

fn write(table: &std::sync::Arc<Table>, rows: usize) {
    let mut traffic = Traffic::new(1, RATE as f64);
    let mut appender = table.appender();
    let mut requests = vec![Request::default(); RATE / 10];
    let mut append = Duration::ZERO;
    let mut publishes = Vec::new();
    let mut now_ns = 0;
    for _ in 0..rows / requests.len() {
        requests.iter_mut().for_each(|request| traffic.next(request));
        let start = Clock::start();
        for request in &requests {
            appender.append(&row(request)).expect("a row of http_events");
        }
        append += start.elapsed();
        now_ns += 100_000_000;
        let start = Clock::start();
        appender.publish(now_ns);
        publishes.push(start.elapsed());
    }
    let total: Duration = publishes.iter().sum();
    publishes.sort_unstable();
    let at = |share: f64| publishes[((publishes.len() - 1) as f64 * share) as usize];
    println!("write, CPU time: {rows} rows, {} per publish", requests.len());
    println!("  append                  {:>8.0} ns/row", append.as_nanos() as f64 / rows as f64);
    println!("  publish, with sealing   {:>8.0} ns/row", total.as_nanos() as f64 / rows as f64);
    println!("  publish p50 / p99 / max {:>8.1?} {:.1?} {:.1?}", at(0.5), at(0.99), at(1.0));
}

fn row(request: &Request) -> [Value<'_>; 22] {
    [
        Value::Time(request.time_ns),
        Value::U128(request.upid),
        Value::Str(&request.remote_addr),
        Value::Int(request.remote_port),
        Value::Str(&request.local_addr),
        Value::Int(request.local_port),
        Value::Int(request.trace_role),
        Value::Bool(false),
        Value::Int(1),
        Value::Int(request.minor_version),
        Value::Int(request.content_type),
        Value::Str(&request.req_headers),
        Value::Str(request.req_method),
        Value::Str(&request.req_path),
        Value::Str(&request.req_body),
        Value::Int(request.req_body_size),
        Value::Str(&request.resp_headers),
        Value::Int(request.resp_status),
        Value::Str(request.resp_message),
        Value::Str(&request.resp_body),
        Value::Int(request.resp_body_size),
        Value::Int(request.latency),
    ]
}

fn size(table: &Table) {
    let stats = table.stats();
    let (mut plain, mut dictionary) = (0, 0);
    let mut plain_columns = vec![0; table.schema().fields().len()];
    for batch in table.scan(TimeRange::ALL, None) {
        dictionary += batch.columns().iter().map(|column| bytes(column.as_ref())).sum::<usize>();
        for (sum, column) in plain_columns.iter_mut().zip(batch.columns()) {
            let column = match column.data_type() {
                DataType::Dictionary(..) => cast(column, &DataType::Utf8).expect("labels are strings"),
                _ => column.clone(),
            };
            *sum += bytes(column.as_ref());
        }
    }
    plain += plain_columns.iter().sum::<usize>();
    let rows = stats.rows as f64;
    let line = |name: &str, bytes: usize| {
        println!(
            "  {name:<28} {:>7.1} bytes/row {:>7.0} rows/MiB {:>6.2}x",
            bytes as f64 / rows,
            rows / (bytes as f64 / f64::from(1 << 20)),
            plain as f64 / bytes as f64
        );
    };
    println!("size: {} rows, {} sealed batches", stats.rows, stats.sealed_batches);
    line("plain Arrow", plain);
    line("  (as the table counts it)", stats.bytes_plain);
    line("Arrow with dictionaries", dictionary);
    line("this store, all it holds", stats.bytes);
    let columns = table.column_bytes();
    line("this store, sealed batches", columns.iter().sum());
    println!("  column              plain   store  (bytes/row)");
    for ((spec, plain), sealed) in table.spec().columns.iter().zip(&plain_columns).zip(columns) {
        println!("    {:<16} {:>7.2} {:>7.2}", spec.name, *plain as f64 / rows, sealed as f64 / rows);
    }
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages come second") * 4096
}

/// Bytes of the buffers as they would be written: no spare capacity.
fn bytes(array: &dyn Array) -> usize {
    let data = array.to_data();
    data.get_slice_memory_size().expect("arrays of known layout")
        + data.child_data().iter().map(|child| child.get_slice_memory_size().unwrap_or(0)).sum::<usize>()
            * usize::from(matches!(array.data_type(), DataType::Dictionary(..)))
}

fn scan(table: &Table) {
    println!("scan, one thread, CPU time, best of 5");
    let column = |name: &str| table.spec().column_index(name).expect("a column of http_events");
    let columns = |names: &[&str]| names.iter().map(|name| column(name)).collect::<Vec<_>>();
    let narrow = columns(&["time_", "resp_status", "latency", "req_path"]);
    run(table, "time_, resp_status, latency, req_path", &narrow, &[]);
    run(table, "time_, resp_status, latency", &narrow[..3], &[]);
    run(table, "upid, remote_addr, latency", &columns(&["upid", "remote_addr", "latency"]), &[]);
    run(table, "req_path", &columns(&["req_path"]), &[]);
    run(table, "req_headers", &columns(&["req_headers"]), &[]);
    run(table, "resp_body", &columns(&["resp_body"]), &[]);
    let all: Vec<usize> = (0..table.spec().columns.len()).collect();
    run(table, "all columns", &all, &[]);
    let slow = [Predicate::Gt(column("latency"), Literal::Int(5_000_000_000))];
    run(table, "all columns where latency > 5 s", &all, &slow);
    let unknown = [Predicate::Eq(column("req_method"), Literal::Str("PATCH".to_owned()))];
    run(table, "all columns where req_method = 'PATCH'", &all, &unknown);
}

fn run(table: &Table, name: &str, projection: &[usize], predicates: &[Predicate]) {
    let mut best = Duration::MAX;
    let (mut rows, mut out_bytes) = (0, 0);
    for _ in 0..5 {
        let start = Clock::start();
        let mut scan = table.scan_filtered(TimeRange::ALL, Some(projection), predicates);
        rows = 0;
        for batch in scan.by_ref() {
            rows += touch(&batch);
        }
        best = best.min(start.elapsed());
        out_bytes = scan.counts().bytes_read;
    }
    let total = table.stats().rows as f64;
    println!(
        "  {name:<40} {rows:>8} rows {:>7.1} ms {:>7.0} M values/s {:>6.2} GB/s",
        best.as_secs_f64() * 1e3,
        total * projection.len() as f64 / best.as_secs_f64() / 1e6,
        out_bytes as f64 / best.as_secs_f64() / 1e9
    );
}

fn touch(batch: &RecordBatch) -> usize {
    std::hint::black_box(batch).num_rows()
}
