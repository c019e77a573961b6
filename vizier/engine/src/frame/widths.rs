//! How much a column is made of once everything it was computed from is put in its place: the optimiser does that when it moves
//! a filter below what computes its columns, so that `x + x as x` sixty times over is 2^60 operations for one filter.

use std::collections::HashMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};
use host::error::Error;

use super::failure::invalid;

/// Operations of one column or condition, put together. The text of an expression is bounded by 2,000; a script that computes a
/// column in ten steps, each from the one before twice, has a thousand.
const OPERATIONS_MAX: u64 = 16_384;

/// Of each column of a plan.
type Widths = std::sync::Arc<[u64]>;

/// Refuses a plan of which a column or a condition is more than that.
pub(super) fn check(plan: &LogicalPlan) -> std::result::Result<(), Error> {
    let internal = |e: DataFusionError| Error::Internal(e.strip_backtrace());
    // As good as every plan: asked with each step of a frame, so it must cost little.
    if at_most(plan).map_err(internal)? <= OPERATIONS_MAX {
        return Ok(());
    }
    let widest = Known::default().widest(plan).map_err(internal)?;
    if widest <= OPERATIONS_MAX {
        return Ok(());
    }
    Err(invalid(
        format!("a column is made of {widest} operations over several steps, at most {OPERATIONS_MAX} are allowed"),
        Some("use what was computed before once in each step, or aggregate in between"),
    ))
}

/// What no column or condition of the plan is wider than: as if each column were as wide as the widest of its node.
fn at_most(plan: &LogicalPlan) -> Result<u64> {
    let mut known: HashMap<*const LogicalPlan, u64> = HashMap::new();
    let (mut stack, mut most) = (vec![plan], 0);
    while let Some(node) = stack.last().copied() {
        let (mut given, mut waiting) = (1, None);
        for input in node.inputs() {
            match known.get(&std::ptr::from_ref(input)) {
                Some(width) => given = given.max(*width),
                None => waiting = Some(input),
            }
        }
        if let Some(input) = waiting {
            stack.push(input);
            continue;
        }
        let mut own = given;
        node.apply_expressions(|expr| {
            let mut sum = 0u64;
            expr.apply(|expr| {
                let width = if matches!(expr, Expr::Column(_)) { given } else { 1 };
                sum = sum.saturating_add(width);
                Ok(TreeNodeRecursion::Continue)
            })?;
            own = own.max(sum);
            Ok(TreeNodeRecursion::Continue)
        })?;
        most = most.max(own);
        // The others pass columns on.
        let computes = matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_));
        known.insert(std::ptr::from_ref(node), if computes { own } else { given });
        stack.pop();
    }
    Ok(most)
}

/// Plans share parts: each is looked at once, and known by where it lies.
#[derive(Default)]
struct Known(HashMap<*const LogicalPlan, Widths>);

impl Known {
    fn widest(&mut self, plan: &LogicalPlan) -> Result<u64> {
        let (mut stack, mut widest) = (vec![plan], 0);
        while let Some(node) = stack.last().copied() {
            let inputs = node.inputs();
            if let Some(input) = inputs.iter().find(|input| !self.0.contains_key(&std::ptr::from_ref(**input))) {
                stack.push(input);
                continue;
            }
            let given: Vec<(&DFSchema, Widths)> = inputs
                .iter()
                .filter_map(|input| Some((input.schema().as_ref(), self.0.get(&std::ptr::from_ref(*input))?.clone())))
                .collect();
            node.apply_expressions(|expr| {
                widest = widest.max(width(expr, &given)?);
                Ok(TreeNodeRecursion::Continue)
            })?;
            self.0.insert(std::ptr::from_ref(node), columns(node, &given)?);
            stack.pop();
        }
        Ok(widest)
    }
}

/// Widths of a node's own columns.
fn columns(node: &LogicalPlan, given: &[(&DFSchema, Widths)]) -> Result<Widths> {
    let count = node.schema().fields().len();
    let computed = |exprs: &[Expr]| exprs.iter().map(|expr| width(expr, given)).collect::<Result<Vec<_>>>();
    let mut widths = match (node, given) {
        (LogicalPlan::Projection(projection), _) => computed(&projection.expr)?,
        // A condition on a key moves below; what is aggregated does not.
        (LogicalPlan::Aggregate(aggregate), _) => computed(&aggregate.group_expr)?,
        (LogicalPlan::Union(_), given) => {
            let of = |i| given.iter().filter_map(|(_, widths)| widths.get(i)).copied().max().unwrap_or(1);
            (0..count).map(of).collect()
        }
        (_, [(_, only)]) => return Ok(if only.len() == count { only.clone() } else { padded(only.to_vec(), count) }),
        (_, given) => given.iter().flat_map(|(_, widths)| widths.iter().copied()).collect(),
    };
    widths.truncate(count);
    Ok(padded(widths, count))
}

fn padded(mut widths: Vec<u64>, count: usize) -> Widths {
    widths.resize(count, 1);
    widths.into()
}

fn width(expr: &Expr, given: &[(&DFSchema, Widths)]) -> Result<u64> {
    let mut sum = 0u64;
    expr.apply(|expr| {
        let own = match expr {
            Expr::Column(column) => {
                let found = given.iter().find_map(|(schema, widths)| {
                    let at = schema.maybe_index_of_column(column)?;
                    widths.get(at).copied()
                });
                found.unwrap_or(1)
            }
            Expr::Alias(_) => 0,
            _ => 1,
        };
        sum = sum.saturating_add(own);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(sum)
}
