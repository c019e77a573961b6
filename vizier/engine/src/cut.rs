//! Where a physical plan is cut: what is local to rows or to a node goes to the agents, the rest stays on Vizier.
//!
//! The walk goes up from the leaves and keeps a subtree as a *stage* while every operator gives the same rows when it runs
//! once per agent and the results are put together: filters, projections, local limits, unions, partial aggregates, sorts
//! with a fetch; and, since a upid occurs on one node only, whatever is grouped, partitioned or joined by a column that is
//! traced to a scan's upid. Small tables that are on Vizier (VALUES, rows a script made) travel with the stage. With one
//! agent, the whole plan goes there.

mod joins;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::{Distribution, Partitioning};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};

use crate::exchange::View;
use crate::leaf::PemScanExec;
use crate::remote::{RemoteExec, single};

type Plan = Arc<dyn ExecutionPlan>;

/// Largest table that travels with a stage: a copy goes to every agent.
const SHIPPED_BYTES_MAX: usize = 1 << 20;

/// Operators above one another in a stage. Messages are read 100 levels deep, an operator is two of them, and what is left is for
/// its expressions; what lies above runs on Vizier.
const STAGE_DEPTH_MAX: usize = 24;

/// Cuts a plan. One without scans of agents' tables stays as it is.
pub(crate) fn cut(plan: Plan, view: &Arc<View>, options: &Arc<BTreeMap<String, String>>) -> Result<Plan> {
    let cut = Cut { view, options };
    if view.agents.len() == 1
        && let Some(whole) = cut.whole(&plan)?
    {
        return Ok(whole);
    }
    match cut.walk(&plan)? {
        Side::Vizier(plan) => Ok(plan),
        Side::Agents(stage) => cut.seal(stage),
    }
}

struct Cut<'a> {
    view: &'a Arc<View>,
    options: &'a Arc<BTreeMap<String, String>>,
}

/// Where a subtree runs.
enum Side {
    Vizier(Plan),
    Agents(Stage),
}

/// A subtree that runs on each agent.
struct Stage {
    plan: Plan,
    /// Operators above `plan` that only order or place rows (repartition, coalesce, merge, full sort), innermost first. They
    /// come back above the cut if the stage ends here, and are not needed if a parent that works per node takes the stage.
    above: Vec<Plan>,
}

impl Stage {
    fn new(plan: Plan) -> Self {
        Self { plan, above: Vec::new() }
    }

    fn sorts(&self) -> impl Iterator<Item = &SortExec> {
        self.above.iter().filter_map(|plan| plan.downcast_ref::<SortExec>())
    }

    /// All rows of a node in one partition, sorted if they were to be.
    fn gathered(&self) -> Result<Plan> {
        let mut plan = single(self.plan.clone());
        for sort in self.sorts() {
            plan = Arc::new(SortExec::new(sort.expr().clone(), plan));
        }
        Ok(plan)
    }
}

impl Cut<'_> {
    fn walk(&self, plan: &Plan) -> Result<Side> {
        if let Some(scan) = plan.downcast_ref::<PemScanExec>() {
            return Ok(Side::Agents(Stage::new(Arc::new(scan.for_fragment()?))));
        }
        let children = plan.children();
        if children.is_empty() {
            return Ok(Side::Vizier(plan.clone()));
        }
        let mut sides = children.into_iter().map(|child| self.walk(child)).collect::<Result<Vec<_>>>()?;
        if sides.iter().all(|side| matches!(side, Side::Vizier(_))) {
            return Ok(Side::Vizier(self.rebuild(plan, sides)?));
        }
        if places_rows(plan)
            && let Some(Side::Agents(stage)) = sides.first_mut()
        {
            stage.above.push(plan.clone());
            return Ok(sides.remove(0));
        }
        let deep =
            sides.iter().any(|side| matches!(side, Side::Agents(stage) if depth(&stage.plan) >= STAGE_DEPTH_MAX));
        match if deep { None } else { self.push(plan, &sides)? } {
            Some(pushed) => Ok(Side::Agents(Stage::new(pushed))),
            None => Ok(Side::Vizier(self.rebuild(plan, sides)?)),
        }
    }

    /// The operator on top of its children's stages, if it may run per agent.
    fn push(&self, plan: &Plan, sides: &[Side]) -> Result<Option<Plan>> {
        if joins::is_join(plan) {
            return joins::push(plan, sides);
        }
        if !row_local(plan) && !key_local(plan) {
            return Ok(None);
        }
        let requirements = plan.input_distribution_requirements().into_per_child();
        let mut inputs = Vec::with_capacity(sides.len());
        for (side, requirement) in sides.iter().zip(&requirements) {
            let Side::Agents(stage) = side else { return Ok(None) };
            inputs.push(match keys_of(requirement) {
                Some(keys) if trace::any_upid(keys, &stage.plan) => stage.gathered()?,
                Some(_) => return Ok(None),
                None if matches!(requirement, Distribution::SinglePartition) => return Ok(None),
                // Rows are dealt with one by one, but a sort below would be lost.
                None if stage.sorts().next().is_some() => return Ok(None),
                None => stage.plan.clone(),
            });
        }
        Ok(Some(with_children(plan, inputs)?))
    }

    /// The cut itself.
    fn seal(&self, stage: Stage) -> Result<Plan> {
        let remote = RemoteExec::new(stage.plan, self.view.clone(), self.options.clone());
        remote.encode()?;
        let mut plan: Plan = Arc::new(remote);
        for above in stage.above {
            // Placing rows of one partition anew is only work.
            if above.is::<CoalescePartitionsExec>() && plan.output_partitioning().partition_count() == 1 {
                continue;
            }
            plan = with_children(&above, vec![plan])?;
        }
        Ok(plan)
    }

    /// The operator on Vizier, above what became of its children.
    fn rebuild(&self, plan: &Plan, sides: Vec<Side>) -> Result<Plan> {
        let mut changed = false;
        let before: Vec<Plan> = plan.children().into_iter().cloned().collect();
        let mut children = Vec::with_capacity(sides.len());
        for (side, before) in sides.into_iter().zip(&before) {
            let child = match side {
                Side::Vizier(child) => child,
                Side::Agents(stage) => self.seal(stage)?,
            };
            changed |= !Arc::ptr_eq(&child, before);
            children.push(child);
        }
        if !changed {
            return Ok(plan.clone());
        }
        if plan.is::<InterleaveExec>() {
            // It needs children that are partitioned alike, which stages are not; what is above gets its order below.
            return UnionExec::try_new(children);
        }
        let children = satisfy(plan, children)?;
        with_children(plan, children)
    }

    /// Everything on the only agent there is, if all of it can travel.
    fn whole(&self, plan: &Plan) -> Result<Option<Plan>> {
        let (mut scans, mut fits) = (false, true);
        plan.apply(|node| {
            if node.is::<PemScanExec>() {
                scans = true;
            } else if node.children().is_empty() && !shippable(node)? {
                fits = false;
            }
            Ok(if fits { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })?;
        if !scans || !fits {
            return Ok(None);
        }
        let stage = fragment_of(plan)?;
        let remote = RemoteExec::new(stage, self.view.clone(), self.options.clone());
        // What proto cannot carry is cut as with several agents.
        Ok(remote.encode().is_ok().then(|| Arc::new(remote) as Plan))
    }
}

fn depth(plan: &Plan) -> usize {
    1 + plan.children().into_iter().map(depth).max().unwrap_or(0)
}

fn fragment_of(plan: &Plan) -> Result<Plan> {
    if let Some(scan) = plan.downcast_ref::<PemScanExec>() {
        return Ok(Arc::new(scan.for_fragment()?));
    }
    let children = plan.children();
    if children.is_empty() {
        return Ok(plan.clone());
    }
    let children = children.into_iter().map(fragment_of).collect::<Result<_>>()?;
    with_children(plan, children)
}

/// Gives the same union of rows when it runs once per agent.
fn row_local(plan: &Plan) -> bool {
    plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<LocalLimitExec>()
        || plan.is::<UnionExec>()
        || plan.is::<UnnestExec>()
        || plan.downcast_ref::<SortExec>().is_some_and(|sort| sort.preserve_partitioning() && sort.fetch().is_some())
        || plan.is::<AggregateExec>()
}

/// Works on all rows of a key at a time; which keys, its required distribution says.
fn key_local(plan: &Plan) -> bool {
    plan.is::<BoundedWindowAggExec>() || plan.is::<WindowAggExec>()
}

/// Only changes where rows are, or their order.
fn places_rows(plan: &Plan) -> bool {
    plan.is::<RepartitionExec>()
        || plan.downcast_ref::<CoalescePartitionsExec>().is_some_and(|p| p.fetch().is_none())
        || plan.downcast_ref::<SortPreservingMergeExec>().is_some_and(|p| p.fetch().is_none())
        || plan.downcast_ref::<SortExec>().is_some_and(|p| p.fetch().is_none())
}

fn keys_of(distribution: &Distribution) -> Option<&[Arc<dyn datafusion::physical_expr::PhysicalExpr>]> {
    #[expect(deprecated, reason = "some operators still ask for it by its old name")]
    match distribution {
        Distribution::KeyPartitioned(keys) | Distribution::HashPartitioned(keys) => Some(keys),
        _ => None,
    }
}

fn with_children(plan: &Plan, children: Vec<Plan>) -> Result<Plan> {
    plan.clone().replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// Puts rows where the operator needs them, where a child that became a stage no longer does.
fn satisfy(plan: &Plan, children: Vec<Plan>) -> Result<Vec<Plan>> {
    let requirements = plan.input_distribution_requirements().into_per_child();
    let partitions = children.iter().zip(&requirements).filter(|(_, r)| keys_of(r).is_some()).map(|(c, _)| {
        if matches!(c.output_partitioning(), Partitioning::Hash(..)) {
            c.output_partitioning().partition_count()
        } else {
            1
        }
    });
    // Sides of a partitioned join must be cut into equally many parts.
    let partitions = partitions.max().unwrap_or(1);
    children
        .into_iter()
        .zip(requirements)
        .map(|(child, requirement)| {
            let count = child.output_partitioning().partition_count();
            if let Some(keys) = keys_of(&requirement) {
                let hashed = matches!(child.output_partitioning(), Partitioning::Hash(..)) && count == partitions;
                return match partitions {
                    _ if hashed => Ok(child),
                    1 => Ok(single(child)),
                    _ => {
                        let sorted = child.output_ordering().is_some();
                        let partitioning = Partitioning::Hash(keys.to_vec(), partitions);
                        let exec = RepartitionExec::try_new(child, partitioning)?;
                        Ok(Arc::new(if sorted { exec.with_preserve_order() } else { exec }) as Plan)
                    }
                };
            }
            match requirement {
                Distribution::SinglePartition => Ok(single(child)),
                _ => Ok(child),
            }
        })
        .collect()
}

/// A table on Vizier that is small and complete, and so may travel with a stage.
pub(super) fn shippable(plan: &Plan) -> Result<bool> {
    let (mut fits, mut bytes) = (true, 0);
    plan.apply(|node| {
        if let Some(source) = node.downcast_ref::<DataSourceExec>() {
            match source.data_source().downcast_ref::<MemorySourceConfig>() {
                Some(memory) => {
                    bytes += memory.partitions().iter().flatten().map(|b| b.get_array_memory_size()).sum::<usize>()
                }
                None => fits = false,
            }
        } else if node.children().is_empty() {
            fits &= node.is::<EmptyExec>() || node.is::<PlaceholderRowExec>();
        } else {
            fits &= row_local(node) || places_rows(node);
        }
        Ok(if fits { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(fits && bytes <= SHIPPED_BYTES_MAX)
}
