//! What is missing from a result, in words and for programs.

use serde_json::{Value, json};
use vizier_api::Completeness;

use crate::output::human::{Clock, bytes_text, count, list, plural, time_local, time_utc};

/// At most this many nodes or tables are named one by one; a fleet that is half down would fill the screen.
const NAMED_MAX: usize = 8;

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

pub fn notes(completeness: &Completeness, limit: Option<u64>) -> Notes {
    let mut notes = Notes::default();
    let missing = &completeness.missing;
    for agent in missing.iter().take(NAMED_MAX) {
        notes.missing.push(format!("{} did not answer: {}", agent.agent, agent.reason));
    }
    if missing.len() > NAMED_MAX {
        notes.missing.push(format!("{} more did not answer", plural((missing.len() - NAMED_MAX) as u64, "agent")));
    }
    for loss in completeness.losses.iter().take(NAMED_MAX) {
        let bytes = if loss.bytes > 0 { format!(" ({})", bytes_text(loss.bytes)) } else { String::new() };
        let table = if loss.table.is_empty() { String::new() } else { format!(" of {}", loss.table) };
        let events = plural(loss.events, "event");
        notes.missing.push(format!("{events}{table}{bytes} lost on {}: {}", loss.agent, loss.reason));
    }
    if completeness.losses.len() > NAMED_MAX {
        let events = completeness.losses[NAMED_MAX..].iter().map(|l| l.events).sum();
        notes.missing.push(format!("{} more lost; px run agent_status shows where", plural(events, "event")));
    }
    if !completeness.truncated.is_empty() {
        let names: Vec<&str> = completeness.truncated.iter().map(String::as_str).collect();
        let at = limit.map(|limit| format!(" at {} rows", count(limit))).unwrap_or_default();
        notes.remarks.push(format!("{} cut{at}; --limit N gives more", list(&names)));
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
    let losses = completeness.losses.iter().map(
        |l| json!({ "agent": l.agent, "table": l.table, "reason": l.reason, "events": l.events, "bytes": l.bytes }),
    );
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
            }],
            truncated: vec!["out".into()],
            expired: vec![],
        };
        let notes = notes(&completeness, Some(10_000));
        assert!(notes.partial());
        assert_eq!(
            notes.missing,
            [
                "node-2 did not answer: no answer within 5 s",
                "1,234 events of http_events (2.00 KiB) lost on node-1: ring full"
            ]
        );
        assert_eq!(notes.remarks, ["out cut at 10,000 rows; --limit N gives more"]);
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
