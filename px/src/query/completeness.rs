//! What is missing from a result, in words and for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vizier_api::Completeness;

use crate::output::human::{Clock, bytes_text, count, duration_text, list, plural, time_local, time_utc};

/// At most this many nodes or tables are named one by one; a fleet that is half down would fill the screen.
const NAMED_MAX: usize = 8;
/// Reasons of a loss that are named; the rest is in `data_loss`.
const REASONS_MAX: usize = 3;

/// What is missing, in sentences.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes {
    /// The result is known to be incomplete: nodes did not answer, or events were lost.
    pub missing: Vec<String>,
    /// Worth knowing, yet what was asked for is there: a limit did what it says, or the past is over.
    pub remarks: Vec<String>,
}

impl Notes {
    pub fn partial(&self) -> bool {
        !self.missing.is_empty()
    }
}

/// What was lost of one table on one node.
#[derive(Default)]
struct Group<'a> {
    events: u64,
    bytes: u64,
    reasons: Vec<(u64, &'a str)>,
}

impl Group<'_> {
    fn describe(mut self, table: &str, agent: &str) -> String {
        self.reasons.sort_by(|a, b| b.cmp(a));
        let reasons: Vec<String> = match &self.reasons[..] {
            [(_, one)] => vec![words(one)],
            many => many
                .iter()
                .take(REASONS_MAX)
                .map(|(events, reason)| match events {
                    0 => words(reason),
                    events => format!("{} {}", count(*events), words(reason)),
                })
                .collect(),
        };
        let more = if self.reasons.len() > REASONS_MAX { ", …" } else { "" };
        let of = if table.is_empty() { String::new() } else { format!(" of {table}") };
        let what = match self.events {
            0 => bytes_text(self.bytes),
            events => plural(events, "event"),
        };
        format!("{what}{of} lost on {agent}: {}{more}", reasons.join(", "))
    }
}

/// Reasons that tell of something that began before anybody watched: the other half of an exchange that was under way. What
/// was asked for, the range since then, lacks nothing by it.
const BEFORE_US: [&str; 1] = ["joined_midstream"];

/// The codes of `data_loss`, as words.
fn words(reason: &str) -> String {
    reason.replace('_', " ")
}

/// `limit` is the bound that rows were cut at, unless the person set it.
pub fn notes(completeness: &Completeness, limit: Option<u64>) -> Notes {
    let mut notes = Notes::default();
    let missing = &completeness.missing;
    for agent in missing.iter().take(NAMED_MAX) {
        notes.missing.push(format!("{} did not answer: {}", agent.agent, agent.reason));
    }
    if missing.len() > NAMED_MAX {
        notes.missing.push(format!("{} more did not answer", plural((missing.len() - NAMED_MAX) as u64, "agent")));
    }
    let mut groups: BTreeMap<(&str, &str), Group> = BTreeMap::new();
    // By agent and reason, since a gap is one for all tables that capture feeds: how long, and which tables.
    let mut unseen: BTreeMap<(&str, &str), (u64, Vec<String>)> = BTreeMap::new();
    let mut before_us: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for loss in &completeness.losses {
        if BEFORE_US.contains(&loss.reason.as_str()) {
            *before_us.entry((&loss.table, &loss.agent)).or_default() += loss.events;
            continue;
        }
        if loss.unseen_ns > 0 {
            let (longest_ns, tables) = unseen.entry((&loss.agent, &loss.reason)).or_default();
            *longest_ns = loss.unseen_ns.max(*longest_ns);
            tables.push(loss.table.clone());
        }
        if loss.unseen_ns > 0 && loss.events == 0 {
            continue;
        }
        let group = groups.entry((&loss.table, &loss.agent)).or_default();
        group.events += loss.events;
        group.bytes += loss.bytes;
        group.reasons.push((loss.events, &loss.reason));
    }
    let gaps_left = unseen.len().saturating_sub(NAMED_MAX);
    for ((agent, reason), (longest_ns, tables)) in unseen.into_iter().take(NAMED_MAX) {
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        let (lasted, reason) = (duration_text(longest_ns), words(reason));
        notes
            .missing
            .push(format!("nothing was captured for {lasted} on {agent}: {reason}; missing from {}", list(&tables)));
    }
    let left = gaps_left + groups.len().saturating_sub(NAMED_MAX);
    for ((table, agent), group) in groups.into_iter().take(NAMED_MAX) {
        // Bytes alone are what was left out on purpose: bodies beyond the cap.
        let notes = if group.events > 0 { &mut notes.missing } else { &mut notes.remarks };
        notes.push(group.describe(table, agent));
    }
    if left > 0 {
        notes.missing.push(format!("and {} more; px run agent_status shows all", plural(left as u64, "loss")));
    }
    for ((table, agent), events) in before_us.into_iter().take(NAMED_MAX) {
        let events = plural(events, "exchange");
        notes.remarks.push(format!("{events} of {table} on {agent} began before Pyxis did and are left out"));
    }
    if let (Some(limit), false) = (limit, completeness.truncated.is_empty()) {
        let names: Vec<&str> = completeness.truncated.iter().map(String::as_str).collect();
        notes.remarks.push(format!("{} cut at {} rows; --limit N gives more", list(&names), count(limit)));
    }
    for expired in completeness.expired.iter().take(NAMED_MAX) {
        let mut since = String::new();
        time_local(&mut since, expired.oldest_time_ns, Clock::Full);
        notes.remarks.push(format!("{} on {} reaches back to {since} only", expired.table, expired.agent));
    }
    notes
}

pub fn to_json(completeness: &Completeness) -> Value {
    let expired = completeness.expired.iter().map(|e| {
        let mut oldest = String::new();
        time_utc(&mut oldest, e.oldest_time_ns);
        json!({ "agent": e.agent, "table": e.table, "oldest_time": oldest })
    });
    let losses = completeness.losses.iter().map(|l| {
        json!({
            "agent": l.agent, "table": l.table, "reason": l.reason, "events": l.events, "bytes": l.bytes,
            "unseen_ns": l.unseen_ns,
        })
    });
    let missing = completeness.missing.iter().map(|m| json!({ "agent": m.agent, "reason": m.reason }));
    json!({
        "missing": missing.collect::<Vec<_>>(),
        "losses": losses.collect::<Vec<_>>(),
        "truncated": completeness.truncated,
        "expired": expired.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vizier_api::{Loss, MissingAgent};

    #[test]
    fn who_is_missing_and_what_was_lost_is_said() {
        let completeness = Completeness {
            missing: vec![MissingAgent { agent: "node-2".into(), reason: "no answer within 5 s".into() }],
            losses: vec![Loss {
                agent: "node-1".into(),
                table: "http_events".into(),
                reason: "ring full".into(),
                events: 1234,
                bytes: 2048,
                unseen_ns: 0,
            }],
            truncated: vec!["out".into()],
            expired: vec![],
        };
        let notes = notes(&completeness, Some(10_000));
        assert!(notes.partial());
        assert_eq!(
            notes.missing,
            ["node-2 did not answer: no answer within 5 s", "1,234 events of http_events lost on node-1: ring full"]
        );
        assert_eq!(notes.remarks, ["out cut at 10,000 rows; --limit N gives more"]);
    }

    #[test]
    fn losses_of_a_table_are_one_line_with_the_greatest_first() {
        let loss = |reason: &str, events: u64| Loss {
            agent: "vm".into(),
            table: "http_events".into(),
            reason: reason.into(),
            events,
            bytes: 2048,
            unseen_ns: 0,
        };
        let losses = vec![loss("a_b", 1), loss("ring_full", 300), loss("c", 20), loss("d", 0)];
        let notes = notes(&Completeness { losses, ..Completeness::default() }, None);
        assert_eq!(notes.missing, ["321 events of http_events lost on vm: 300 ring full, 20 c, 1 a b, …"]);
        let only_bytes = Completeness { losses: vec![loss("body_not_captured", 0)], ..Completeness::default() };
        let notes = super::notes(&only_bytes, None);
        assert_eq!(notes.remarks, ["2.00 KiB of http_events lost on vm: body not captured"]);
        assert!(!notes.partial());
    }

    #[test]
    fn a_time_without_capture_is_one_line_and_partial() {
        let gap = |table: &str, unseen_ns: u64| Loss {
            agent: "vm".into(),
            table: table.into(),
            reason: "helper_away".into(),
            unseen_ns,
            ..Loss::default()
        };
        let losses = vec![gap("http_events", 1_200_000_000), gap("processes", 1_200_000_000)];
        let notes = notes(&Completeness { losses, ..Completeness::default() }, None);
        let line = format!(
            "nothing was captured for {} on vm: helper away; missing from http_events and processes",
            duration_text(1_200_000_000)
        );
        assert_eq!(notes.missing, [line]);
        assert!(notes.partial() && notes.remarks.is_empty());
    }

    #[test]
    fn what_began_before_anybody_watched_is_no_loss() {
        let losses = vec![Loss {
            agent: "vm".into(),
            table: "http_events".into(),
            reason: "joined_midstream".into(),
            events: 2,
            ..Loss::default()
        }];
        let notes = notes(&Completeness { losses, ..Completeness::default() }, None);
        assert!(!notes.partial());
        assert_eq!(notes.remarks, ["2 exchanges of http_events on vm began before Pyxis did and are left out"]);
    }

    #[test]
    fn a_limit_that_does_what_it_says_is_not_partial() {
        let notes = notes(&Completeness { truncated: vec!["a".into()], ..Completeness::default() }, None);
        assert!(!notes.partial());
    }

    #[test]
    fn many_nodes_are_summed_up() {
        let missing = (0..20).map(|n| MissingAgent { agent: format!("n{n}"), reason: "gone".into() }).collect();
        let notes = notes(&Completeness { missing, ..Completeness::default() }, None);
        assert_eq!(notes.missing.len(), NAMED_MAX + 1);
        assert_eq!(notes.missing[NAMED_MAX], "12 agents more did not answer");
    }
}
