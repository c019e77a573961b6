//! The one place every plan passes before it is optimised: policy goes below each scan, and what is not a query is refused.

use std::sync::Arc;

use datafusion::catalog::MemTable;
use datafusion::catalog::default_table_source::{DefaultTableSource, provider_as_source};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result, ScalarValue, internal_err};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, lit};

use crate::error::Fault;
use crate::functions::plugin::PluginTable;
use crate::provider::{PemTable, table_of};

/// The plan with policy below each scan. Applying it twice is the same as once.
pub(crate) fn guard(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(node)?.data)
}

fn node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::TableScan(scan) => match table_of(&scan.source) {
            Some(table) if table.guarded => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
            Some(table) => Ok(Transformed::yes(secure(&scan, table)?)),
            None if inline(&scan) => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
            None => Err(denied(&format!("{} is not a table of this engine", scan.table_name))),
        },
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Unnest(_) => Ok(Transformed::no(plan)),
        other => {
            let what = other.display().to_string();
            let what = what.split([':', ' ']).next().unwrap_or_default().to_owned();
            Err(denied(&format!("only SELECT queries are allowed, this one has {what}")))
        }
    }
}

fn denied(why: &str) -> datafusion::common::DataFusionError {
    Fault::Denied(why.to_owned()).into()
}

/// Rows a guest made itself, or that a function of a plugin makes.
fn inline(scan: &TableScan) -> bool {
    let source: &dyn std::any::Any = scan.source.as_ref();
    source.downcast_ref::<DefaultTableSource>().is_some_and(|source| {
        let provider: &dyn std::any::Any = source.table_provider.as_ref();
        provider.is::<MemTable>() || provider.is::<PluginTable>()
    })
}

fn secure(scan: &TableScan, table: &PemTable) -> Result<LogicalPlan> {
    if scan.projection.is_some() || !scan.filters.is_empty() || scan.fetch.is_some() {
        return internal_err!("a scan of {} was optimised before its policy was applied", scan.table_name);
    }
    let source = provider_as_source(Arc::new(table.guarded()));
    let mut plan = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?;
    if let Some(predicate) = &table.predicate {
        plan = plan.filter(predicate.clone())?;
    }
    if !table.masked.is_empty() {
        let columns = table.def.schema.fields().iter().enumerate().map(|(i, field)| {
            let column = Column::new(Some(scan.table_name.clone()), field.name());
            if !table.masked.contains(&i) {
                return Ok(Expr::Column(column));
            }
            let null = lit(ScalarValue::try_from(field.data_type())?);
            let metadata = FieldMetadata::from(field.metadata().clone());
            Ok(null.alias_qualified_with_metadata(Some(scan.table_name.clone()), field.name(), Some(metadata)))
        });
        plan = plan.project(columns.collect::<Result<Vec<_>>>()?)?;
    }
    plan.build()
}
