//! `conn_stats`: connections and bytes by process, remote end, role and protocol.
//!
//! Counters run from the first sample on. On the server side the remote port is 0: the client's port is another for
//! each connection and would make a row of each (Pixie does the same). When what is known of a connection changes (its
//! protocol shows with the first bytes), it moves: it is counted as opened under the new key instead of the old, bytes
//! stay where they were counted. So `conn_open - conn_close = conn_active` for each key, and sums over keys are exact.
//! A connection that was open before us counts as opened when first seen.

use std::collections::BTreeMap;

use pem_tables::Value;

use super::facts::{Facts, Text};
use crate::protocols::Rows;
use crate::upid::Upid;

/// Keys that are kept. One per process and remote address (and port, for clients) within an hour.
const GROUPS_MAX: usize = 32_768;

/// How long a key without connections is remembered: its counters go on if it comes back.
const FORGET_NS: u64 = 3_600_000_000_000;

/// A key with open connections is told at least this often, as Pixie does, so that any window of that length has it.
const REPEAT_NS: u64 = 10_000_000_000;

/// What connections are summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub upid: Upid,
    pub remote_addr: Text,
    pub remote_port: u16,
    pub role: u8,
    pub protocol: u8,
    pub ssl: bool,
    pub family: u16,
}

impl Key {
    /// Of a connection as it is known now.
    pub fn of(facts: &Facts, protocol: u8) -> Self {
        let server = facts.role == ebpf_abi::role::SERVER;
        Self {
            upid: facts.upid,
            remote_addr: facts.remote.addr,
            remote_port: if server { 0 } else { facts.remote.port },
            role: facts.role,
            protocol,
            ssl: facts.encrypted,
            family: facts.family,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    opened: i64,
    closed: i64,
    sent: u64,
    received: u64,
    changed: bool,
    told_ns: u64,
}

/// What of a connection was counted where.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    key: Option<Key>,
    sent: u64,
    received: u64,
}

/// All sums.
#[derive(Debug, Default)]
pub struct Groups {
    sums: BTreeMap<Key, Sums>,
}

impl Groups {
    /// Brings the sums up to date with a connection; false when there is no room for its key.
    pub fn count(&mut self, counted: &mut Counted, key: Key, sent: u64, received: u64) -> bool {
        if counted.key != Some(key) {
            if !self.sums.contains_key(&key) && self.sums.len() >= GROUPS_MAX {
                return false;
            }
            if let Some(sums) = counted.key.and_then(|old| self.sums.get_mut(&old)) {
                sums.opened -= 1;
                sums.changed = true;
            }
            let sums = self.sums.entry(key).or_default();
            sums.opened += 1;
            sums.changed = true;
            counted.key = Some(key);
        }
        let Some(sums) = self.sums.get_mut(&key) else { return false };
        let (more_sent, more_received) = (sent.saturating_sub(counted.sent), received.saturating_sub(counted.received));
        sums.changed |= more_sent > 0 || more_received > 0;
        sums.sent = sums.sent.saturating_add(more_sent);
        sums.received = sums.received.saturating_add(more_received);
        (counted.sent, counted.received) = (sent.max(counted.sent), received.max(counted.received));
        true
    }

    /// The connection is no more.
    pub fn close(&mut self, counted: &Counted) {
        if let Some(sums) = counted.key.and_then(|key| self.sums.get_mut(&key)) {
            sums.closed += 1;
            sums.changed = true;
        }
    }

    /// Writes the rows that are due, in order of the keys, and forgets what is long gone.
    pub fn tell(&mut self, now_ns: u64, time_ns: i64, rows: &mut dyn Rows) {
        for (key, sums) in &mut self.sums {
            let active = sums.opened - sums.closed;
            let due = sums.changed || (active > 0 && now_ns.saturating_sub(sums.told_ns) >= REPEAT_NS);
            if !due {
                continue;
            }
            sums.changed = false;
            sums.told_ns = now_ns;
            rows.append(&[
                Value::Time(time_ns),
                Value::U128(key.upid.as_u128()),
                Value::Str(key.remote_addr.as_str()),
                Value::Int(key.remote_port as i64),
                Value::Int(key.role as i64),
                Value::Int(key.family as i64),
                Value::Int(key.protocol as i64),
                Value::Bool(key.ssl),
                Value::Int(sums.opened),
                Value::Int(sums.closed),
                Value::Int(active),
                Value::Int(sums.sent as i64),
                Value::Int(sums.received as i64),
            ]);
        }
        let crowded = self.sums.len() >= GROUPS_MAX;
        let keep_ns = if crowded { REPEAT_NS } else { FORGET_NS };
        self.sums.retain(|_, sums| sums.opened > sums.closed || now_ns.saturating_sub(sums.told_ns) < keep_ns);
    }
}
