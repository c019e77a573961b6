//! p50, p90 and p99 of one column are three questions to one sketch: `quantile(x, q1), quantile(x, q2)` become one
//! `sketch(x)` per group, and `sketch_quantile(…, q)` above it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarUDF,
};

use super::quantile::{Quantile, SketchOf, SketchQuantile};

/// The plan with quantiles of the same values fused.
pub(crate) fn fuse_quantiles(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan
        .transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(aggregate)
                if aggregate.aggr_expr.iter().filter_map(quantile_of).nth(1).is_some() =>
            {
                Ok(Transformed::yes(fuse(aggregate)?))
            }
            other => Ok(Transformed::no(other)),
        })?
        .data)
}

/// The call, if the expression is a plain `quantile(x, q)`.
fn quantile_of(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(alias) => quantile_of(&alias.expr),
        Expr::AggregateFunction(call) => {
            let plain = call.params.order_by.is_empty() && !call.params.distinct && call.params.args.len() == 2;
            let ours: &dyn std::any::Any = call.func.inner().as_ref();
            (plain && ours.is::<Quantile>()).then_some(call)
        }
        _ => None,
    }
}

fn fuse(aggregate: Aggregate) -> Result<LogicalPlan> {
    let sketch: Arc<AggregateUDF> = Arc::new(SketchOf::default().into());
    let part = Arc::new(ScalarUDF::from(SketchQuantile::default()));
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();

    let mut calls: Vec<Expr> = Vec::new();
    // What each aggregate's column is, in terms of the fused node's columns.
    let mut above: Vec<(usize, Option<Expr>)> = Vec::new();
    for expr in &aggregate.aggr_expr {
        let (call, q) = match quantile_of(expr) {
            Some(quantile) => {
                let mut params = quantile.params.clone();
                let q = params.args.pop();
                (Expr::AggregateFunction(AggregateFunction { func: sketch.clone(), params }), q)
            }
            None => (expr.clone(), None),
        };
        let place = calls.iter().position(|known| *known == call).unwrap_or_else(|| {
            calls.push(call);
            calls.len() - 1
        });
        above.push((place, q));
    }
    let schema = aggregate.schema.clone();
    let fused = LogicalPlan::Aggregate(Aggregate::try_new(aggregate.input, aggregate.group_expr, calls)?);
    let columns: Vec<Column> = fused.schema().columns();
    let mut projection: Vec<Expr> = columns[..groups].iter().cloned().map(Expr::Column).collect();
    for (i, (place, q)) in above.into_iter().enumerate() {
        let column = Expr::Column(columns[groups + place].clone());
        projection.push(match q {
            Some(q) => {
                let (qualifier, field) = schema.qualified_field(groups + i);
                part.call(vec![column, q]).alias_qualified(qualifier.cloned(), field.name())
            }
            None => column,
        });
    }
    LogicalPlanBuilder::from(fused).project(projection)?.build()
}

/// Aggregates that DataFusion has for plain strings only, and that are wanted for columns that are dictionaries.
const PLAIN_ONLY: [&str; 1] = ["approx_distinct"];

/// The plan with dictionaries taken apart where an aggregate needs it.
pub(crate) fn plain_arguments(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan
        .transform_up_with_subqueries(|node| {
            let LogicalPlan::Aggregate(aggregate) = node else { return Ok(Transformed::no(node)) };
            let mut changed = false;
            let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
            for expr in &aggregate.aggr_expr {
                let call = with_plain_arguments(expr.clone(), aggregate.input.schema())?;
                changed |= call.transformed;
                // The column keeps its name, by which operators above know it.
                let named = matches!(expr, Expr::Alias(_)) || !call.transformed;
                let name = expr.schema_name().to_string();
                calls.push(if named { call.data } else { call.data.alias(name) });
            }
            if !changed {
                return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
            }
            let plan = Aggregate::try_new(aggregate.input, aggregate.group_expr, calls)?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(plan)))
        })?
        .data)
}

fn with_plain_arguments(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let Expr::AggregateFunction(mut call) = expr else { return Ok(Transformed::no(expr)) };
        let mut changed = false;
        if PLAIN_ONLY.contains(&call.func.name()) {
            for argument in &mut call.params.args {
                if let DataType::Dictionary(_, value) = argument.get_type(schema)? {
                    *argument = argument.clone().cast_to(&value, schema)?;
                    changed = true;
                }
            }
        }
        Ok(Transformed::new_transformed(Expr::AggregateFunction(call), changed))
    })
}
