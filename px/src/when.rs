//! Durations and points in time as people type and read them.

use std::time::Duration;

use chrono::{DateTime, Local, NaiveDateTime, NaiveTime, TimeZone, Utc};

/// `250ms`, `90s`, `5m`, `1h30m`, `2d`, `1.5h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write it as 30s, 5m, 1h30m or 2d");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    if let Ok(seconds) = rest.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return Err(wrong()),
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}

/// A point in time in ns since the epoch: RFC 3339; `2026-11-23 07:45[:01]`, `2026-11-23` or `07:45[:01]` (today) in local
/// time; `now`; `-5m` before now; seconds, ms or ns since the epoch.
pub fn instant(text: &str, now: DateTime<Utc>) -> Result<i64, String> {
    let wrong = || {
        format!(
            "`{text}` is no point in time: write it as 2026-11-23T07:45:00Z, \"2026-11-23 07:45\", 07:45, -5m or now"
        )
    };
    let text = text.trim();
    let ns = |at: DateTime<Utc>| at.timestamp_nanos_opt().ok_or_else(wrong);
    let local = |at: NaiveDateTime| match Local.from_local_datetime(&at).earliest() {
        Some(at) => ns(at.to_utc()),
        None => Err(format!("{at} does not exist in the local time zone")),
    };
    if text.eq_ignore_ascii_case("now") {
        return ns(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago = chrono::Duration::from_std(duration(ago).map_err(|_| wrong())?).map_err(|_| wrong())?;
        return ns(now - ago);
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return ns(at.to_utc());
    }
    if text.len() >= 9 && text.bytes().all(|b| b.is_ascii_digit()) {
        let number: i64 = text.parse().map_err(|_| wrong())?;
        let scale = match text.len() {
            9..=10 => 1_000_000_000,
            11..=13 => 1_000_000,
            14..=16 => 1_000,
            _ => 1,
        };
        return number.checked_mul(scale).ok_or_else(wrong);
    }
    let spaced = text.replacen('T', " ", 1);
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"] {
        if let Ok(at) = NaiveDateTime::parse_from_str(&spaced, format) {
            return local(at);
        }
    }
    if let Ok(day) = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return local(day.and_time(NaiveTime::MIN));
    }
    for format in ["%H:%M:%S%.f", "%H:%M"] {
        if let Ok(time) = NaiveTime::parse_from_str(text, format) {
            return local(now.with_timezone(&Local).date_naive().and_time(time));
        }
    }
    Err(wrong())
}

/// Clap's value parser for [`duration`].
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text)
}

/// Clap's value parser for [`instant`].
pub fn parse_instant(text: &str) -> Result<i64, String> {
    instant(text, Utc::now())
}

/// Ns since the epoch, now.
pub fn now_ns() -> i64 {
    Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_typed() {
        let ms = |text| duration(text).map(|d| d.as_millis());
        assert_eq!(ms("5m"), Ok(300_000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("1.5s"), Ok(1500));
        assert_eq!(ms("2d"), Ok(172_800_000));
        assert_eq!(ms("10"), Ok(10_000));
        for wrong in ["", "5", "m", "5x", "5m3", "-5m", "1e400s", "5 m"] {
            assert!(duration(wrong).is_err() || wrong == "5", "{wrong}");
        }
    }

    #[test]
    fn instants_as_typed() {
        let now = DateTime::parse_from_rfc3339("2026-11-23T10:00:00Z").unwrap().to_utc();
        let seconds = |text: &str| instant(text, now).map(|ns| ns / 1_000_000_000);
        assert_eq!(seconds("2026-11-23T09:00:00Z"), Ok(1_795_424_400));
        assert_eq!(seconds("2026-11-23T10:00:00+01:00"), Ok(1_795_424_400));
        assert_eq!(seconds("-1h"), Ok(1_795_424_400));
        assert_eq!(seconds("1795424400"), Ok(1_795_424_400));
        assert_eq!(seconds("1795424400000"), Ok(1_795_424_400));
        assert_eq!(seconds("1795424400000000000"), Ok(1_795_424_400));
        assert_eq!(seconds("now"), Ok(1_795_428_000));
        assert!(seconds("2026-11-23 09:00").is_ok() && seconds("09:00").is_ok() && seconds("2026-11-23").is_ok());
        for wrong in ["", "yesterday", "25:00", "2026-13-01", "-", "99"] {
            assert!(instant(wrong, now).is_err(), "{wrong}");
        }
    }
}
