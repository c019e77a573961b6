//! What a client asked for, checked: everything after this can rely on it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use host::backend::TimeRange;
use host::meter::Budget;
use vizier_api::execute_request::What as Asked;
use vizier_api::{COMPONENT_BYTES_MAX, ExecuteRequest, follow};

use crate::config::Limits;
use crate::status::Refusal;

/// Range when the client names no start.
const SINCE_DEFAULT_NS: i64 = 5 * 60 * 1_000_000_000;
/// Longest SQL text: a person's query has hundreds of bytes, a generated one thousands.
const SQL_BYTES_MAX: usize = 256 << 10;
/// Longest text of all arguments together.
const ARGS_BYTES_MAX: usize = 256 << 10;
/// Pause between rounds when the client does not say.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// Shortest pause between rounds: rows become visible every 100 ms at the latest.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longest pause between rounds; a longer one is a job for a scheduler.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// A checked request.
#[derive(Clone, Debug)]
pub struct Request {
    pub what: What,
    pub args: BTreeMap<String, String>,
    pub range: TimeRange,
    pub now_ns: i64,
    pub rows_max: u64,
    pub timeout: Duration,
    pub follow: Follow,
    pub interval: Duration,
    pub budget: Budget,
}

/// What shall run.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Name(String),
    Digest(String),
    Component(Bytes),
    Sql(String),
}

/// Whether it runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    Off,
    Refresh,
    Tail,
    /// As the manifest says.
    Auto,
}

impl Request {
    pub fn check(request: ExecuteRequest, limits: &Limits, now_ns: i64) -> Result<Self, Refusal> {
        let what = what(request.what)?;
        if matches!(what, What::Sql(_)) && !request.args.is_empty() {
            return Err(Refusal::invalid("SQL takes no arguments", "write the values into the query"));
        }
        let args_bytes: usize = request.args.iter().map(|(k, v)| k.len() + v.len()).sum();
        if args_bytes > ARGS_BYTES_MAX {
            return Err(Refusal::invalid(
                format!("the arguments have {args_bytes} bytes, at most {ARGS_BYTES_MAX} are taken"),
                "",
            ));
        }
        let (follow, interval) = follow_of(request.follow)?;
        let timeout_max = Duration::from_nanos(limits.budget.wall_ns);
        let timeout = match request.timeout_ms {
            0 => limits.timeout_default,
            ms => Duration::from_millis(ms),
        }
        .min(timeout_max);
        Ok(Self {
            what,
            args: request.args.into_iter().collect(),
            range: range(request.start_time_ns, request.end_time_ns, now_ns)?,
            now_ns,
            rows_max: match request.limit_rows {
                0 => limits.rows_default,
                rows => rows.min(limits.budget.output_rows),
            },
            timeout,
            follow,
            interval,
            budget: budget(request.budget.unwrap_or_default(), limits, timeout),
        })
    }
}

fn what(what: Option<Asked>) -> Result<What, Refusal> {
    match what {
        None => Err(Refusal::invalid("nothing to run was given", "give a script's name, digest or bytes, or SQL")),
        Some(Asked::Name(name)) if name.trim().is_empty() => {
            Err(Refusal::invalid("the script's name is empty", "`px scripts` lists those there are"))
        }
        Some(Asked::Name(name)) => Ok(What::Name(name)),
        Some(Asked::Digest(digest)) => {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            let good = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            match good {
                true => Ok(What::Digest(digest)),
                false => Err(Refusal::invalid(
                    format!("{digest:?} is no digest"),
                    "write sha256: and 64 lower case hex digits",
                )),
            }
        }
        Some(Asked::Component(bytes)) if bytes.len() > COMPONENT_BYTES_MAX => Err(Refusal::invalid(
            format!("the component has {} bytes, at most {COMPONENT_BYTES_MAX} are taken", bytes.len()),
            "strip debug information from it",
        )),
        Some(Asked::Component(bytes)) => Ok(What::Component(bytes)),
        Some(Asked::Sql(sql)) if sql.trim().is_empty() => {
            Err(Refusal::invalid("the query is empty", "`px tables` lists what there is to select from"))
        }
        Some(Asked::Sql(sql)) if sql.len() > SQL_BYTES_MAX => {
            Err(Refusal::invalid(format!("the query has {} bytes, at most {SQL_BYTES_MAX} are taken", sql.len()), ""))
        }
        Some(Asked::Sql(sql)) => Ok(What::Sql(sql)),
    }
}

fn range(start_ns: i64, end_ns: i64, now_ns: i64) -> Result<TimeRange, Refusal> {
    if start_ns < 0 || end_ns < 0 {
        return Err(Refusal::invalid("a time before 1970 was given", "times are ns since the epoch, UTC"));
    }
    let end_ns = if end_ns == 0 { now_ns } else { end_ns };
    let start_ns = if start_ns == 0 { end_ns.saturating_sub(SINCE_DEFAULT_NS) } else { start_ns };
    if start_ns >= end_ns {
        return Err(Refusal::invalid("the time range is empty: its start is not before its end", "swap or widen them"));
    }
    Ok(TimeRange { start_ns, end_ns })
}

fn follow_of(asked: Option<vizier_api::Follow>) -> Result<(Follow, Duration), Refusal> {
    let Some(asked) = asked else { return Ok((Follow::Off, INTERVAL_DEFAULT)) };
    let mode = match follow::Mode::try_from(asked.mode) {
        Ok(follow::Mode::Off) => Follow::Off,
        Ok(follow::Mode::Refresh) => Follow::Refresh,
        Ok(follow::Mode::Tail) => Follow::Tail,
        Ok(follow::Mode::Auto) => Follow::Auto,
        Err(_) => {
            let message = format!("this vizier knows no way {} of following", asked.mode);
            return Err(Refusal::invalid(message, "use px of the same release"));
        }
    };
    let interval = match asked.interval_ms {
        0 => INTERVAL_DEFAULT,
        ms => Duration::from_millis(ms).clamp(INTERVAL_MIN, INTERVAL_MAX),
    };
    Ok((mode, interval))
}

fn budget(asked: vizier_api::Budget, limits: &Limits, timeout: Duration) -> Budget {
    let cut = |asked: u64, most: u64| if asked == 0 { most } else { asked.min(most) };
    let most = &limits.budget;
    Budget {
        guest_cpu_ns: cut(asked.guest_cpu_ms.saturating_mul(1_000_000), most.guest_cpu_ns),
        memory_bytes: cut(asked.memory_bytes, most.memory_bytes),
        rows_scanned: cut(asked.rows_scanned, most.rows_scanned),
        output_bytes: cut(asked.output_bytes, most.output_bytes),
        wall_ns: timeout.as_nanos() as u64,
        ..*most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000_000_000;

    fn sql(text: &str) -> ExecuteRequest {
        ExecuteRequest { what: Some(Asked::Sql(text.into())), ..Default::default() }
    }

    fn check(request: ExecuteRequest) -> Result<Request, Refusal> {
        Request::check(request, &Limits::default(), NOW)
    }

    #[test]
    fn what_is_left_out_gets_the_servers_defaults() {
        let request = check(sql("select 1")).unwrap();
        assert_eq!(request.range, TimeRange { start_ns: NOW - SINCE_DEFAULT_NS, end_ns: NOW });
        assert_eq!(request.rows_max, Limits::default().rows_default);
        assert_eq!(request.timeout, Limits::default().timeout_default);
        assert_eq!(request.budget.wall_ns, request.timeout.as_nanos() as u64);
        assert_eq!(request.follow, Follow::Off);
    }

    #[test]
    fn what_is_asked_is_cut_to_what_the_server_allows() {
        let request = check(ExecuteRequest {
            timeout_ms: u64::MAX,
            limit_rows: u64::MAX,
            budget: Some(vizier_api::Budget { guest_cpu_ms: u64::MAX, memory_bytes: 1 << 20, ..Default::default() }),
            follow: Some(vizier_api::Follow { mode: follow::Mode::Tail as i32, interval_ms: 1 }),
            ..sql("select 1")
        })
        .unwrap();
        let limits = Limits::default();
        assert_eq!(request.budget.guest_cpu_ns, limits.budget.guest_cpu_ns);
        assert_eq!(request.budget.memory_bytes, 1 << 20);
        assert_eq!(request.timeout.as_nanos() as u64, limits.budget.wall_ns);
        assert_eq!(request.rows_max, limits.budget.output_rows);
        assert_eq!(request.interval, INTERVAL_MIN);
    }

    #[test]
    fn nonsense_is_refused_as_the_callers_mistake() {
        let refused = [
            ExecuteRequest::default(),
            sql("  "),
            ExecuteRequest { what: Some(Asked::Name(String::new())), ..Default::default() },
            ExecuteRequest { what: Some(Asked::Digest("sha256:12".into())), ..Default::default() },
            ExecuteRequest { args: [("a".into(), "b".into())].into(), ..sql("select 1") },
            ExecuteRequest { start_time_ns: 10, end_time_ns: 10, ..sql("select 1") },
            ExecuteRequest { start_time_ns: -1, ..sql("select 1") },
            ExecuteRequest { follow: Some(vizier_api::Follow { mode: 99, interval_ms: 0 }), ..sql("select 1") },
            ExecuteRequest {
                what: Some(Asked::Component(vec![0; COMPONENT_BYTES_MAX + 1].into())),
                ..Default::default()
            },
        ];
        for request in refused {
            let refusal = check(request).unwrap_err();
            assert_eq!(refusal.code, tonic::Code::InvalidArgument, "{refusal}");
        }
    }
}
