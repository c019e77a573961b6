//! What the core costs per HTTP request: synthetic records of 50 keep-alive connections through `Core` into the tables.
//!
//! `cargo run -p pem --example http_bench [-- --requests N] [--connections N]`. Prints the median of several runs.

use ebpf_abi::{ConnOpen, Data, Endpoint, Header, Kind, Process, data_flags, direction, protocol, role};
use nix::time::{ClockId, clock_gettime};
use pem::core::record::encode;
use pem::core::{Config, Core};
use pem::input::{Clock, Input};
use pem_tables::{Store, StoreConfig, catalog};

const RUNS: usize = 7;

fn main() {
    let (mut requests, mut connections) = (100_000u64, 50u64);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).unwrap_or_else(|| usage());
        match arg.as_str() {
            "--requests" => requests = number(),
            "--connections" => connections = number(),
            _ => usage(),
        }
    }
    let (records, bytes) = records(requests, connections);
    println!("{requests} requests on {connections} connections, {} bytes of records each", bytes / requests);
    let mut runs: Vec<f64> = (0..RUNS).map(|_| run(&records, requests)).collect();
    runs.sort_by(f64::total_cmp);
    println!("CPU ns per request: median {:.0}, least {:.0}, most {:.0}", runs[RUNS / 2], runs[0], runs[RUNS - 1]);
}

fn usage() -> ! {
    eprintln!("usage: http_bench [--requests N] [--connections N]");
    std::process::exit(2);
}

fn run(records: &[Vec<u8>], requests: u64) -> f64 {
    let store = Store::new(StoreConfig::default(), catalog::ALL);
    let mut core = Core::new(Config::default(), &store);
    core.apply(Input::Clock(Clock { hostname: "bench".into(), ..Clock::default() }));
    let begin = cpu_ns();
    let mut now_ns = 0;
    for (n, record) in records.iter().enumerate() {
        core.apply(Input::Record(record));
        // 5,000 requests per second and a tick every 50 ms.
        if n % 500 == 0 {
            now_ns += 50_000_000;
            core.apply(Input::Tick { now_ns });
        }
    }
    core.apply(Input::Tick { now_ns: now_ns + 50_000_000 });
    let ns = (cpu_ns() - begin) as f64 / requests as f64;
    let rows = store.table("http_events").expect("in the catalog").stats().rows_appended;
    assert_eq!(rows, requests, "rows in http_events");
    ns
}

/// CPU time of this thread: what else runs on the machine does not count.
fn cpu_ns() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has this clock");
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

fn records(requests: u64, connections: u64) -> (Vec<Vec<u8>>, u64) {
    let mut out = Vec::new();
    let mut world = World { seq: 0, time_ns: 1_000_000, positions: vec![[0; 2]; connections as usize] };
    for conn in 0..connections {
        let mut record = Vec::new();
        encode::conn_open(&mut record, &world.open(conn));
        out.push(record);
    }
    let mut bytes = 0;
    for n in 0..requests {
        let conn = n % connections;
        let request = format!(
            "GET /api/products/{}?page={} HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) \
             AppleWebKit/537.36\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\nX-Request-Id: {n:016x}\r\n\
             Connection: keep-alive\r\n\r\n",
            n % 1000,
            n % 7,
        );
        let body = format!("{{\"id\":{n},\"name\":\"product {n}\",\"price\":{}.99,\"stock\":{}}}", n % 100, n % 50);
        let response = format!(
            "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 08:00:00 GMT\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: keep-alive\r\nX-Frame-Options: DENY\r\n\r\n{body}",
            body.len(),
        );
        for (side, payload) in [(direction::RECV, &request), (direction::SEND, &response)] {
            let record = world.data(conn, side, payload.as_bytes());
            bytes += record.len() as u64;
            out.push(record);
        }
    }
    (out, bytes)
}

struct World {
    seq: u64,
    time_ns: u64,
    positions: Vec<[u64; 2]>,
}

impl World {
    fn header(&mut self, kind: Kind) -> Header {
        self.seq += 1;
        self.time_ns += 100_000;
        Header { kind: kind as u16, cpu: 0, len: 0, seq: self.seq, time_ns: self.time_ns }
    }

    fn process() -> Process {
        Process { pid: 4711, zero: 0, start_ns: 1_000_000_000 }
    }

    fn open(&mut self, conn_id: u64) -> ConnOpen {
        let mut end = Endpoint { port: 8080, family: 2, ..Endpoint::default() };
        end.addr[0] = 10;
        ConnOpen {
            header: self.header(Kind::ConnOpen),
            process: Self::process(),
            conn_id,
            local: end,
            remote: Endpoint { port: 40_000 + conn_id as u16, ..end },
            transport: 6,
            role: role::SERVER,
            fd: -1,
            ..ConnOpen::default()
        }
    }

    fn data(&mut self, conn_id: u64, side: u8, payload: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        let place = &mut self.positions[conn_id as usize][usize::from(side == direction::SEND)];
        let pos = *place;
        *place += payload.len() as u64;
        let data = Data {
            header: self.header(Kind::Data),
            process: Self::process(),
            conn_id,
            pos,
            total: payload.len() as u32,
            direction: side,
            protocol: protocol::HTTP,
            role: role::SERVER,
            flags: data_flags::POS_EXACT,
            ..Data::default()
        };
        encode::data(&mut record, &data, payload);
        record
    }
}
