//! Traffic of each network namespace.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::SECOND_NS;
use super::proc::{ProcReader, number, read_into};
use super::processes::Processes;
use crate::input::{Input, NetworkSample};

/// Namespaces that are sampled: more pods than a node may have (110 by default, 250 at most).
const NAMESPACES_MAX: usize = 512;

/// Between samples of a namespace in which nothing moved.
const QUIET_NS: u64 = 10 * SECOND_NS;

#[derive(Default)]
struct Last {
    /// Under which it is told: stays, whatever else comes.
    id: Option<String>,
    sample: NetworkSample,
    due_ns: u64,
}

/// All namespaces that could be read.
pub struct Networks {
    proc: PathBuf,
    buffer: Vec<u8>,
    last: BTreeMap<u64, Last>,
    own: Option<u64>,
}

impl Networks {
    pub fn new(proc: PathBuf) -> Self {
        Self { proc, buffer: Vec::new(), last: BTreeMap::new(), own: None }
    }

    /// Samples the namespaces that are due.
    pub fn poll(
        &mut self,
        now_ns: u64,
        processes: &Processes,
        reader: &mut dyn ProcReader,
        to: &mut dyn FnMut(Input<'_>),
    ) {
        let mut namespaces = processes.namespaces();
        // Ours is the host's: it is sampled even when no process of it could be read.
        let own = *self.own.get_or_insert_with(|| {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(self.proc.join("self/net/dev")).map_or(0, |meta| meta.ino())
        });
        namespaces.insert(own, (0, ""));
        self.last.retain(|netns, _| namespaces.contains_key(netns));
        self.name(own, &namespaces);
        for (netns, (pid, _)) in namespaces.into_iter().take(NAMESPACES_MAX) {
            let last = self.last.entry(netns).or_default();
            if now_ns < last.due_ns {
                continue;
            }
            let path = match pid {
                0 => self.proc.join("self/net/dev"),
                pid => self.proc.join(pid.to_string()).join("net/dev"),
            };
            if read_into(&path, &mut self.buffer, super::proc::TEXT_BYTES_MAX).is_err() {
                // Some kernels are hardened so that only the owner may: then the helper is asked.
                match reader.net_dev(pid) {
                    Ok(text) => self.buffer = text,
                    Err(_) => {
                        last.due_ns = now_ns + QUIET_NS;
                        continue;
                    }
                }
            }
            let pod_id = last.id.clone().unwrap_or_default();
            let sample = NetworkSample { time_ns: now_ns, pod_id, ..parse(&self.buffer) };
            let quiet = NetworkSample { time_ns: last.sample.time_ns, ..sample.clone() } == last.sample;
            // A first sample of nothing is told too: it is the zero that later ones are counted from.
            last.due_ns = now_ns + if quiet { QUIET_NS } else { SECOND_NS / 2 };
            last.sample = sample.clone();
            to(Input::NetworkSample(sample));
        }
    }

    /// Gives each namespace a name of its own: counters of two under one would look like one that jumps back and forth.
    fn name(&mut self, own: u64, namespaces: &BTreeMap<u64, (u32, &str)>) {
        for (&netns, &(_, container)) in namespaces.iter().take(NAMESPACES_MAX) {
            if self.last.get(&netns).is_some_and(|last| last.id.is_some()) {
                continue;
            }
            let taken = |id: &str| self.last.values().any(|last| last.id.as_deref() == Some(id));
            let id = match container {
                _ if netns == own => String::new(),
                "" => format!("netns-{netns}"),
                container if taken(container) => format!("{container}/netns-{netns}"),
                container => container.to_owned(),
            };
            self.last.entry(netns).or_default().id = Some(id);
        }
    }
}

/// Sums the lines of `net/dev` but loopback's: what a machine says to itself is no traffic.
pub fn parse(text: &[u8]) -> NetworkSample {
    let mut sum = NetworkSample::default();
    for line in text.split(|&b| b == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, values) = line.split_at(colon);
        if name.trim_ascii() == b"lo" {
            continue;
        }
        let mut fields = [0u64; 12];
        let parts = values.get(1..).unwrap_or(&[]).split(|b| b.is_ascii_whitespace()).filter(|part| !part.is_empty());
        for (place, part) in fields.iter_mut().zip(parts) {
            *place = number(part);
        }
        let [rx_bytes, rx_packets, rx_errors, rx_drops, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_drops] = fields;
        sum.rx_bytes += rx_bytes;
        sum.rx_packets += rx_packets;
        sum.rx_errors += rx_errors;
        sum.rx_drops += rx_drops;
        sum.tx_bytes += tx_bytes;
        sum.tx_packets += tx_packets;
        sum.tx_errors += tx_errors;
        sum.tx_drops += tx_drops;
    }
    sum
}
