//! The processes of this machine, and the rows about them.
//!
//! `processes` gets a row of a process when it is first seen and when that changes (within a second, so that an exec and
//! what `/proc` says of it make one row), when it ends, and once a minute while it runs: whatever window of more than a
//! minute a query looks at, it finds everyone who lived in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ebpf_abi::{ProcExec, ProcExit};
use pem_tables::Value;

use super::loss::{Ledger, Source};
use super::machine::Machine;
use super::record;
use crate::input::Process;
use crate::protocols::Rows;
use crate::upid::Upid;

/// Processes that are remembered: the default `pid_max` of small machines. Those with more lose the metadata of the rest.
const PROCESSES_MAX: usize = 32_768;

/// Bytes of their texts. Some 300 for each are usual; what a recording claims must not take more memory than this.
const TEXTS_BYTES_MAX: usize = 64 << 20;

/// Processes that are remembered to be gone, for connections whose end was lost.
const ENDED_MAX: usize = 4096;

/// How often the living are told again.
const REPEAT_NS: u64 = 60_000_000_000;

#[derive(Debug)]
struct Known {
    process: Process,
    changed: bool,
}

/// How a process ended.
#[derive(Clone, Copy)]
enum Ended {
    No,
    /// With the code for the row, if it is known.
    Yes(Option<i64>),
}

/// Who runs.
#[derive(Debug, Default)]
pub struct Processes {
    known: BTreeMap<(u32, u64), Known>,
    /// Of all that are known.
    texts_bytes: usize,
    any_changed: bool,
    told_ns: u64,
    ended: BTreeSet<(u32, u64)>,
    ended_order: VecDeque<(u32, u64)>,
}

impl Processes {
    /// Whether it is known to be gone; one never heard of may run.
    pub fn ended(&self, upid: Upid) -> bool {
        self.ended.contains(&(upid.pid, upid.start_ticks))
    }

    fn note_ended(&mut self, key: (u32, u64)) {
        if self.ended.insert(key) {
            self.ended_order.push_back(key);
        }
        if self.ended_order.len() > ENDED_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    /// What `/proc` says of a process.
    pub fn learn(&mut self, machine: &Machine, process: Process, ledger: &mut Ledger, rows: &mut dyn Rows) {
        self.supersede(machine, process.pid, process.start_ticks, process.time_ns, rows);
        let key = (process.pid, process.start_ticks);
        // What was read of `/proc` may reach us after the kernel's word that it ended.
        if self.ended.contains(&key) {
            return;
        }
        let before = self.known.get(&key);
        if before.is_some_and(|known| Process { time_ns: known.process.time_ns, ..process.clone() } == known.process) {
            return;
        }
        let others = self.known.len() - usize::from(before.is_some());
        let texts = self.texts_bytes - before.map_or(0, |known| texts_bytes(&known.process)) + texts_bytes(&process);
        if others >= PROCESSES_MAX || texts > TEXTS_BYTES_MAX {
            return ledger.add(Source::Store, "processes", "processes_full", 1, 0);
        }
        self.texts_bytes = texts;
        self.known.insert(key, Known { process, changed: true });
        self.any_changed = true;
    }

    fn forget(&mut self, key: (u32, u64)) -> Option<Process> {
        let known = self.known.remove(&key)?;
        self.texts_bytes -= texts_bytes(&known.process);
        Some(known.process)
    }

    /// A program was replaced: what the kernel says of it, until `/proc` says more.
    pub fn exec(
        &mut self,
        machine: &Machine,
        exec: &ProcExec,
        filename: &[u8],
        ledger: &mut Ledger,
        rows: &mut dyn Rows,
    ) {
        let upid = machine.upid(exec.process);
        // It lives, whatever was heard of it: older kernel programs took the end of its main thread for its own.
        if self.ended.remove(&(upid.pid, upid.start_ticks)) {
            self.ended_order.retain(|key| *key != (upid.pid, upid.start_ticks));
        }
        let before = self.known.get(&(upid.pid, upid.start_ticks)).map(|known| known.process.clone());
        let filename = record::text(filename);
        let process = Process {
            time_ns: exec.header.time_ns,
            pid: upid.pid,
            start_ticks: upid.start_ticks,
            comm: record::text(&exec.comm).into_owned(),
            exe: filename.clone().into_owned(),
            // Until it is read: the old one's arguments would be a lie.
            cmdline: filename.into_owned(),
            ..before.unwrap_or_else(stranger)
        };
        self.learn(machine, process, ledger, rows);
    }

    /// A process ended: its row, without waiting.
    pub fn exit(&mut self, machine: &Machine, exit: &ProcExit, rows: &mut dyn Rows) {
        let upid = machine.upid(exit.process);
        let code = if exit.signal != 0 { 128 + exit.signal as i64 } else { exit.exit_code as i64 };
        let known = self.forget((upid.pid, upid.start_ticks));
        self.note_ended((upid.pid, upid.start_ticks));
        let process = known.unwrap_or_else(|| Process {
            pid: upid.pid,
            start_ticks: upid.start_ticks,
            comm: record::text(&exit.comm).into_owned(),
            ..stranger()
        });
        tell(machine, &process, exit.header.time_ns, Ended::Yes(Some(code)), rows);
    }

    /// A process is not there any more, and nobody saw how it ended.
    pub fn gone(&mut self, machine: &Machine, pid: u32, start_ticks: u64, time_ns: u64, rows: &mut dyn Rows) {
        if let Some(process) = self.forget((pid, start_ticks)) {
            self.note_ended((pid, start_ticks));
            tell(machine, &process, time_ns, Ended::Yes(None), rows);
        }
    }

    /// The pid has a new owner: the old one is gone.
    fn supersede(&mut self, machine: &Machine, pid: u32, start_ticks: u64, time_ns: u64, rows: &mut dyn Rows) {
        let old = self.known.range((pid, 0)..(pid, start_ticks)).next().map(|(&key, _)| key);
        if let Some((pid, start)) = old {
            self.gone(machine, pid, start, time_ns, rows);
        }
    }

    /// Writes what is due.
    pub fn tell(&mut self, machine: &Machine, now_ns: u64, rows: &mut dyn Rows) {
        let all = now_ns.saturating_sub(self.told_ns) >= REPEAT_NS;
        if !all && !std::mem::take(&mut self.any_changed) {
            return;
        }
        if all {
            self.told_ns = now_ns;
        }
        for known in self.known.values_mut() {
            if std::mem::take(&mut known.changed) || all {
                tell(machine, &known.process, now_ns, Ended::No, rows);
            }
        }
    }
}

/// Bytes of what is kept as text.
fn texts_bytes(process: &Process) -> usize {
    let Process { comm, exe, cmdline, cgroup, container_id, pod_id, systemd_unit, .. } = process;
    [comm, exe, cmdline, cgroup, container_id, pod_id, systemd_unit].iter().map(|text| text.len()).sum()
}

/// The kernel's number for no user: stands for one that is not known, since 0 would say root.
const UID_UNKNOWN: u32 = u32::MAX;

/// A process of which only the kernel's record is known. One that lives for milliseconds is never more.
fn stranger() -> Process {
    Process { uid: UID_UNKNOWN, ..Process::default() }
}

fn tell(machine: &Machine, process: &Process, time_ns: u64, ended: Ended, rows: &mut dyn Rows) {
    let upid = Upid::new(machine.asid, process.pid, process.start_ticks);
    rows.append(&[
        Value::Time(machine.epoch_ns(time_ns)),
        Value::U128(upid.as_u128()),
        Value::Int(process.pid as i64),
        if process.ppid == 0 && process.uid == UID_UNKNOWN { Value::Null } else { Value::Int(process.ppid as i64) },
        if process.uid == UID_UNKNOWN { Value::Null } else { Value::Int(process.uid as i64) },
        Value::Str(&process.comm),
        Value::Str(&process.exe),
        Value::Str(&process.cmdline),
        Value::Str(&process.cgroup),
        Value::Str(&process.container_id),
        Value::Str(&process.systemd_unit),
        Value::Time(machine.started_ns(process.start_ticks)),
        Value::Bool(matches!(ended, Ended::Yes(_))),
        match ended {
            Ended::Yes(Some(code)) => Value::Int(code),
            _ => Value::Null,
        },
    ]);
}
