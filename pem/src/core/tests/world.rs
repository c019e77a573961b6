//! A machine whose kernel is this file.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use ebpf_abi::*;
use pem_tables::{Store, StoreConfig, TimeRange, catalog};

use crate::core::record::encode;
use crate::core::{Config, Core};
use crate::input::{Clock, Input};

pub fn store() -> Arc<Store> {
    Store::new(StoreConfig::default(), catalog::ALL)
}

/// Positions reached: by connection, sent and received.
type Positions = std::collections::BTreeMap<u64, [u64; 2]>;

pub struct World {
    pub core: Core,
    pub store: Arc<Store>,
    pub now_ns: u64,
    seq: u64,
    positions: Positions,
}

impl World {
    pub const ASID: u32 = 3;
    pub const PID: u32 = 4711;
    pub const START_NS: u64 = 55_010_000_000;
    pub const BOOT_TO_EPOCH_NS: i64 = 1_700_000_000_000_000_000;

    pub fn clock() -> Clock {
        Clock {
            boot_to_epoch_ns: Self::BOOT_TO_EPOCH_NS,
            asid: Self::ASID,
            hz: 100,
            hostname: "testhost".into(),
            ..Clock::default()
        }
    }

    pub fn new() -> Self {
        Self::with(Config::default())
    }

    pub fn with(config: Config) -> Self {
        let mut world = Self::silent();
        world.core = {
            let store = store();
            let core = Core::new(config, &store);
            world.store = store;
            core
        };
        world.core.apply(Input::Clock(Self::clock()));
        world.tick();
        world
    }

    /// Only makes records.
    pub fn silent() -> Self {
        let store = store();
        Self {
            core: Core::new(Config::default(), &store),
            store,
            now_ns: 100_000_000_000,
            seq: 0,
            positions: Positions::new(),
        }
    }

    fn header(&mut self, kind: Kind) -> Header {
        self.now_ns += 1_000;
        self.seq += 1;
        Header { kind: kind as u16, cpu: 0, len: 0, seq: self.seq, time_ns: self.now_ns }
    }

    pub fn skip_to(&mut self, seq: u64) {
        self.seq = seq - 1;
    }

    /// Gives numbers out again: what was made with them never was a record.
    pub fn skip_back(&mut self, count: u64) {
        self.seq -= count;
    }

    fn process() -> Process {
        Process { pid: Self::PID, zero: 0, start_ns: Self::START_NS }
    }

    pub fn open_record(&mut self, conn_id: u64, role: u8, remote: [u8; 4], port: u16, existing: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let end = |addr: [u8; 4], port| {
            let mut end = Endpoint { port, family: 2, ..Endpoint::default() };
            end.addr[..4].copy_from_slice(&addr);
            end
        };
        let open = ConnOpen {
            header: self.header(Kind::ConnOpen),
            process: Self::process(),
            conn_id,
            local: end([127, 0, 0, 1], 80),
            remote: end(remote, port),
            transport: 6,
            role,
            flags: if existing { open_flags::EXISTING } else { 0 },
            fd: -1,
            ..ConnOpen::default()
        };
        encode::conn_open(&mut out, &open);
        out
    }

    /// Told to another reader before.
    pub fn apply_open_again(&mut self, conn_id: u64, role: u8, remote: [u8; 4], port: u16) {
        let mut record = self.open_record(conn_id, role, remote, port, true);
        // `flags` lie behind header, process, connection, both ends and four bytes.
        record[100..102].copy_from_slice(&open_flags::AGAIN.to_ne_bytes());
        self.apply_all([&record]);
    }

    pub fn close_record(&mut self, conn_id: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let [sent_bytes, recv_bytes] = self.positions.remove(&conn_id).unwrap_or_default();
        let stats = ConnStats {
            header: self.header(Kind::ConnClose),
            process: Self::process(),
            conn_id,
            sent_bytes,
            recv_bytes,
            role: role::UNKNOWN,
            ..ConnStats::default()
        };
        encode::conn_close(&mut out, &ConnClose { stats });
        out
    }

    pub fn exec_record(&mut self, comm: &str, filename: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut exec = ProcExec {
            header: self.header(Kind::ProcExec),
            process: Self::process(),
            comm: [0; COMM_LEN],
            filename: [0; FILENAME_MAX],
        };
        exec.comm[..comm.len()].copy_from_slice(comm.as_bytes());
        exec.filename[..filename.len()].copy_from_slice(filename.as_bytes());
        encode::proc_exec(&mut out, &exec);
        out
    }

    pub fn exit_record(&mut self, exit_code: u32, signal: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let exit = ProcExit {
            header: self.header(Kind::ProcExit),
            process: Self::process(),
            comm: *b"proc\0\0\0\0\0\0\0\0\0\0\0\0",
            exit_code,
            signal,
        };
        encode::proc_exit(&mut out, &exit);
        out
    }

    pub fn data(&mut self, conn_id: u64, sent: bool, pos: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let data = Data {
            header: self.header(Kind::Data),
            process: Self::process(),
            conn_id,
            pos,
            total: payload.len() as u32,
            direction: if sent { direction::SEND } else { direction::RECV },
            role: role::UNKNOWN,
            flags: data_flags::POS_EXACT,
            ..Data::default()
        };
        encode::data(&mut out, &data, payload);
        out
    }

    /// Bytes that the kernel counted and did not copy.
    pub fn unseen(&mut self, conn_id: u64, sent: bool, total: u32) -> Vec<u8> {
        let place = &mut self.positions.entry(conn_id).or_default()[usize::from(!sent)];
        let pos = *place;
        *place += u64::from(total);
        let mut out = self.data(conn_id, sent, pos, b"");
        // `total` lies behind header, process, connection and position.
        out[56..60].copy_from_slice(&total.to_ne_bytes());
        out
    }

    /// At the position that the connection's direction has reached.
    pub fn next_data(&mut self, conn_id: u64, sent: bool, payload: &[u8]) -> Vec<u8> {
        let place = &mut self.positions.entry(conn_id).or_default()[usize::from(!sent)];
        let pos = *place;
        *place += payload.len() as u64;
        self.data(conn_id, sent, pos, payload)
    }

    pub fn apply_all<'a>(&mut self, records: impl IntoIterator<Item = &'a Vec<u8>>) {
        for record in records {
            self.core.apply(Input::Record(record));
        }
    }

    pub fn apply_open(&mut self, conn_id: u64, role: u8, remote: [u8; 4], port: u16, existing: bool) {
        let record = self.open_record(conn_id, role, remote, port, existing);
        self.apply_all([&record]);
    }

    pub fn server(&mut self, conn_id: u64, remote: [u8; 4], port: u16) -> u64 {
        self.apply_open(conn_id, role::SERVER, remote, port, false);
        conn_id
    }

    pub fn client(&mut self, conn_id: u64, remote: [u8; 4], port: u16) -> u64 {
        self.apply_open(conn_id, role::CLIENT, remote, port, false);
        conn_id
    }

    pub fn recv(&mut self, conn_id: u64, payload: &[u8]) {
        let record = self.next_data(conn_id, false, payload);
        self.apply_all([&record]);
    }

    pub fn send(&mut self, conn_id: u64, payload: &[u8]) {
        let record = self.next_data(conn_id, true, payload);
        self.apply_all([&record]);
    }

    pub fn recv_at(&mut self, conn_id: u64, pos: u64, payload: &[u8]) {
        let record = self.data(conn_id, false, pos, payload);
        self.apply_all([&record]);
    }

    pub fn send_at(&mut self, conn_id: u64, pos: u64, payload: &[u8]) {
        let record = self.data(conn_id, true, pos, payload);
        self.apply_all([&record]);
    }

    pub fn stats(&mut self, conn_id: u64, sent_bytes: u64, recv_bytes: u64) {
        let mut out = Vec::new();
        let header = self.header(Kind::ConnStats);
        let stats =
            ConnStats { header, process: Self::process(), conn_id, sent_bytes, recv_bytes, ..ConnStats::default() };
        encode::conn_stats(&mut out, &stats);
        self.apply_all([&out]);
    }

    pub fn close(&mut self, conn_id: u64) {
        let record = self.close_record(conn_id);
        self.apply_all([&record]);
    }

    pub fn exec(&mut self, comm: &str, filename: &str) {
        let record = self.exec_record(comm, filename);
        self.apply_all([&record]);
    }

    /// Other kernel programs: their numbers and positions begin at 0.
    pub fn restart(&mut self) {
        self.seq = 0;
        self.positions.clear();
    }

    pub fn exit(&mut self, code: u32, signal: u32) {
        let record = self.exit_record(code, signal);
        self.apply_all([&record]);
    }

    pub fn tick(&mut self) {
        self.now_ns += 1;
        self.core.apply(Input::Tick { now_ns: self.now_ns });
    }

    pub fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now_ns += 100_000_000;
            self.tick();
        }
    }

    pub fn finish(self) -> Arc<Store> {
        self.store
    }
}

fn arrays(store: &Store, table: &str, name: &str) -> Vec<ArrayRef> {
    let table = store.table(table).unwrap();
    let index = table.spec().column_index(name).unwrap_or_else(|| panic!("no column {name}"));
    table.scan(TimeRange::ALL, Some(&[index])).map(|batch| batch.column(0).clone()).collect()
}

/// Values as text.
pub fn column(store: &Store, table: &str, name: &str) -> Vec<String> {
    let options = FormatOptions::default();
    let mut out = Vec::new();
    for array in arrays(store, table, name) {
        let formatter = ArrayFormatter::try_new(&array, &options).unwrap();
        out.extend((0..array.len()).map(|row| formatter.value(row).to_string()));
    }
    out
}

pub fn texts(store: &Store, table: &str, name: &str) -> Vec<String> {
    column(store, table, name)
}

pub fn ints(store: &Store, table: &str, name: &str) -> Vec<i64> {
    let mut out = Vec::new();
    for array in arrays(store, table, name) {
        match array.as_primitive_opt::<Int64Type>() {
            Some(values) => out.extend(values.values()),
            None => out.extend(array.as_primitive::<TimestampNanosecondType>().values()),
        }
    }
    out
}

/// A table for a message.
pub fn dump(store: &Store, table: &str) -> String {
    let batches: Vec<_> = store.table(table).unwrap().scan(TimeRange::ALL, None).collect();
    arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
}
