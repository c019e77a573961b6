//! The optimiser's rules, each of which asks first whether the run still goes on: optimising is work without a pause, and must not
//! outlive who asked for it.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{Optimizer, OptimizerConfig, OptimizerRule};

use crate::query::Run;

/// The same rules for one run.
pub(crate) fn of(run: &Arc<Run>, optimizer: &Optimizer) -> Optimizer {
    let watched = |rule: &Arc<dyn OptimizerRule + Send + Sync>| Watched { rule: rule.clone(), run: run.clone() };
    Optimizer::with_rules(optimizer.rules.iter().map(|rule| Arc::new(watched(rule)) as _).collect())
}

#[derive(Debug)]
struct Watched {
    rule: Arc<dyn OptimizerRule + Send + Sync>,
    run: Arc<Run>,
}

impl OptimizerRule for Watched {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        self.run.go_on()?;
        self.rule.rewrite(plan, config)
    }
}
