//! What can be done to a frame, as logical plans.

use std::collections::HashSet;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality, TableReference};
use datafusion::logical_expr::utils::{find_aggregate_exprs, find_window_exprs};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, SortExpr};
use host::backend::{Frame, JoinKind, Named, Op};
use host::error::Error;

use super::failure::{invalid, to_error};
use super::nearest::nearest;
use super::{QueryFrame, parse};
use crate::query::Query;

/// The frame's plan with the operation on top.
pub(super) fn apply(frame: &QueryFrame, op: &Op) -> Result<LogicalPlan, Error> {
    let at = At { query: &frame.query, plan: &frame.plan };
    match op {
        Op::Select(columns) => {
            if columns.is_empty() {
                return Err(invalid("select needs a column", None));
            }
            at.project(at.named(columns)?)
        }
        Op::WithColumns(columns) | Op::Window(columns) => {
            let new = at.named(columns)?;
            // A replaced column keeps its place, new ones go to the end.
            let mut all: Vec<Expr> = Vec::new();
            for column in frame.plan.schema().columns() {
                match columns.iter().position(|named| named.name == column.name) {
                    Some(place) => all.push(new[place].clone()),
                    None => all.push(unqualified(column)),
                }
            }
            let old: HashSet<String> = frame.plan.schema().fields().iter().map(|f| f.name().clone()).collect();
            all.extend(new.into_iter().zip(columns).filter(|(_, n)| !old.contains(&n.name)).map(|(e, _)| e));
            at.project(all)
        }
        Op::Drop(names) => {
            for name in names {
                at.column(name)?;
            }
            let kept: Vec<Expr> = frame
                .plan
                .schema()
                .columns()
                .into_iter()
                .filter(|column| !names.contains(&column.name))
                .map(unqualified)
                .collect();
            if kept.is_empty() {
                return Err(invalid("no column would be left", None));
            }
            at.project(kept)
        }
        Op::Filter(text) => {
            let condition = parse::condition(text, frame.plan.schema(), &frame.query)?;
            if !find_aggregate_exprs([&condition]).is_empty() {
                return Err(invalid("a filter is over rows: aggregate first, then filter", None));
            }
            at.build(text, at.builder().filter(condition))
        }
        Op::Aggregate { keys, values } => at.aggregate(keys, values),
        Op::Join { right, kind, on, suffix } => at.join(at.other(right.as_ref())?, *kind, on, suffix),
        Op::Union(other) => at.union(at.other(other.as_ref())?),
        Op::Sort(keys) => {
            let keys = keys
                .iter()
                .map(|key| {
                    let expr = parse::expression(&key.expr, frame.plan.schema(), &frame.query)?;
                    Ok(SortExpr::new(expr, !key.descending, key.nulls_first))
                })
                .collect::<Result<Vec<_>, Error>>()?;
            if keys.is_empty() {
                return Err(invalid("sort needs a key", None));
            }
            at.build("", at.builder().sort(keys))
        }
        Op::Limit { skip, count } => {
            let bounded = |rows: u64| usize::try_from(rows.min(i64::MAX as u64)).unwrap_or(usize::MAX);
            at.build("", at.builder().limit(bounded(*skip), Some(bounded(*count))))
        }
        Op::Distinct => at.build("", at.builder().distinct()),
    }
}

struct At<'a> {
    query: &'a Query,
    plan: &'a LogicalPlan,
}

impl At<'_> {
    fn builder(&self) -> LogicalPlanBuilder {
        LogicalPlanBuilder::from(self.plan.clone())
    }

    fn build(&self, text: &str, plan: datafusion::common::Result<LogicalPlanBuilder>) -> Result<LogicalPlan, Error> {
        plan.and_then(LogicalPlanBuilder::build).map_err(|e| to_error(e, text, &[], self.query))
    }

    /// Named expressions; names must differ.
    fn named(&self, columns: &[Named]) -> Result<Vec<Expr>, Error> {
        let mut names = HashSet::new();
        for column in columns {
            if column.name.is_empty() {
                return Err(invalid(format!("the column `{}` needs a name", column.expr), None));
            }
            if !names.insert(&column.name) {
                return Err(invalid(format!("two columns are called `{}`", column.name), None));
            }
        }
        columns
            .iter()
            .map(|column| {
                let expr = parse::expression(&column.expr, self.plan.schema(), self.query)?;
                if let Some(aggregate) = find_aggregate_exprs([&expr]).first() {
                    return Err(invalid(
                        format!("`{}` is an aggregate", aggregate.schema_name()),
                        Some("use aggregate for it"),
                    ));
                }
                Ok(expr.alias(&column.name))
            })
            .collect()
    }

    /// A projection that may hold window functions.
    fn project(&self, columns: Vec<Expr>) -> Result<LogicalPlan, Error> {
        let windows = find_window_exprs(&columns);
        if windows.is_empty() {
            return self.build("", self.builder().project(columns));
        }
        let plan = LogicalPlanBuilder::window_plan(self.plan.clone(), windows.clone()).and_then(|plan| {
            let columns = columns.into_iter().map(|column| rebase(column, &windows)).collect::<Result<Vec<_>, _>>()?;
            LogicalPlanBuilder::from(plan).project(columns)
        });
        self.build("", plan)
    }

    fn aggregate(&self, keys: &[Named], values: &[Named]) -> Result<LogicalPlan, Error> {
        if keys.is_empty() && values.is_empty() {
            return Err(invalid("aggregate needs a key or a value", None));
        }
        let mut names = HashSet::new();
        for named in keys.iter().chain(values) {
            if !names.insert(&named.name) {
                return Err(invalid(format!("two columns are called `{}`", named.name), None));
            }
        }
        let schema = self.plan.schema();
        let parse = |named: &Named| parse::expression(&named.expr, schema, self.query);
        let key_exprs = keys.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        for (key, named) in key_exprs.iter().zip(keys) {
            if !find_aggregate_exprs([key]).is_empty() || !find_window_exprs([key]).is_empty() {
                return Err(invalid(format!("the key `{}` must be over single rows", named.name), None));
            }
        }
        let value_exprs = values.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let aggregates = find_aggregate_exprs(&value_exprs);
        // What a value may refer to above the aggregate: keys and aggregates, whole.
        let mut known = key_exprs.clone();
        known.extend(aggregates.iter().cloned());
        let mut columns = Vec::with_capacity(keys.len() + values.len());
        for (expr, named) in key_exprs.iter().zip(keys).chain(value_exprs.iter().zip(values)) {
            let rebased = rebase(expr.clone(), &known).map_err(|e| to_error(e, &named.expr, &[], self.query))?;
            if let Some(column) = stray(expr, &known) {
                return Err(super::failure::at_word(
                    &named.expr,
                    &column,
                    format!("column `{column}` is neither a key nor inside an aggregate"),
                    Some(format!("add it to the keys, or write for example `max({column})`")),
                ));
            }
            columns.push(rebased.alias(&named.name));
        }
        let plan = self.builder().aggregate(key_exprs, aggregates).and_then(|plan| plan.project(columns));
        self.build("", plan)
    }

    fn join(
        &self,
        right: &QueryFrame,
        kind: JoinKind,
        on: &[(String, String)],
        suffix: &str,
    ) -> Result<LogicalPlan, Error> {
        if on.is_empty() {
            return Err(invalid("a join needs a pair of columns", Some("give pairs of left and right columns")));
        }
        let other = At { query: self.query, plan: &right.plan };
        let (left_name, right_name) = (TableReference::bare("l"), TableReference::bare("r"));
        let keys = |at: &At<'_>, names: Vec<&String>, relation: &TableReference| {
            names
                .into_iter()
                .map(|name| at.column(name).map(|column| Column::new(Some(relation.clone()), column.name)))
                .collect::<Result<Vec<_>, Error>>()
        };
        let left_keys = keys(self, on.iter().map(|(left, _)| left).collect(), &left_name)?;
        let right_keys = keys(&other, on.iter().map(|(_, right)| right).collect(), &right_name)?;
        let join_type = match kind {
            JoinKind::Inner => JoinType::Inner,
            JoinKind::Left => JoinType::Left,
            JoinKind::Right => JoinType::Right,
            JoinKind::Full => JoinType::Full,
            JoinKind::Semi => JoinType::LeftSemi,
            JoinKind::Anti => JoinType::LeftAnti,
        };
        let named = |column: Column, relation: &TableReference, name: String| {
            Expr::Column(Column::new(Some(relation.clone()), column.name)).alias(name)
        };
        let mut taken: HashSet<String> = HashSet::new();
        let mut columns = Vec::new();
        for column in self.plan.schema().columns() {
            taken.insert(column.name.clone());
            let name = column.name.clone();
            columns.push(named(column, &left_name, name));
        }
        if !matches!(kind, JoinKind::Semi | JoinKind::Anti) {
            for column in right.plan.schema().columns() {
                let name =
                    if taken.contains(&column.name) { format!("{}{suffix}", column.name) } else { column.name.clone() };
                if !taken.insert(name.clone()) {
                    return Err(invalid(
                        format!("both sides have a column `{name}`"),
                        Some("give the join a suffix for columns of the right side"),
                    ));
                }
                columns.push(named(column, &right_name, name));
            }
        }
        let plan = self.builder().alias(left_name).and_then(|left| {
            let right = LogicalPlanBuilder::from(right.plan.clone()).alias(right_name)?.build()?;
            left.join_detailed(right, join_type, (left_keys, right_keys), None, NullEquality::NullEqualsNothing)?
                .project(columns)
        });
        self.build("", plan)
    }

    fn union(&self, other: &QueryFrame) -> Result<LogicalPlan, Error> {
        let names = |plan: &LogicalPlan| plan.schema().columns().into_iter().map(|c| c.name).collect::<Vec<_>>();
        let (left, right) = (names(self.plan), names(&other.plan));
        let lacks = |a: &[String], b: &[String]| b.iter().find(|name| !a.contains(name)).cloned();
        if let Some(name) = lacks(&right, &left) {
            return Err(invalid(
                format!("the second frame of the union has no column `{name}`"),
                Some("both need the same columns"),
            ));
        }
        if let Some(name) = lacks(&left, &right) {
            return Err(invalid(
                format!("the first frame of the union has no column `{name}`"),
                Some("both need the same columns"),
            ));
        }
        // Columns go by name: the second frame's are put into the first's order.
        let at = At { query: self.query, plan: &other.plan };
        let ordered = left.iter().map(|name| at.column(name).map(unqualified)).collect::<Result<Vec<_>, _>>()?;
        let first = self.project(self.plan.schema().columns().into_iter().map(unqualified).collect())?;
        let second = at.project(ordered)?;
        self.build("", LogicalPlanBuilder::from(first).union(second))
    }

    fn column(&self, name: &str) -> Result<Column, Error> {
        let columns = self.plan.schema().columns();
        if let Some(column) = columns.iter().find(|column| column.name == name) {
            return Ok(column.clone());
        }
        let names: Vec<&str> = columns.iter().map(Column::name).collect();
        let hint = match nearest(name, names.iter().copied()) {
            Some(column) => format!("did you mean `{column}`?"),
            None => format!("columns: {}", names.join(", ")),
        };
        Err(invalid(format!("no column `{name}`"), Some(&hint)))
    }

    /// A frame of this engine, of the same run.
    fn other<'f>(&self, frame: &'f dyn Frame) -> Result<&'f QueryFrame, Error> {
        match frame.as_any().downcast_ref::<QueryFrame>() {
            Some(frame) if std::ptr::eq(frame.query.as_ref(), self.query) => Ok(frame),
            _ => Err(invalid("the other frame belongs to another run", None)),
        }
    }
}

fn unqualified(column: Column) -> Expr {
    let name = column.name.clone();
    if column.relation.is_none() { Expr::Column(column) } else { Expr::Column(column).alias(name) }
}

/// The expression with each of `known` in it replaced by the column that holds it.
fn rebase(expr: Expr, known: &[Expr]) -> datafusion::common::Result<Expr> {
    Ok(expr
        .transform_down(|expr| {
            if known.contains(&expr) {
                let column = match expr {
                    Expr::Column(column) => Expr::Column(column),
                    other => Expr::Column(Column::from_name(other.schema_name().to_string())),
                };
                return Ok(Transformed::new(column, true, TreeNodeRecursion::Jump));
            }
            Ok(Transformed::no(expr))
        })?
        .data)
}

/// A column of the input that would not be there any more.
fn stray(expr: &Expr, known: &[Expr]) -> Option<String> {
    let mut found = None;
    let visited = expr.apply(|expr| {
        if known.contains(expr) {
            return Ok(TreeNodeRecursion::Jump);
        }
        if let Expr::Column(column) = expr {
            found = Some(column.name.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok());
    found
}
