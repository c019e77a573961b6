//! Joins that run on the agents: by upid, or with a small table that travels.

use std::sync::Arc;

use datafusion::common::{JoinType, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::repartition::RepartitionExec;

use super::{Side, Stage, shippable, trace, with_children};
use crate::remote::single;

type Plan = Arc<dyn ExecutionPlan>;

pub(super) fn is_join(plan: &Plan) -> bool {
    plan.is::<HashJoinExec>() || plan.is::<NestedLoopJoinExec>() || plan.is::<CrossJoinExec>()
}

/// The join on top of its sides' stages, if it may run per agent.
pub(super) fn push(plan: &Plan, sides: &[Side]) -> Result<Option<Plan>> {
    let [left, right] = sides else { return Ok(None) };
    match (left, right) {
        (Side::Agents(left), Side::Agents(right)) => by_upid(plan, left, right),
        (Side::Vizier(small), Side::Agents(stage)) => {
            if !shippable(small)? || !emits_once(join_type(plan), Small::Left) {
                return Ok(None);
            }
            Ok(Some(with_children(plan, vec![placed(small), stage.gathered()?])?))
        }
        (Side::Agents(stage), Side::Vizier(small)) => {
            if !shippable(small)? || !emits_once(join_type(plan), Small::Right) {
                return Ok(None);
            }
            Ok(Some(with_children(plan, vec![stage.gathered()?, placed(small)])?))
        }
        (Side::Vizier(_), Side::Vizier(_)) => Ok(None),
    }
}

/// Both sides of a pair of keys are upids: rows that match are on the same node, and a row that matches none there matches
/// none anywhere. So every kind of join is right.
fn by_upid(plan: &Plan, left: &Stage, right: &Stage) -> Result<Option<Plan>> {
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return Ok(None) };
    let together = join.on().iter().any(|(l, r)| trace::is_upid(l, &left.plan) && trace::is_upid(r, &right.plan));
    // A scan's upid is never null, so it does not matter whether nulls are taken to be equal.
    if !together {
        return Ok(None);
    }
    let joined = join
        .builder()
        .with_partition_mode(PartitionMode::CollectLeft)
        .with_new_children(vec![left.gathered()?, right.gathered()?])?
        .recompute_properties()
        .build()?;
    Ok(Some(Arc::new(joined)))
}

#[derive(Clone, Copy, PartialEq)]
enum Small {
    Left,
    Right,
}

fn join_type(plan: &Plan) -> JoinType {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        *join.join_type()
    } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        *join.join_type()
    } else {
        JoinType::Inner
    }
}

/// Whether no row of the small side comes out by itself: each agent would give it, though it is one row.
fn emits_once(join_type: JoinType, small: Small) -> bool {
    match join_type {
        JoinType::Inner => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => small == Small::Right,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => small == Small::Left,
        JoinType::Full => false,
    }
}

/// The small table in one partition, without what would only spread it.
fn placed(small: &Plan) -> Plan {
    let mut plan = small;
    while plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() && plan.fetch().is_none() {
        plan = plan.children()[0];
    }
    single(plan.clone())
}
