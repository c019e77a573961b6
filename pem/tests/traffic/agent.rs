//! An agent without its processes: the real programs, and the core, driven by the test.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Array;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use ebpf_abi::RING_BYTES;
use pem::core::{Config, Core};
use pem::input::{Input, Loss};
use pem::probes::{Counters, Reader, load};
use pem::sources::{self, LocalProc, Sources, clock};
use pem_tables::{Store, StoreConfig, TimeRange, catalog};

use crate::object::{lack, object};

/// An agent in this process.
pub struct Agent {
    pub store: Arc<Store>,
    core: Core,
    sources: Sources,
    local: LocalProc,
    reader: Reader,
    counters: Counters,
    _probes: load::Probes,
}

impl Agent {
    pub fn start() -> Option<Self> {
        if let Some(why) = lack() {
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let mut config = load::Config::new(object());
        // This process reads; only what it starts later is watched, so nothing but itself is left out.
        config.ignore_pids = Vec::new();
        let probes = match load::Probes::load(&config) {
            Ok(probes) => probes,
            Err(error) => {
                eprintln!("SKIPPED: this kernel does not take the programs: {error}");
                return None;
            }
        };
        let owned = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let reader = Reader::new(owned(probes.ring().as_fd()), RING_BYTES).unwrap();
        let counters = Counters::new(owned(probes.counters().as_fd())).unwrap();
        let store = Store::new(StoreConfig::default(), catalog::ALL);
        let mut agent = Self {
            core: Core::new(Config::default(), &store),
            store,
            sources: Sources::new(sources::Config::default()),
            local: LocalProc::default(),
            reader,
            counters,
            _probes: probes,
        };
        agent.round();
        Some(agent)
    }

    /// What an agent's loop does once.
    pub fn round(&mut self) {
        let Self { core, sources, local, reader, counters, .. } = self;
        // The clock comes with the first poll, and records need it.
        sources.poll(clock::boot_ns(), reader.waiting(), local, &mut |input| core.apply(input));
        reader
            .for_each(usize::MAX, |record| {
                sources.observe(record);
                core.apply(Input::Record(record));
            })
            .unwrap();
        for (cpu, counted) in counters.active() {
            core.apply(Input::Loss(Loss { time_ns: clock::boot_ns(), cpu, slots: counted.slots, told: false }));
        }
        core.apply(Input::Tick { now_ns: clock::boot_ns() });
    }

    /// Goes on until this holds of the tables, or for ten seconds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds(self) {
            assert!(Instant::now() < deadline, "not {what} in time:\n{}", self.dump());
            self.reader.wait(Duration::from_millis(50)).unwrap();
            self.round();
        }
    }

    /// Runs a program to its end while watching.
    pub fn run(&mut self, command: &mut Command) -> String {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = out.read_to_string(&mut text);
            text
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            self.round();
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{command:?} hangs");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut errors = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut errors);
        assert!(status.success(), "{command:?}: {status}\n{errors}");
        self.round();
        reading.join().unwrap()
    }

    /// Rows of a table: some columns as text.
    pub fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let table = self.store.table(table).unwrap();
        let indices: Vec<usize> = columns.iter().map(|name| table.spec().column_index(name).unwrap()).collect();
        let options = FormatOptions::default();
        let mut rows = Vec::new();
        // A projection need not keep the order asked for: columns are found by name.
        for batch in table.scan(TimeRange::ALL, None) {
            let formatters: Vec<_> = indices
                .iter()
                .map(|index| ArrayFormatter::try_new(batch.column(*index) as &dyn Array, &options).unwrap())
                .collect();
            rows.extend((0..batch.num_rows()).map(|row| formatters.iter().map(|f| f.value(row).to_string()).collect()));
        }
        rows
    }

    /// Requests to a port that its server answered (role 2), or that were sent to it (role 1).
    pub fn requests(&self, port: u16, role: u8) -> Vec<Row> {
        let columns = [
            "req_method",
            "req_path",
            "resp_status",
            "resp_body",
            "req_body",
            "resp_body_size",
            "latency",
            "remote_addr",
            "upid",
            "resp_message",
        ];
        let port_column = if role == 2 { "local_port" } else { "remote_port" };
        let columns: Vec<&str> = [port_column, "trace_role"].into_iter().chain(columns).collect();
        let mut rows = Vec::new();
        for row in self.rows("http_events", &columns) {
            let [p, r, method, path, status, body, req_body, size, latency, remote, upid, message] =
                row.try_into().unwrap();
            if p == port.to_string() && r == role.to_string() {
                let (status, size, latency) =
                    (status.parse().unwrap(), size.parse().unwrap(), latency.parse().unwrap());
                rows.push(Row { method, path, status, body, req_body, size, latency, remote, upid, message });
            }
        }
        rows
    }

    pub fn losses(&self) -> Vec<Vec<String>> {
        self.rows("data_loss", &["source", "table_name", "reason", "events", "bytes"])
    }

    pub fn dump(&self) -> String {
        let rows = self.rows("http_events", &["trace_role", "local_port", "remote_port", "req_path", "resp_status"]);
        format!(
            "{} rows, the last {:?}\nlosses {:?}",
            rows.len(),
            rows.iter().rev().take(10).collect::<Vec<_>>(),
            self.losses()
        )
    }
}

/// A request in `http_events`.
#[derive(Debug, Clone)]
pub struct Row {
    pub method: String,
    pub path: String,
    pub status: u16,
    pub body: String,
    pub req_body: String,
    pub size: u64,
    pub latency: i64,
    pub remote: String,
    pub upid: String,
    pub message: String,
}
