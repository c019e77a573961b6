//! Numbers and times as people read them.

use std::fmt::Write as _;

use chrono::{DateTime, Local, TimeZone, Utc};

/// Three significant digits and no trailing zeros after the point: 1.23, 12.3, 123, 1234.
fn short(out: &mut String, value: f64) {
    let digits = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let _ = write!(out, "{value:.digits$}");
}

pub fn duration_ns(out: &mut String, ns: f64) {
    if !ns.is_finite() {
        return out.push('-');
    }
    if ns < 0.0 {
        out.push('-');
    }
    let ns = ns.abs();
    // Thresholds just below the unit, so that 999.96 µs does not print as 1000 µs.
    if ns < 999.5 {
        let _ = write!(out, "{ns:.0} ns");
    } else if ns < 999.5e3 {
        short(out, ns / 1e3);
        out.push_str(" µs");
    } else if ns < 999.5e6 {
        short(out, ns / 1e6);
        out.push_str(" ms");
    } else if ns < 59.995e9 {
        short(out, ns / 1e9);
        out.push_str(" s");
    } else {
        let seconds = (ns / 1e9).round() as u64;
        let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let _ = match (d, h) {
            (0, 0) => write!(out, "{m}m {s:02}s"),
            (0, _) => write!(out, "{h}h {m:02}m"),
            _ => write!(out, "{d}d {h:02}h"),
        };
    }
}

pub fn bytes(out: &mut String, value: f64) {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if !value.is_finite() {
        return out.push('-');
    }
    let mut scaled = value;
    let mut unit = 0;
    while scaled.abs() >= 1023.5 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 && scaled.fract() == 0.0 {
        let _ = write!(out, "{scaled:.0} B");
    } else {
        short(out, scaled);
        let _ = write!(out, " {}", UNITS[unit]);
    }
}

pub fn percent(out: &mut String, value: f64) {
    if !value.is_finite() {
        return out.push('-');
    }
    if value == 0.0 {
        out.push_str("0 %");
    } else if value.abs() < 0.01 {
        out.push_str("<0.01 %");
    } else {
        short(out, value);
        out.push_str(" %");
    }
}

pub fn per_second(out: &mut String, value: f64) {
    float(out, value);
    out.push_str("/s");
}

/// A float that carries no unit.
pub fn float(out: &mut String, value: f64) {
    let _ = match value {
        v if !v.is_finite() => write!(out, "-"),
        v if v == 0.0 => write!(out, "0"),
        v if v.abs() >= 1e15 || v.abs() < 1e-3 => write!(out, "{v:.2e}"),
        v if v.fract() == 0.0 => write!(out, "{v:.0}"),
        v if v.abs() < 1.0 => write!(out, "{v:.3}"),
        v => {
            short(out, v);
            Ok(())
        }
    };
}

/// 1234567 as 1,234,567.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub fn bytes_text(value: u64) -> String {
    let mut out = String::new();
    bytes(&mut out, value as f64);
    out
}

pub fn duration_text(ns: u64) -> String {
    let mut out = String::new();
    duration_ns(&mut out, ns as f64);
    out
}

/// `1 row`, `12 rows`.
pub fn plural(value: u64, one: &str) -> String {
    let s = if value == 1 { "" } else { "s" };
    format!("{} {one}{s}", count(value))
}

/// `http_events`, `a and b`, `a, b and c`.
pub fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// How a column of times is written: today's without their date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    TimeOfDay,
    Full,
}

impl Clock {
    /// The shortest that leaves no doubt, for times between these two.
    pub fn for_range(oldest_ns: i64, newest_ns: i64, now_ns: i64) -> Clock {
        let day = |ns| Local.timestamp_nanos(ns).date_naive();
        if day(oldest_ns) == day(now_ns) && day(newest_ns) == day(now_ns) { Clock::TimeOfDay } else { Clock::Full }
    }
}

/// A point in time in local time, to the millisecond.
pub fn time_local(out: &mut String, ns: i64, clock: Clock) {
    let at = Local.timestamp_nanos(ns);
    let _ = match clock {
        Clock::TimeOfDay => write!(out, "{}", at.format("%H:%M:%S%.3f")),
        Clock::Full => write!(out, "{}", at.format("%Y-%m-%d %H:%M:%S%.3f")),
    };
}

/// For programs: RFC 3339, UTC, all nine digits, so that times sort as text.
pub fn time_utc(out: &mut String, ns: i64) {
    let at: DateTime<Utc> = Utc.timestamp_nanos(ns);
    let _ = write!(out, "{}", at.format("%Y-%m-%dT%H:%M:%S%.9fZ"));
}

/// `asid:pid:start`, from the 16 bytes of a upid; `None` for other lengths.
pub fn upid(out: &mut String, bytes: &[u8]) -> Option<()> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let value = u128::from_be_bytes(bytes);
    let (asid, pid, start) = ((value >> 96) as u32, (value >> 64) as u32, value as u64);
    let _ = write!(out, "{asid}:{pid}:{start}");
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(f: impl Fn(&mut String)) -> String {
        let mut out = String::new();
        f(&mut out);
        out
    }

    #[test]
    fn durations_in_their_unit() {
        let text = |ns: f64| with(|out| duration_ns(out, ns));
        let cases = [
            (0.0, "0 ns"),
            (999.0, "999 ns"),
            (999.9, "1.00 µs"),
            (12_345.0, "12.3 µs"),
            (999_499.0, "999 µs"),
            (999_960.0, "1.00 ms"),
            (1_234_567.0, "1.23 ms"),
            (99_960_000.0, "100 ms"),
            (1.5e9, "1.50 s"),
            (59.9e9, "59.9 s"),
            (59.999e9, "1m 00s"),
            (3725e9, "1h 02m"),
            (90_000e9, "1d 01h"),
            (-1.5e6, "-1.50 ms"),
            (f64::NAN, "-"),
        ];
        for (ns, expected) in cases {
            assert_eq!(text(ns), expected);
        }
    }

    #[test]
    fn bytes_in_their_unit() {
        let text = |n: f64| with(|out| bytes(out, n));
        let cases = [
            (0.0, "0 B"),
            (1023.0, "1023 B"),
            (1024.0, "1.00 KiB"),
            (12_345.0, "12.1 KiB"),
            (1023.9 * 1024.0, "1.00 MiB"),
            (5.0 * 1024.0 * 1024.0 * 1024.0, "5.00 GiB"),
        ];
        for (n, expected) in &cases {
            assert_eq!(text(*n), *expected);
        }
        assert!(text(f64::MAX).ends_with(" EiB"));
    }

    #[test]
    fn shares_and_rates() {
        assert_eq!(with(|out| percent(out, 12.345)), "12.3 %");
        assert_eq!(with(|out| percent(out, 0.0)), "0 %");
        assert_eq!(with(|out| percent(out, 0.0001)), "<0.01 %");
        assert_eq!(with(|out| per_second(out, 1234.5)), "1234/s");
        assert_eq!(with(|out| float(out, 0.125)), "0.125");
        assert_eq!(with(|out| float(out, 3.0)), "3");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(plural(1, "row"), "1 row");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
    }

    #[test]
    fn times_for_programs_are_utc_with_all_digits() {
        assert_eq!(with(|out| time_utc(out, 1_795_424_400_000_000_001)), "2026-11-23T09:00:00.000000001Z");
    }

    #[test]
    fn upids_read_as_asid_pid_start() {
        let value = (7u128 << 96) | (4321u128 << 64) | 99;
        assert_eq!(with(|out| upid(out, &value.to_be_bytes()).unwrap()), "7:4321:99");
    }
}
