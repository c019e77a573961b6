//! Sequence numbers of the records of each CPU: a second witness of loss in the ring.
//!
//! The kernel's own counters are the truth that goes to `data_loss`. Gaps in the numbers should never exceed them;
//! where they do, records vanished in a way that the kernel programs did not see (a recording that lost its middle, a
//! reader that skipped), and that is told under its own reason.

use ebpf_abi::CPUS_MAX;

/// One CPU's numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    seen: bool,
    next: u64,
    missing: u64,
    /// Part of `missing` that was told already as unexplained.
    told: u64,
}

/// Numbers of all CPUs.
#[derive(Debug, Default)]
pub struct Sequences {
    /// By CPU; grows to at most [`CPUS_MAX`].
    cpus: Vec<Cpu>,
    /// Time of the last record that came after a gap.
    gap_ns: Option<u64>,
}

/// How long after a gap in the numbers a gap in a stream is blamed on it: a connection may be silent for a while before
/// it shows what it lost.
const BLAME_NS: u64 = 10_000_000_000;

impl Sequences {
    /// Notes a record. The first number of a CPU is taken as it is: an agent that was restarted reads on where the last
    /// one ended.
    pub fn note(&mut self, cpu: u16, seq: u64, time_ns: u64) {
        let index = (cpu as usize).min(CPUS_MAX as usize - 1);
        if self.cpus.len() <= index {
            self.cpus.resize(index + 1, Cpu::default());
        }
        let Some(cpu) = self.cpus.get_mut(index) else { return };
        if !cpu.seen {
            cpu.seen = true;
            cpu.next = seq.wrapping_add(1);
        } else if seq >= cpu.next {
            if seq > cpu.next {
                self.gap_ns = self.gap_ns.max(Some(time_ns));
            }
            cpu.missing = cpu.missing.saturating_add(seq - cpu.next);
            cpu.next = seq.wrapping_add(1);
        } else {
            // A program that was interrupted between taking its number and its place in the ring comes late.
            cpu.missing = cpu.missing.saturating_sub(1);
        }
    }

    /// Whether records went missing in the last seconds before this time. If not, a gap in a stream is bytes that the
    /// kernel programs did not see move (spliced, say), and no loss.
    pub fn lossy(&self, now_ns: u64) -> bool {
        self.gap_ns.is_some_and(|gap_ns| now_ns.saturating_sub(gap_ns) < BLAME_NS)
    }

    /// Missing records of a CPU that the kernel's total does not explain, as far as not told before.
    pub fn unexplained(&mut self, cpu: u32, lost_total: u64) -> u64 {
        let Some(cpu) = self.cpus.get_mut(cpu as usize) else { return 0 };
        let excess = cpu.missing.saturating_sub(lost_total);
        let fresh = excess.saturating_sub(cpu.told);
        cpu.told += fresh;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_beyond_the_kernels_count_are_told_once() {
        let mut sequences = Sequences::default();
        for seq in [10, 11, 15, 13, 16] {
            sequences.note(2, seq, seq);
        }
        // 12 and 14 are missing, 13 came late.
        assert_eq!(sequences.unexplained(2, 2), 0);
        assert_eq!(sequences.unexplained(2, 1), 1);
        assert_eq!(sequences.unexplained(2, 1), 0);
        assert_eq!(sequences.unexplained(7, 0), 0);
        assert!(sequences.lossy(16) && !sequences.lossy(20_000_000_000));
    }
}
