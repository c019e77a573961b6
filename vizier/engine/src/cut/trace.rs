//! Whether a column is a scan's upid, whatever it is called by now.

use std::sync::Arc;

use datafusion::common::{JoinSide, JoinType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};

use crate::leaf::{PemScanExec, UPID, UPID_TYPE};

type Plan = Arc<dyn ExecutionPlan>;
type Expr = Arc<dyn PhysicalExpr>;

/// Whether one of the expressions is a column that [`is_upid`].
pub(super) fn any_upid(expressions: &[Expr], plan: &Plan) -> bool {
    expressions.iter().any(|expression| is_upid(expression, plan))
}

/// Whether the expression over `plan` gives, unchanged and never null, the upid of a scan on the same node.
pub(super) fn is_upid(expression: &Expr, plan: &Plan) -> bool {
    expression.downcast_ref::<Column>().is_some_and(|column| traces(plan, column.index()))
}

fn traces(plan: &Plan, index: usize) -> bool {
    if let Some(scan) = plan.downcast_ref::<PemScanExec>() {
        let schema = scan.schema();
        return schema.fields().get(index).is_some_and(|f| f.name() == UPID && *f.data_type() == UPID_TYPE);
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return projection.expr().get(index).is_some_and(|e| is_upid(&e.expr, projection.input()));
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let index = match filter.projection().as_ref() {
            Some(kept) => kept.get(index).copied(),
            None => Some(index),
        };
        return index.is_some_and(|index| traces(filter.input(), index));
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let groups = aggregate.group_expr();
        // Grouping sets put nulls into keys, and a null is on every node.
        return groups.is_single() && groups.expr().get(index).is_some_and(|(e, _)| is_upid(e, aggregate.input()));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return through_join(join, index);
    }
    if let Some(union) = plan.downcast_ref::<UnionExec>() {
        return union.inputs().iter().all(|input| traces(input, index));
    }
    if plan.is::<BoundedWindowAggExec>() || plan.is::<WindowAggExec>() {
        // Windows add columns behind those of their input.
        let input = plan.children()[0];
        return index < input.schema().fields().len() && traces(input, index);
    }
    let passes_columns = plan.is::<CooperativeExec>()
        || plan.is::<LocalLimitExec>()
        || plan.is::<SortExec>()
        || plan.is::<SortPreservingMergeExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<RepartitionExec>();
    passes_columns && traces(plan.children()[0], index)
}

fn through_join(join: &HashJoinExec, index: usize) -> bool {
    let index = match join.projection.as_ref() {
        Some(kept) => match kept.get(index) {
            Some(index) => *index,
            None => return false,
        },
        None => index,
    };
    let left = join.left().schema().fields().len();
    let (side, index) = match join.join_type() {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (JoinSide::Left, index),
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (JoinSide::Right, index),
        _ if index < left => (JoinSide::Left, index),
        _ => (JoinSide::Right, index - left),
    };
    // A side that may be missing from a row is null there.
    let kept = match join.join_type() {
        JoinType::Inner => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => side == JoinSide::Left,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => side == JoinSide::Right,
        JoinType::Full => false,
    };
    let input = if side == JoinSide::Left { join.left() } else { join.right() };
    kept && index < input.schema().fields().len() && traces(input, index)
}
