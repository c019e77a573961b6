//! The query's time: the same for the whole run, and on a replay the recording's.

use crate::bindings::pyxis::script::clock as host;

/// The query's now, ns since the epoch.
pub fn now_ns() -> i64 {
    host::now()
}

/// The time range [`table`](crate::table) reads, ns since the epoch; the end does not belong.
pub fn range_ns() -> core::ops::Range<i64> {
    let range = host::range();
    range.start..range.end
}

/// Length of the range in seconds, for rates; at least 1 ns, so that a rate is a number.
pub fn range_s() -> f64 {
    let range = range_ns();
    (range.end.saturating_sub(range.start)).max(1) as f64 / 1e9
}
