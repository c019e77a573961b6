//! How large a plan may be. Optimising a plan takes time that grows faster than the plan and cannot be interrupted, and what
//! walks over one recurses; so a plan that is too large is refused when it is made, which costs the same however it was made.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use host::error::Error;

use super::failure::invalid;
use super::widths;

/// Operators of a plan; one that is used in two places counts twice, as it runs twice. The largest bundled script has forty.
/// A thousand take a second to optimise.
const OPERATORS_MAX: u64 = 1_000;

/// Operators above one another. What plans, runs and drops a plan recurses: a thousand overflow a stack of 2 MiB, as tokio's
/// threads have it, and that ends the process.
const DEPTH_MAX: u64 = 160;

/// Columns of a frame. Pixie's widest table has thirty; a join of a frame with itself doubles them.
const COLUMNS_MAX: usize = 2_048;

/// Subqueries in subqueries. People write three.
const NESTED_MAX: usize = 64;

/// Refuses what is too large.
pub(super) fn check(plan: &LogicalPlan) -> std::result::Result<(), Error> {
    let columns = plan.schema().fields().len();
    if columns > COLUMNS_MAX {
        return Err(invalid(
            format!("the frame has {columns} columns, at most {COLUMNS_MAX} are allowed"),
            Some("select those that are needed before joining"),
        ));
    }
    let Size { operators: count, depth } = size(plan).map_err(|e| Error::Internal(e.strip_backtrace()))?;
    operators(count)?;
    widths::check(plan)?;
    if depth > DEPTH_MAX {
        return Err(invalid(
            format!("the query is {depth} operators deep, at most {DEPTH_MAX} are allowed"),
            Some("put conditions into one filter and columns into one select"),
        ));
    }
    Ok(())
}

/// Refuses so many.
pub(super) fn operators(count: u64) -> std::result::Result<(), Error> {
    if count <= OPERATORS_MAX {
        return Ok(());
    }
    let said = if count == u64::MAX { "more than can be counted".to_owned() } else { count.to_string() };
    Err(invalid(
        format!("the query has {said} operators, at most {OPERATORS_MAX} are allowed"),
        Some("what is used several times counts each time: aggregate it first, or ask in several queries"),
    ))
}

/// Of a plan.
#[derive(Clone, Copy)]
struct Size {
    operators: u64,
    depth: u64,
}

impl Size {
    const NONE: Self = Self { operators: 0, depth: 0 };
    const UNKNOWN: Self = Self { operators: u64::MAX, depth: u64::MAX };

    /// Beside one another.
    fn and(self, other: Self) -> Self {
        Self { operators: self.operators.saturating_add(other.operators), depth: self.depth.max(other.depth) }
    }

    /// With one more on top.
    fn below_one(self) -> Self {
        Self { operators: self.operators.saturating_add(1), depth: self.depth.saturating_add(1) }
    }
}

/// Counts what a walk over the plan would meet; as many as there are numbers if it cannot.
fn size(plan: &LogicalPlan) -> Result<Size> {
    Count::default().of(plan, 0)
}

/// Plans share parts: each part is looked at once, however often it is used, and known by where it lies.
#[derive(Default)]
struct Count(HashMap<*const LogicalPlan, Size>);

impl Count {
    /// Does not recurse, but for subqueries, since a text can be deeper than a stack.
    fn of(&mut self, plan: &LogicalPlan, nested: usize) -> Result<Size> {
        if nested > NESTED_MAX {
            return Ok(Size::UNKNOWN);
        }
        let mut stack = vec![plan];
        while let Some(node) = stack.last().copied() {
            let inputs = node.inputs();
            let unknown = inputs.iter().find(|input| !self.0.contains_key(&std::ptr::from_ref(**input)));
            if let Some(input) = unknown {
                stack.push(input);
                continue;
            }
            let own = self.subqueries(node, nested)?;
            let below = inputs.iter().filter_map(|input| self.0.get(&std::ptr::from_ref(*input)));
            let sum = below.fold(own, |sum, size| sum.and(*size)).below_one();
            self.0.insert(std::ptr::from_ref(node), sum);
            stack.pop();
        }
        Ok(self.0.get(&std::ptr::from_ref(plan)).copied().unwrap_or(Size::UNKNOWN))
    }

    fn subqueries(&mut self, node: &LogicalPlan, nested: usize) -> Result<Size> {
        let mut sum = Size::NONE;
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let plan = match expr {
                    Expr::Exists(exists) => &exists.subquery.subquery,
                    Expr::InSubquery(within) => &within.subquery.subquery,
                    Expr::SetComparison(comparison) => &comparison.subquery.subquery,
                    Expr::ScalarSubquery(subquery) => &subquery.subquery,
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                let known = self.0.get(&Arc::as_ptr(plan)).copied();
                let size = known.map_or_else(|| self.of(plan, nested + 1), Ok)?;
                sum = sum.and(size);
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(sum)
    }
}
