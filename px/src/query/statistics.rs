//! What a run cost, per node and in all.

use serde_json::{Value, json};
use vizier_api::Statistics;

use crate::output::grid::Grid;
use crate::output::human::{bytes_text, count, duration_text};
use crate::style::{Style, Tone};

/// For people, under `--stats`.
pub fn render(statistics: &Statistics, style: Style) -> String {
    let mut grid = Grid::new([
        ("agent", false),
        ("rows scanned", true),
        ("bytes scanned", true),
        ("bytes sent", true),
        ("elapsed", true),
    ]);
    for agent in &statistics.agents {
        grid.push(&crate::output::text::sanitize(&agent.agent), Tone::Plain);
        grid.push(&count(agent.rows_scanned), Tone::Plain);
        grid.push(&bytes_text(agent.bytes_scanned), Tone::Plain);
        grid.push(&bytes_text(agent.bytes_sent), Tone::Plain);
        grid.push(&duration_text(agent.elapsed_ns), Tone::Plain);
    }
    let mut out = String::new();
    if !statistics.agents.is_empty() {
        out.push_str(&grid.render(None, style));
    }
    let s = statistics;
    out.push_str(&format!(
        "result {} rows, {}; planned in {}, took {} in all; guest used {} of CPU, {} of memory, {} host calls\n",
        count(s.rows_output),
        bytes_text(s.bytes_output),
        duration_text(s.plan_ns),
        duration_text(s.total_ns),
        duration_text(s.guest_cpu_ns),
        bytes_text(s.guest_memory_peak_bytes),
        count(s.host_calls),
    ));
    out
}

pub fn to_json(statistics: &Statistics) -> Value {
    let agents = statistics.agents.iter().map(|a| {
        json!({
            "agent": a.agent,
            "rows_scanned": a.rows_scanned,
            "bytes_scanned": a.bytes_scanned,
            "bytes_sent": a.bytes_sent,
            "elapsed_ns": a.elapsed_ns,
        })
    });
    json!({
        "agents": agents.collect::<Vec<_>>(),
        "guest_cpu_ns": statistics.guest_cpu_ns,
        "guest_memory_peak_bytes": statistics.guest_memory_peak_bytes,
        "host_calls": statistics.host_calls,
        "rows_output": statistics.rows_output,
        "bytes_output": statistics.bytes_output,
        "plan_ns": statistics.plan_ns,
        "total_ns": statistics.total_ns,
    })
}
