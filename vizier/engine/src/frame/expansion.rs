//! How large a text becomes when it is planned, told before it is: a common table expression is planned into each place that names
//! it, so that thirty of them, each of which names the one before twice, are a billion operators.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ObjectName, Query, Visit, Visitor};
use host::error::Error;

use super::bounds;

/// Refuses a parsed text that grows beyond what a plan may have.
pub(super) fn check(text: &impl Visit) -> Result<(), Error> {
    let mut count = Count { open: vec![Level::default()] };
    let visited: ControlFlow<()> = text.visit(&mut count);
    debug_assert!(visited.is_continue());
    bounds::operators(count.open.first().map_or(0, |level| level.operators))
}

/// Fewer than will be planned: each query, and each table or expression that one names, is an operator at least.
struct Count {
    open: Vec<Level>,
}

/// A query that is being visited.
#[derive(Default)]
struct Level {
    operators: u64,
    /// Where its table expressions lie, with their names: they are visited as queries, and count where they are named.
    defined: Vec<(*const Query, String)>,
    /// Sizes of those that have been visited.
    sizes: HashMap<String, u64>,
}

impl Visitor for Count {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        let defined =
            tables.map(|table| (std::ptr::from_ref(table.query.as_ref()), table.alias.name.value.to_lowercase()));
        self.open.push(Level { operators: 1, defined: defined.collect(), sizes: HashMap::new() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let (Some(ended), Some(around)) = (self.open.pop(), self.open.last_mut()) else {
            return ControlFlow::Break(());
        };
        match around.defined.iter().find(|(at, _)| std::ptr::eq(*at, query)) {
            Some((_, name)) => drop(around.sizes.insert(name.clone(), ended.operators)),
            None => around.operators = around.operators.saturating_add(ended.operators),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        let name = name.to_string().trim_matches('"').to_lowercase();
        let size = self.open.iter().rev().find_map(|level| level.sizes.get(&name)).copied().unwrap_or(0);
        if let Some(level) = self.open.last_mut() {
            level.operators = level.operators.saturating_add(size).saturating_add(1);
        }
        ControlFlow::Continue(())
    }
}
