//! Filters as the store understands them, so that it skips what cannot match before it decodes it. The filter itself is
//! evaluated all the same: these are only hints.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, InListExpr, Literal};
use pem_tables::{Literal as Value, Predicate};

type Expr = Arc<dyn PhysicalExpr>;

/// The filter as a hint, if it is simple enough. `columns` maps the filter's columns to the table's.
pub(super) fn of(filter: &Expr, columns: &[usize]) -> Option<Predicate> {
    if let Some(list) = filter.downcast_ref::<InListExpr>() {
        if list.negated() {
            return None;
        }
        let column = column_of(list.expr(), columns)?;
        let values = list.list().iter().map(literal_of).collect::<Option<Vec<_>>>()?;
        return Some(Predicate::In(column, values));
    }
    let binary = filter.downcast_ref::<BinaryExpr>()?;
    let (column, op, value) = match (column_of(binary.left(), columns), column_of(binary.right(), columns)) {
        (Some(column), None) => (column, *binary.op(), literal_of(binary.right())?),
        (None, Some(column)) => (column, binary.op().swap()?, literal_of(binary.left())?),
        _ => return None,
    };
    Some(match op {
        Operator::Eq => Predicate::Eq(column, value),
        Operator::NotEq => Predicate::Ne(column, value),
        Operator::Lt => Predicate::Lt(column, value),
        Operator::LtEq => Predicate::Le(column, value),
        Operator::Gt => Predicate::Gt(column, value),
        Operator::GtEq => Predicate::Ge(column, value),
        _ => return None,
    })
}

fn column_of(expr: &Expr, columns: &[usize]) -> Option<usize> {
    columns.get(expr.downcast_ref::<Column>()?.index()).copied()
}

fn literal_of(expr: &Expr) -> Option<Value> {
    // A literal may stand in a cast to the column's dictionary type.
    if let Some(cast) = expr.downcast_ref::<CastExpr>()
        && matches!(cast.cast_type(), arrow::datatypes::DataType::Dictionary(..))
    {
        return literal_of(cast.expr());
    }
    value_of(expr.downcast_ref::<Literal>()?.value())
}

fn value_of(value: &ScalarValue) -> Option<Value> {
    Some(match value {
        ScalarValue::Boolean(Some(value)) => Value::Bool(*value),
        ScalarValue::Int64(Some(value)) | ScalarValue::TimestampNanosecond(Some(value), _) => Value::Int(*value),
        ScalarValue::Float64(Some(value)) => Value::Float(*value),
        ScalarValue::Utf8(Some(value)) | ScalarValue::LargeUtf8(Some(value)) | ScalarValue::Utf8View(Some(value)) => {
            Value::Str(value.clone())
        }
        ScalarValue::FixedSizeBinary(16, Some(value)) => {
            Value::U128(u128::from_be_bytes(value.as_slice().try_into().ok()?))
        }
        ScalarValue::Dictionary(_, value) => value_of(value)?,
        _ => return None,
    })
}
