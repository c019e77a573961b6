//! Expression text, checked against the columns it is over.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::parser::DFParserBuilder;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use host::error::Error;

use super::context::Context;
use super::{expansion, failure, size};
use crate::error::Fault;
use crate::functions;
use crate::query::Query;

/// Longest expression text.
const EXPRESSION_BYTES_MAX: usize = 64 << 10;

/// The expression, of any type.
pub(super) fn expression(text: &str, schema: &DFSchema, query: &Query) -> Result<Expr, Error> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(failure::invalid(format!("an expression is longer than {EXPRESSION_BYTES_MAX} bytes"), None));
    }
    size::check(text)?;
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    parse(text, schema, query).map_err(|e| failure::to_error(e, text, &columns, query))
}

/// The expression, which must be true or false.
pub(super) fn condition(text: &str, schema: &DFSchema, query: &Query) -> Result<Expr, Error> {
    let expr = expression(text, schema, query)?;
    match expr.get_type(schema) {
        Ok(DataType::Boolean | DataType::Null) => Ok(expr),
        Ok(other) => Err(failure::invalid(
            format!("a filter must be true or false, `{text}` is {other}"),
            Some("compare it with something"),
        )),
        Err(e) => Err(failure::to_error(e, text, &[], query)),
    }
}

fn parse(text: &str, schema: &DFSchema, query: &Query) -> Result<Expr> {
    let mut parser = DFParserBuilder::new(text).with_dialect(&GenericDialect {}).build()?;
    let parsed = parser.parse_into_expr()?;
    expansion::check(&parsed.expr).map_err(Fault::Function)?;
    if let Some(alias) = &parsed.alias {
        return Err(DataFusionError::Plan(format!("an expression has its name beside it: leave out `as {alias}`")));
    }
    let context = Context::new(query);
    let options = ParserOptions::from(&query.engine.state.config_options().sql_parser);
    let planner = SqlToRel::new_with_options(&context, options);
    let expr = planner.sql_to_expr_with_alias(parsed, schema, &mut PlannerContext::new())?;
    // The type shows functions that do not take their arguments, now rather than when it runs.
    expr.to_field(schema)?;
    refuse_parameters(&expr)?;
    functions::check(&expr)?;
    Ok(expr)
}

fn refuse_parameters(expr: &Expr) -> Result<()> {
    expr.apply(|expr| match expr {
        Expr::Placeholder(placeholder) => Err(DataFusionError::Plan(format!(
            "parameter {} has no value: put the value into the text",
            placeholder.id
        ))),
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(())
}
