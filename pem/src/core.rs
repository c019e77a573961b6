//! The deterministic core: inputs in, rows out.
//!
//! It reads no clock, does no IO and has no randomness; nothing in it is iterated in an order that differs from run to
//! run. The same inputs give the same bytes in the tables, which is what replay and most tests rest on.

pub mod loss;
pub mod machine;
mod processes;
pub mod record;
mod sequence;
pub mod sink;

#[cfg(test)]
mod tests;

use ebpf_abi::{CPUS_MAX, counter};
use pem_tables::{Store, Value};

use self::loss::{Ledger, Source};
use self::machine::Machine;
use self::processes::Processes;
use self::record::Record;
use self::sequence::Sequences;
use self::sink::Sink;
use crate::conns::{Conns, Outside};
use crate::input::{AgentError, AgentSample, Gap, Input, Loss, NetworkSample, ProbeStatus, ProcessSample};
use crate::protocols::{PROTOCOLS, Rows, Settings};

/// How often sums (`conn_stats`, `data_loss`, changed processes) become rows, as Pixie pushes.
const TELL_NS: u64 = 1_000_000_000;

/// What stands for the helper in `probe_status`: its row of status 0 tells since when all programs are attached.
pub const HELPER: &str = "helper";

/// How the core is set up.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// For the parsers.
    pub settings: Settings,
    /// Name of this agent in `data_loss` and `agent_stats`; empty takes the host's name.
    pub agent: String,
    /// Connections tracked at most; `None` for [`crate::conns::CONNECTIONS_MAX`].
    pub connections_max: Option<usize>,
}

/// The core of an agent: owns the writers of its tables.
pub struct Core {
    config: Config,
    machine: Option<Machine>,
    conns: Conns,
    processes: Processes,
    sequences: Sequences,
    ledger: Ledger,
    /// By CPU.
    counters: Vec<Counters>,
    /// Records lost in the rings of programs that are no more.
    lost_before: u64,
    events: u64,
    /// Since when all kernel programs stand (`CLOCK_BOOTTIME`, ns), as the helper's status says.
    attached_ns: u64,
    told_ns: Option<u64>,
    /// Of the last tick.
    now_ns: u64,
    /// By protocol.
    protocol_rows: Vec<Sink>,
    tables: Tables,
}

/// The kernel's counters of one CPU.
#[derive(Clone, Copy, Default)]
struct Counters {
    /// As last given.
    slots: [u64; counter::SLOTS],
    /// Records that were lost before our time.
    lost_before: u64,
}

impl Counters {
    fn lost(&self) -> u64 {
        self.slots[counter::LOST_RING_FULL].saturating_sub(self.lost_before)
    }
}

struct Tables {
    conn_stats: Sink,
    process_stats: Sink,
    network_stats: Sink,
    proc_exit_events: Sink,
    probe_status: Sink,
    agent_errors: Sink,
    data_loss: Sink,
    processes: Sink,
    agent_stats: Sink,
}

impl Tables {
    fn all(&mut self) -> [&mut Sink; 9] {
        [
            &mut self.conn_stats,
            &mut self.process_stats,
            &mut self.network_stats,
            &mut self.proc_exit_events,
            &mut self.probe_status,
            &mut self.agent_errors,
            &mut self.data_loss,
            &mut self.processes,
            &mut self.agent_stats,
        ]
    }
}

/// Tables that the kernel programs feed, beside those of the protocols. Of `processes` only what lived between two looks
/// at `/proc` is missing without them.
const CAPTURED: &[&str] = &["conn_stats", "proc_exit_events", "processes"];

/// Reasons in `data_loss` for the kernel's counters: which slot, its reason, and the slot of its bytes.
const KERNEL_LOSSES: &[(usize, &str, Option<usize>)] = &[
    (counter::LOST_RING_FULL, "ring_full", Some(counter::LOST_RING_BYTES)),
    (counter::LOST_FAULT, "payload_fault", None),
    (counter::LOST_NO_STATE, "no_connection_state", None),
    (counter::RUNS_SKIPPED, "program_skipped", None),
];

impl Core {
    /// A core that writes to the tables of `store`, whose writers it takes.
    pub fn new(config: Config, store: &Store) -> Self {
        let sink = |table| Sink::new(store, table);
        Self {
            machine: None,
            conns: config.connections_max.map_or_else(Conns::default, Conns::bounded),
            processes: Processes::default(),
            sequences: Sequences::default(),
            ledger: Ledger::default(),
            counters: Vec::new(),
            lost_before: 0,
            events: 0,
            attached_ns: 0,
            told_ns: None,
            now_ns: 0,
            protocol_rows: PROTOCOLS.iter().map(|protocol| sink(protocol.table.name)).collect(),
            tables: Tables {
                conn_stats: sink("conn_stats"),
                process_stats: sink("process_stats"),
                network_stats: sink("network_stats"),
                proc_exit_events: sink("proc_exit_events"),
                probe_status: sink("probe_status"),
                agent_errors: sink("stirling_error"),
                data_loss: sink("data_loss"),
                processes: sink("processes"),
                agent_stats: sink("agent_stats"),
            },
            config,
        }
    }

    /// Takes one input.
    pub fn apply(&mut self, input: Input<'_>) {
        if let Input::Clock(clock) = &input {
            self.machine = Some(Machine::new(clock));
            return;
        }
        // The machine is lent out to the arms, which borrow the rest of the core.
        let Some(machine) = self.machine.take() else {
            let bytes = if let Input::Record(bytes) = input { bytes.len() as u64 } else { 0 };
            return self.ledger.add(Source::Ring, "", "before_first_clock", 1, bytes);
        };
        match input {
            Input::Clock(_) => {}
            Input::Record(bytes) => self.record(&machine, bytes),
            Input::Process(process) => {
                self.processes.learn(&machine, *process, &mut self.ledger, &mut self.tables.processes);
            }
            Input::ProcessGone { time_ns, pid, start_ticks } => {
                self.processes.gone(&machine, pid, start_ticks, time_ns, &mut self.tables.processes);
            }
            Input::ProcessSample(sample) => process_sample(&machine, &sample, &mut self.tables.process_stats),
            Input::NetworkSample(sample) => network_sample(&machine, &sample, &mut self.tables.network_stats),
            Input::ProbeStatus(status) => {
                if status.tracepoint == HELPER && status.status == 0 {
                    self.attached_ns = status.time_ns;
                }
                probe_status(&machine, &status, &mut self.tables.probe_status);
            }
            Input::Loss(loss) => self.loss(&loss),
            Input::Gap(gap) => self.gap(&machine, &gap),
            Input::AgentError(error) => agent_error(&machine, &error, &mut self.tables.agent_errors),
            Input::AgentSample(sample) => self.agent_sample(&machine, &sample),
            Input::Tick { now_ns } => self.tick(&machine, now_ns),
        }
        self.machine = Some(machine);
    }

    /// Connections tracked now.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Rows appended to all tables since the start.
    pub fn rows_appended(&mut self) -> u64 {
        let protocols: u64 = self.protocol_rows.iter().map(Sink::appended).sum();
        protocols + self.tables.all().iter().map(|sink| sink.appended()).sum::<u64>()
    }

    fn record(&mut self, machine: &Machine, bytes: &[u8]) {
        self.events += 1;
        let (header, record) = match record::decode(bytes) {
            Ok(decoded) => decoded,
            Err(_) => return self.ledger.add(Source::Ring, "", "malformed_record", 1, bytes.len() as u64),
        };
        self.sequences.note(header.cpu, header.seq, header.time_ns);
        // Programs are attached one after the other. Until the last stands, one direction of a connection is seen and the other
        // is not: a request from then would be paired with the answer to a later one.
        if header.time_ns < self.attached_ns && matches!(record, Record::Data(..)) {
            return;
        }
        let mut out = Outside {
            machine,
            settings: &self.config.settings,
            rows: &mut self.protocol_rows,
            ledger: &mut self.ledger,
            lossy: self.sequences.lossy(header.time_ns),
        };
        match record {
            Record::Data(data, payload) => self.conns.data(&mut out, &data, payload),
            Record::ConnOpen(open) => self.conns.open(&mut out, &open),
            Record::ConnClose(close) => self.conns.close(&mut out, &close),
            Record::ConnStats(stats) => self.conns.stats(&mut out, &stats),
            Record::ProcExec(filename, exec) => {
                self.processes.exec(machine, &exec, filename, &mut self.ledger, &mut self.tables.processes);
            }
            Record::ProcExit(exit) => {
                // Of two threads that end at the same moment each may look like the last one.
                let upid = machine.upid(exit.process);
                if self.processes.ended(upid) {
                    return;
                }
                self.tables.proc_exit_events.append(&[
                    Value::Time(machine.epoch_ns(exit.header.time_ns)),
                    Value::U128(upid.as_u128()),
                    Value::Int(if exit.signal == 0 { exit.exit_code as i64 } else { -1 }),
                    Value::Int(if exit.signal == 0 { -1 } else { exit.signal as i64 }),
                    Value::Str(&record::text(&exit.comm)),
                ]);
                self.processes.exit(machine, &exit, &mut self.tables.processes);
            }
        }
    }

    /// The kernel's counters run since the programs were loaded. What they count while no agent reads the ring is told by the
    /// next that does; what was counted in the time of another (`told`) was that one's to tell.
    fn loss(&mut self, loss: &Loss) {
        let index = loss.cpu as usize;
        if index >= CPUS_MAX as usize {
            return;
        }
        if self.counters.len() <= index {
            self.counters.resize(index + 1, Counters::default());
        }
        let Some(counters) = self.counters.get_mut(index) else { return };
        if loss.told {
            // The same helper again, after we went on without it for a while: we know better.
            if counters.slots == [0; counter::SLOTS] {
                *counters = Counters { slots: loss.slots, lost_before: loss.slots[counter::LOST_RING_FULL] };
            }
            return;
        }
        let before = counters.slots;
        let grown = |slot: usize| {
            let at = |slots: &[u64; counter::SLOTS]| slots.get(slot).copied().unwrap_or(0);
            at(&loss.slots).saturating_sub(at(&before))
        };
        for &(slot, reason, bytes_slot) in KERNEL_LOSSES {
            let (events, bytes) = (grown(slot), bytes_slot.map_or(0, grown));
            if events > 0 || bytes > 0 {
                self.ledger.add(Source::Ring, "", reason, events, bytes);
            }
        }
        counters.slots = loss.slots;
        let unexplained = self.sequences.unexplained(loss.cpu, counters.lost());
        if unexplained > 0 {
            self.ledger.add(Source::Ring, "", "sequence_gap", unexplained, 0);
        }
    }

    fn gap(&mut self, machine: &Machine, gap: &Gap) {
        self.ledger.unseen(&gap.reason, gap.from_ns, gap.to_ns);
        if !gap.reloaded {
            return;
        }
        // A socket keeps its number over the programs' lives while its positions begin again at 0: held against what we
        // know, its next bytes would be old ones. Each connection begins anew, as one that was joined midway.
        let mut out = Outside {
            machine,
            settings: &self.config.settings,
            rows: &mut self.protocol_rows,
            ledger: &mut self.ledger,
            lossy: false,
        };
        self.conns.forget(&mut out);
        self.sequences = Sequences::default();
        self.lost_before = self.lost_before.saturating_add(self.lost_in_ring());
        self.counters.clear();
    }

    /// Of the programs that are loaded now.
    fn lost_in_ring(&self) -> u64 {
        self.counters.iter().fold(0, |sum, counters| sum.saturating_add(counters.lost()))
    }

    fn agent_sample(&mut self, machine: &Machine, sample: &AgentSample) {
        let reads = sample.component == "pem";
        let lost = self.lost_before.saturating_add(self.lost_in_ring());
        let rows = self.rows_appended();
        let if_reads = |n: u64| Value::Int(if reads { n as i64 } else { 0 });
        let agent = if self.config.agent.is_empty() { &machine.hostname } else { &self.config.agent };
        self.tables.agent_stats.append(&[
            Value::Time(machine.epoch_ns(sample.time_ns)),
            Value::Str(agent),
            Value::Str(&sample.component),
            Value::Int(sample.cpu_ns as i64),
            Value::Int(sample.rss_bytes as i64),
            Value::Int(sample.ring_bytes_waiting as i64),
            if_reads(self.events),
            if_reads(lost),
            if_reads(rows),
        ]);
    }

    fn tick(&mut self, machine: &Machine, now_ns: u64) {
        self.now_ns = now_ns;
        let mut out = Outside {
            machine,
            settings: &self.config.settings,
            rows: &mut self.protocol_rows,
            ledger: &mut self.ledger,
            lossy: self.sequences.lossy(now_ns),
        };
        self.conns.tick(&mut out, now_ns, |upid| self.processes.ended(upid));
        let told_ns = *self.told_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(told_ns) >= TELL_NS {
            self.tell(machine);
        }
        self.publish(machine);
    }

    /// No input follows: sums that wait for their second become rows.
    pub fn finish(&mut self) {
        if let Some(machine) = self.machine.take() {
            self.tell(&machine);
            self.publish(&machine);
            self.machine = Some(machine);
        }
    }

    /// Writes the rows of sums.
    fn tell(&mut self, machine: &Machine) {
        let now_ns = self.now_ns;
        let interval_ns = now_ns.saturating_sub(self.told_ns.replace(now_ns).unwrap_or(now_ns));
        let mut out = Outside {
            machine,
            settings: &self.config.settings,
            rows: &mut self.protocol_rows,
            ledger: &mut self.ledger,
            lossy: self.sequences.lossy(now_ns),
        };
        self.conns.tell(&mut out, now_ns, &mut self.tables.conn_stats);
        self.processes.tell(machine, now_ns, &mut self.tables.processes);
        let agent = if self.config.agent.is_empty() { &machine.hostname } else { &self.config.agent };
        for entry in self.ledger.drain() {
            self.tables.data_loss.append(&[
                Value::Time(machine.epoch_ns(now_ns)),
                Value::Str(agent),
                Value::Str(entry.source.name()),
                Value::Str(entry.table),
                Value::Str(entry.reason),
                Value::Int(entry.events as i64),
                Value::Int(entry.bytes as i64),
                Value::Int(interval_ns as i64),
            ]);
        }
        for unseen in self.ledger.drain_unseen() {
            let protocols = PROTOCOLS.iter().map(|protocol| protocol.table.name);
            for table in protocols.chain(CAPTURED.iter().copied()) {
                self.tables.data_loss.append(&[
                    Value::Time(machine.epoch_ns(unseen.to_ns)),
                    Value::Str(agent),
                    Value::Str(Source::Capture.name()),
                    Value::Str(table),
                    Value::Str(&unseen.reason),
                    Value::Null,
                    Value::Null,
                    Value::Int((unseen.to_ns - unseen.from_ns) as i64),
                ]);
            }
        }
    }

    /// Makes rows visible.
    fn publish(&mut self, machine: &Machine) {
        let now = machine.epoch_ns(self.now_ns);
        for sink in self.protocol_rows.iter_mut().chain(self.tables.all()) {
            sink.publish(now, &mut self.ledger);
        }
    }
}

fn known<'a>(count: Option<u64>) -> Value<'a> {
    count.map_or(Value::Null, |count| Value::Int(count as i64))
}

fn process_sample(machine: &Machine, sample: &ProcessSample, rows: &mut dyn Rows) {
    let upid = crate::upid::Upid::new(machine.asid, sample.pid, sample.start_ticks);
    rows.append(&[
        Value::Time(machine.epoch_ns(sample.time_ns)),
        Value::U128(upid.as_u128()),
        Value::Int(sample.major_faults as i64),
        Value::Int(sample.minor_faults as i64),
        Value::Int(sample.cpu_utime_ns as i64),
        Value::Int(sample.cpu_ktime_ns as i64),
        Value::Int(sample.num_threads as i64),
        Value::Int(sample.vsize_bytes as i64),
        Value::Int(sample.rss_bytes as i64),
        known(sample.rchar_bytes),
        known(sample.wchar_bytes),
        known(sample.read_bytes),
        known(sample.write_bytes),
    ]);
}

fn network_sample(machine: &Machine, sample: &NetworkSample, rows: &mut dyn Rows) {
    rows.append(&[
        Value::Time(machine.epoch_ns(sample.time_ns)),
        Value::Str(&sample.pod_id),
        Value::Int(sample.rx_bytes as i64),
        Value::Int(sample.rx_packets as i64),
        Value::Int(sample.rx_errors as i64),
        Value::Int(sample.rx_drops as i64),
        Value::Int(sample.tx_bytes as i64),
        Value::Int(sample.tx_packets as i64),
        Value::Int(sample.tx_errors as i64),
        Value::Int(sample.tx_drops as i64),
    ]);
}

fn probe_status(machine: &Machine, status: &ProbeStatus, rows: &mut dyn Rows) {
    rows.append(&[
        Value::Time(machine.epoch_ns(status.time_ns)),
        Value::U128(machine.agent.as_u128()),
        Value::Str(&status.source_connector),
        Value::Str(&status.tracepoint),
        Value::Int(status.status),
        Value::Str(&status.error),
        Value::Str(&status.info),
    ]);
}

fn agent_error(machine: &Machine, error: &AgentError, rows: &mut dyn Rows) {
    rows.append(&[
        Value::Time(machine.epoch_ns(error.time_ns)),
        Value::U128(machine.agent.as_u128()),
        Value::Str(&error.source_connector),
        Value::Int(error.status),
        Value::Str(&error.error),
        Value::Str(&error.context),
    ]);
}
