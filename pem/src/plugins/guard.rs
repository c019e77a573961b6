//! How much a plugin may put out and compute.

use std::time::{Duration, Instant};

/// Rows a second of observed time. The fastest cache that we have seen answers 400,000 requests a second on one node; who
/// gives more rows than that makes them up.
pub const ROWS_PER_SECOND_MAX: u64 = 500_000;
/// Bytes a second of observed time: its table's whole budget (5 MiB) several times over, so that more could not be kept anyway.
pub const BYTES_PER_SECOND_MAX: u64 = 64 << 20;
/// Processor time of a plugin as a share of one core. What it is given beyond waits in its queue, and is dropped when that is
/// full.
pub const SHARE_PERCENT: u64 = 25;
/// Processor time a plugin that was idle may use at once.
const BURST: Duration = Duration::from_millis(250);

/// Counts output by the time of the events, so that a replay is judged as the original was.
#[derive(Default)]
pub(super) struct Flood {
    second: i64,
    rows: u64,
    bytes: u64,
}

impl Flood {
    /// Notes output; an error says which bound it breaks.
    pub fn note(&mut self, time_ns: i64, rows: u64, bytes: u64) -> Result<(), String> {
        let second = time_ns.div_euclid(1_000_000_000);
        if second > self.second {
            *self = Self { second, ..Self::default() };
        }
        self.rows += rows;
        self.bytes += bytes;
        if self.rows > ROWS_PER_SECOND_MAX {
            return Err(format!("more than {ROWS_PER_SECOND_MAX} rows in a second"));
        }
        if self.bytes > BYTES_PER_SECOND_MAX {
            return Err(format!("more than {} MiB of rows in a second", BYTES_PER_SECOND_MAX >> 20));
        }
        Ok(())
    }
}

/// Lets the plugin's thread have its share and no more.
pub(super) struct Share {
    /// Processor time that may be used now, ns.
    credit_ns: i64,
    at: Instant,
}

impl Share {
    pub fn new() -> Self {
        Self { credit_ns: BURST.as_nanos() as i64, at: Instant::now() }
    }

    /// After work that took so much processor time: how long to pause.
    pub fn pause(&mut self, used_ns: u64) -> Duration {
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_nanos() as i64 * SHARE_PERCENT as i64 / 100;
        self.at = now;
        self.credit_ns = (self.credit_ns + earned).min(BURST.as_nanos() as i64) - used_ns as i64;
        let owed = (-self.credit_ns).max(0) as u64;
        Duration::from_nanos(owed * 100 / SHARE_PERCENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_judged_by_the_time_of_its_events() {
        let mut flood = Flood::default();
        for second in 0..10 {
            flood.note(second * 1_000_000_000, ROWS_PER_SECOND_MAX, 1000).unwrap();
        }
        assert!(flood.note(9_999_999_999, 1, 0).unwrap_err().contains("rows in a second"));
        assert!(flood.note(10_000_000_000, 1, BYTES_PER_SECOND_MAX + 1).unwrap_err().contains("64 MiB"));
    }

    #[test]
    fn a_share_is_paid_back_by_pauses() {
        let mut share = Share::new();
        assert_eq!(share.pause(BURST.as_nanos() as u64 / 2), Duration::ZERO);
        let pause = share.pause(BURST.as_nanos() as u64);
        assert!(pause > Duration::from_millis(480) && pause <= Duration::from_millis(500), "{pause:?}");
    }
}
