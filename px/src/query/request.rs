//! The options that every way of asking has in common, and the request they make.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use host_manifest::Manifest;
use vizier_api::execute_request::What;
use vizier_api::follow::Mode;
use vizier_api::{ExecuteRequest, Follow};

use crate::error::{Error, Result};
use crate::output::{Format, Options};
use crate::style::Terminal;
use crate::when::{now_ns, parse_duration, parse_instant};

use super::selection::Selection;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FollowMode {
    /// What the script says of itself.
    Auto,
    /// Run again and again, each result replaces the last.
    Refresh,
    /// New rows as they come.
    Tail,
}

impl FollowMode {
    /// What `auto` means for a script with this manifest.
    pub fn or_manifest(self, manifest: &str) -> FollowMode {
        match (self, Manifest::from_json(manifest.as_bytes())) {
            (FollowMode::Auto, Ok(manifest)) => match manifest.follow {
                host_manifest::Follow::Refresh => FollowMode::Refresh,
                host_manifest::Follow::Tail => FollowMode::Tail,
            },
            (mode, _) => mode,
        }
    }
}

impl From<FollowMode> for Mode {
    fn from(mode: FollowMode) -> Mode {
        match mode {
            // SQL and unknown components: how rows are shown must not depend on what Vizier makes of it.
            FollowMode::Auto | FollowMode::Refresh => Mode::Refresh,
            FollowMode::Tail => Mode::Tail,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct ResultArgs {
    /// Output format [default: table; ndjson for --follow when stdout is not a terminal]
    #[arg(short, long, value_enum, value_name = "FORMAT", hide_possible_values = true, help_heading = "Output")]
    pub output: Option<Format>,

    /// Write a file per table into DIR
    #[arg(short, long = "dir", value_name = "DIR", value_hint = clap::ValueHint::DirPath, help_heading = "Output")]
    pub directory: Option<PathBuf>,

    /// Only this table of the result
    #[arg(long, value_name = "NAME", help_heading = "Output")]
    pub table: Option<String>,

    /// Only these columns, in this order
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', help_heading = "Output")]
    pub columns: Vec<String>,

    /// Leave out the line with the columns' names
    #[arg(long, help_heading = "Output")]
    pub no_headers: bool,

    /// Show what the run cost: rows and bytes per agent, guest CPU, memory
    #[arg(long, help_heading = "Output")]
    pub stats: bool,

    /// Exit with 0 although agents did not answer or events were lost
    #[arg(long, help_heading = "Output")]
    pub allow_partial: bool,

    /// Go on until Ctrl-C [modes: auto, refresh, tail]
    #[arg(
        short,
        long,
        value_enum,
        value_name = "MODE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "auto",
        hide_possible_values = true,
        help_heading = "Range"
    )]
    pub follow: Option<FollowMode>,

    /// Time between two rounds of --follow [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "follow", help_heading = "Range")]
    pub interval: Option<Duration>,

    /// How far back to look: 30s, 5m, 1h30m, 2d
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "start", help_heading = "Range")]
    pub since: Option<Duration>,

    /// Begin of the range: RFC 3339, "2026-11-23 07:45", 07:45 or -5m
    #[arg(long, value_name = "WHEN", value_parser = parse_instant, allow_hyphen_values = true, help_heading = "Range")]
    pub start: Option<i64>,

    /// End of the range [default: now]
    #[arg(
        long,
        value_name = "WHEN",
        value_parser = parse_instant,
        allow_hyphen_values = true,
        conflicts_with = "follow",
        help_heading = "Range"
    )]
    pub stop: Option<i64>,

    /// Rows per table [default: 10000]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Range")]
    pub limit: Option<u64>,

    /// Give up after this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Range")]
    pub timeout: Option<Duration>,
}

/// A run, ready to go.
#[derive(Debug)]
pub struct Job {
    pub request: ExecuteRequest,
    pub options: Options,
    pub selection: Selection,
    pub allow_partial: bool,
    pub stats: bool,
}

/// Vizier's own default, which a note may name.
pub const LIMIT_ROWS_DEFAULT: u64 = 10_000;

impl ResultArgs {
    pub fn format(&self, terminal: &Terminal) -> Format {
        self.output.unwrap_or(match self.follow {
            Some(_) if !terminal.out_tty => Format::Ndjson,
            _ => Format::Table,
        })
    }

    pub fn job(self, what: What, title: String, terminal: &Terminal) -> Result<Job> {
        let now = now_ns();
        let (start_time_ns, end_time_ns) = match (self.since, self.start, self.stop) {
            (Some(since), _, stop) => {
                let since = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
                (stop.unwrap_or(now).saturating_sub(since).max(1), stop.unwrap_or(0))
            }
            (None, start, stop) => (start.unwrap_or(0), stop.unwrap_or(0)),
        };
        if start_time_ns >= if end_time_ns == 0 { now } else { end_time_ns } {
            return Err(Error::usage("the range is empty: it starts when it ends, or later")
                .hint("--start must lie before --stop, and before now"));
        }
        let format = self.format(terminal);
        let only_one = matches!(what, What::Sql(_));
        let request = ExecuteRequest {
            what: Some(what),
            start_time_ns,
            end_time_ns,
            limit_rows: self.limit.unwrap_or(0),
            timeout_ms: self.timeout.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1)),
            follow: self.follow.map(|mode| Follow {
                mode: Mode::from(mode).into(),
                interval_ms: self.interval.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1)),
            }),
            ..ExecuteRequest::default()
        };
        Ok(Job {
            request,
            options: Options {
                format,
                headers: !self.no_headers,
                follow: self.follow.is_some(),
                tail: self.follow == Some(FollowMode::Tail),
                one_table: self.table.is_some() || only_one,
                directory: self.directory,
                title,
            },
            selection: Selection::new(self.table, self.columns),
            allow_partial: self.allow_partial,
            stats: self.stats,
        })
    }
}
