//! A plan as people read it: what runs on Vizier, and below each cut what runs on every agent.

use std::sync::Arc;

use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};

use crate::remote::RemoteExec;

/// One operator a line, children indented; then advice, where there is any.
pub(crate) fn explain(plan: &Arc<dyn ExecutionPlan>) -> String {
    let mut text = Text::default();
    text.add(plan, 0, false);
    for note in text.notes {
        text.lines.push(format!("note: {note}"));
    }
    text.lines.join("\n")
}

#[derive(Default)]
struct Text {
    lines: Vec<String>,
    notes: Vec<String>,
}

struct OneLine<'a>(&'a dyn ExecutionPlan);

impl std::fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt_as(DisplayFormatType::Default, f)
    }
}

impl Text {
    fn add(&mut self, plan: &Arc<dyn ExecutionPlan>, depth: usize, on_agent: bool) {
        self.lines.push(format!("{:width$}{}", "", OneLine(plan.as_ref()), width = depth * 2));
        if let Some(remote) = plan.downcast_ref::<RemoteExec>() {
            self.lines.push(format!("{:width$}on each agent:", "", width = depth * 2 + 2));
            self.add(remote.stage(), depth + 2, true);
            return;
        }
        if on_agent && let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
            self.judge(aggregate);
        }
        for child in plan.children() {
            self.add(child, depth + 1, on_agent);
        }
    }

    fn judge(&mut self, aggregate: &AggregateExec) {
        if *aggregate.mode() != AggregateMode::Partial {
            return;
        }
        for function in aggregate.aggr_expr() {
            let advice = match function.fun().name() {
                "median" => "use quantile(x, 0.5)",
                "percentile_cont" | "quantile_cont" => "use quantile(x, q)",
                "array_agg" | "string_agg" => "limit the rows first",
                "count" | "sum" if function.is_distinct() => "use approx_distinct(x) where an estimate will do",
                _ => continue,
            };
            let note = format!("{} keeps every value, and each agent sends them all: {advice}", function.fun().name());
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
}
