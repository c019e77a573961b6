//! Scalar subqueries that depend on nothing outside: evaluated first, their value put in their place. As a join, they would
//! make every row travel.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility,
    lit,
};

/// The plan with each value in its place; `value` runs a subquery.
pub(crate) async fn inline<F>(mut plan: LogicalPlan, value: impl Fn(LogicalPlan) -> F) -> Result<LogicalPlan>
where
    F: Future<Output = Result<ScalarValue>>,
{
    // Each round evaluates one, innermost first, and so removes at least one.
    while let Some(subquery) = innermost(&plan)? {
        let value = lit(value(subquery.subquery.as_ref().clone()).await?);
        plan = replace(plan, &subquery, &value)?;
    }
    Ok(plan)
}

/// The plan with a call of `subquery_N()` in place of the N-th, and the subqueries, for showing.
pub(crate) fn stand_ins(mut plan: LogicalPlan) -> Result<(LogicalPlan, Vec<LogicalPlan>)> {
    let mut subqueries = Vec::new();
    while let Some(subquery) = innermost(&plan)? {
        let returns = subquery.subquery.schema().field(0).data_type().clone();
        subqueries.push(subquery.subquery.as_ref().clone());
        let stand_in = StandIn {
            name: format!("subquery_{}", subqueries.len()),
            signature: Signature::nullary(Volatility::Stable),
            returns,
        };
        plan = replace(plan, &subquery, &ScalarUDF::new_from_impl(stand_in).call(vec![]))?;
    }
    Ok((plan, subqueries))
}

fn innermost(plan: &LogicalPlan) -> Result<Option<Subquery>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarSubquery(subquery) = expr
                    && subquery.outer_ref_columns.is_empty()
                {
                    // Those inside it are visited later and take its place.
                    found = Some(subquery.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match found {
        Some(subquery) => Ok(Some(innermost(&subquery.subquery)?.unwrap_or(subquery))),
        None => Ok(None),
    }
}

fn replace(plan: LogicalPlan, subquery: &Subquery, value: &Expr) -> Result<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| match &expr {
                Expr::ScalarSubquery(this) if this == subquery => Ok(Transformed::yes(value.clone())),
                _ => Ok(Transformed::no(expr)),
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        node.map_data(|node| node.recompute_schema())
    })?;
    Ok(replaced.data)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StandIn {
    name: String,
    signature: Signature,
    returns: DataType,
}

impl ScalarUDFImpl for StandIn {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("{} only stands for a subquery in an explained plan", self.name)
    }
}
