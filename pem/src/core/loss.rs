//! The ledger of what was lost, and where: nothing is dropped without an entry here, and each entry becomes a row of
//! `data_loss`.

/// Where it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Where the kernel programs should be and were not.
    Capture,
    /// Between the kernel programs and us.
    Ring,
    /// While a stream was put together.
    Reassembly,
    /// While messages were read and paired.
    Parser,
    /// While rows were stored.
    Store,
    /// While `/proc` was read.
    Sampler,
}

impl Source {
    /// As the table has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Ring => "ring",
            Self::Reassembly => "reassembly",
            Self::Parser => "parser",
            Self::Store => "store",
            Self::Sampler => "sampler",
        }
    }
}

/// What was lost of one kind since the last row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub source: Source,
    /// Table that misses rows for it; empty when it cannot be told.
    pub table: &'static str,
    pub reason: &'static str,
    pub events: u64,
    pub bytes: u64,
}

/// A time in which nothing was captured. How many events it hides is not known, so it is no [`Entry`] and adds to none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    pub reason: String,
    /// Boot time, ns.
    pub from_ns: u64,
    /// Boot time, ns.
    pub to_ns: u64,
}

/// Gaps that wait for their rows. They come seconds apart and are written every second; a recording could hold more, of
/// which the last grow together.
const UNSEEN_MAX: usize = 64;

/// Sums by source, table and reason. The reasons are constants of ours, so there are a few dozen at most.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    unseen: Vec<Unseen>,
}

impl Ledger {
    /// Adds to the sum of its kind.
    pub fn add(&mut self, source: Source, table: &'static str, reason: &'static str, events: u64, bytes: u64) {
        let same = |e: &&mut Entry| e.source == source && e.reason == reason && e.table == table;
        match self.entries.iter_mut().find(same) {
            Some(entry) => {
                entry.events = entry.events.saturating_add(events);
                entry.bytes = entry.bytes.saturating_add(bytes);
            }
            None => self.entries.push(Entry { source, table, reason, events, bytes }),
        }
    }

    /// Notes a time without capture.
    pub fn unseen(&mut self, reason: &str, from_ns: u64, to_ns: u64) {
        if to_ns <= from_ns {
            return;
        }
        let full = self.unseen.len() >= UNSEEN_MAX;
        match self.unseen.last_mut() {
            Some(last) if last.to_ns == from_ns && last.reason == reason => last.to_ns = to_ns,
            Some(last) if full => {
                last.from_ns = last.from_ns.min(from_ns);
                last.to_ns = last.to_ns.max(to_ns);
            }
            _ => self.unseen.push(Unseen { reason: reason.to_owned(), from_ns, to_ns }),
        }
    }

    /// Takes the times without capture that were noted since the last call.
    pub fn drain_unseen(&mut self) -> impl Iterator<Item = Unseen> + '_ {
        self.unseen.drain(..)
    }

    /// Takes what came together since the last call, in order of first occurrence.
    pub fn drain(&mut self) -> impl Iterator<Item = Entry> + '_ {
        self.entries.drain(..)
    }

    /// Sum of the events with this reason since the last drain.
    pub fn events(&self, reason: &str) -> u64 {
        self.entries.iter().filter(|e| e.reason == reason).map(|e| e.events).sum()
    }
}
