//! Simple conditions on columns, with which a scan skips what cannot match before it decodes it.
//!
//! They are hints: a scan given predicates returns *at least* the rows that meet all of them (in the sense of SQL: null meets
//! nothing), often exactly those, and leaves the last word to the engine.

use std::cmp::Ordering;

use arrow::array::{Array, BooleanArray, Float64Array};
use arrow::buffer::BooleanBuffer;

use crate::arrays;
use crate::spec::{ColumnSpec, DataType};

/// A constant to compare with.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// For [`DataType::Boolean`].
    Bool(bool),
    /// For [`DataType::Int64`] and [`DataType::Time64Ns`].
    Int(i64),
    /// For [`DataType::UInt128`].
    U128(u128),
    /// For [`DataType::Float64`].
    Float(f64),
    /// For [`DataType::String`], compared by bytes.
    Str(String),
}

/// A condition on one column, given by its index in the table's schema (not in the projection).
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// column = literal
    Eq(usize, Literal),
    /// column <> literal
    Ne(usize, Literal),
    /// column < literal
    Lt(usize, Literal),
    /// column <= literal
    Le(usize, Literal),
    /// column > literal
    Gt(usize, Literal),
    /// column >= literal
    Ge(usize, Literal),
    /// column is one of these
    In(usize, Vec<Literal>),
}

impl Predicate {
    /// The column it is about.
    pub fn column(&self) -> usize {
        match self {
            Predicate::Eq(column, _)
            | Predicate::Ne(column, _)
            | Predicate::Lt(column, _)
            | Predicate::Le(column, _)
            | Predicate::Gt(column, _)
            | Predicate::Ge(column, _)
            | Predicate::In(column, _) => *column,
        }
    }

    fn literals(&self) -> &[Literal] {
        match self {
            Predicate::Eq(_, literal)
            | Predicate::Ne(_, literal)
            | Predicate::Lt(_, literal)
            | Predicate::Le(_, literal)
            | Predicate::Gt(_, literal)
            | Predicate::Ge(_, literal) => std::slice::from_ref(literal),
            Predicate::In(_, literals) => literals,
        }
    }

    /// Whether it can be judged here: the column exists and every literal has its type. A predicate that cannot is ignored.
    pub fn applies(&self, columns: &[ColumnSpec]) -> bool {
        let Some(column) = columns.get(self.column()) else { return false };
        self.literals().iter().all(|literal| {
            matches!(
                (literal, column.data_type),
                (Literal::Bool(_), DataType::Boolean)
                    | (Literal::Int(_), DataType::Int64 | DataType::Time64Ns)
                    | (Literal::U128(_), DataType::UInt128)
                    | (Literal::Float(_), DataType::Float64)
                    | (Literal::Str(_), DataType::String)
            )
        })
    }

    /// Whether a value meets it, given how the value compares to a literal; `None` is for NaN.
    fn holds(&self, compare: impl Fn(&Literal) -> Option<Ordering>) -> bool {
        match self {
            Predicate::Eq(_, literal) => compare(literal) == Some(Ordering::Equal),
            Predicate::Ne(_, literal) => compare(literal) != Some(Ordering::Equal),
            Predicate::Lt(_, literal) => compare(literal) == Some(Ordering::Less),
            Predicate::Le(_, literal) => compare(literal).is_some_and(Ordering::is_le),
            Predicate::Gt(_, literal) => compare(literal) == Some(Ordering::Greater),
            Predicate::Ge(_, literal) => compare(literal).is_some_and(Ordering::is_ge),
            Predicate::In(_, literals) => literals.iter().any(|literal| compare(literal) == Some(Ordering::Equal)),
        }
    }

    pub(crate) fn holds_bool(&self, value: bool) -> bool {
        self.holds(|literal| if let Literal::Bool(other) = literal { value.partial_cmp(other) } else { None })
    }

    pub(crate) fn holds_int(&self, value: i64) -> bool {
        self.holds(|literal| if let Literal::Int(other) = literal { value.partial_cmp(other) } else { None })
    }

    pub(crate) fn holds_wide(&self, value: u128) -> bool {
        self.holds(|literal| if let Literal::U128(other) = literal { value.partial_cmp(other) } else { None })
    }

    pub(crate) fn holds_float(&self, value: f64) -> bool {
        // Arrow and DataFusion order floats totally, NaN included, so a partial comparison would drop rows that they keep.
        self.holds(|literal| if let Literal::Float(other) = literal { Some(value.total_cmp(other)) } else { None })
    }

    pub(crate) fn holds_str(&self, value: &str) -> bool {
        self.holds(|literal| if let Literal::Str(other) = literal { Some(value.cmp(other.as_str())) } else { None })
    }

    /// Whether some integer in `min..=max` may meet it.
    pub(crate) fn may_hold_between(&self, min: i64, max: i64) -> bool {
        let int = |literal: &Literal| if let Literal::Int(int) = literal { Some(*int) } else { None };
        let within = |literal: &Literal| int(literal).is_none_or(|int| min <= int && int <= max);
        match self {
            Predicate::Eq(_, literal) => within(literal),
            Predicate::Ne(_, literal) => int(literal).is_none_or(|int| min != int || max != int),
            Predicate::Lt(..) | Predicate::Le(..) => self.holds_int(min),
            Predicate::Gt(..) | Predicate::Ge(..) => self.holds_int(max),
            Predicate::In(_, literals) => literals.iter().any(within),
        }
    }

    /// The rows of a column that meet it.
    pub(crate) fn matches(&self, column: &ColumnSpec, array: &dyn Array) -> BooleanBuffer {
        let rows = array.len();
        let met = match column.data_type {
            DataType::Int64 | DataType::Time64Ns => {
                let values = arrays::int_values(array);
                match self {
                    // The common ones as tight loops.
                    Predicate::Eq(_, Literal::Int(x)) => BooleanBuffer::collect_bool(rows, |i| values[i] == *x),
                    Predicate::Lt(_, Literal::Int(x)) => BooleanBuffer::collect_bool(rows, |i| values[i] < *x),
                    Predicate::Le(_, Literal::Int(x)) => BooleanBuffer::collect_bool(rows, |i| values[i] <= *x),
                    Predicate::Gt(_, Literal::Int(x)) => BooleanBuffer::collect_bool(rows, |i| values[i] > *x),
                    Predicate::Ge(_, Literal::Int(x)) => BooleanBuffer::collect_bool(rows, |i| values[i] >= *x),
                    _ => BooleanBuffer::collect_bool(rows, |i| self.holds_int(values[i])),
                }
            }
            DataType::String if column.dictionary => {
                let (keys, values) = arrays::label_parts(array);
                let met: Vec<bool> =
                    values.iter().map(|value| value.is_some_and(|value| self.holds_str(value))).collect();
                BooleanBuffer::collect_bool(rows, |i| met.get(keys[i] as usize).copied().unwrap_or(false))
            }
            DataType::String => {
                let values = arrays::text(array);
                BooleanBuffer::collect_bool(rows, |i| self.holds_str(values.value(i)))
            }
            DataType::UInt128 => {
                let values = arrays::wide_values(array);
                BooleanBuffer::collect_bool(rows, |i| self.holds_wide(arrays::wide_value(values, i)))
            }
            DataType::Boolean => {
                let values = array.as_any().downcast_ref::<BooleanArray>().expect("a boolean column");
                BooleanBuffer::collect_bool(rows, |i| self.holds_bool(values.value(i)))
            }
            DataType::Float64 => {
                let values = array.as_any().downcast_ref::<Float64Array>().expect("a float column").values();
                BooleanBuffer::collect_bool(rows, |i| self.holds_float(values[i]))
            }
        };
        match array.nulls() {
            Some(nulls) => &met & nulls.inner(),
            None => met,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_skipped_only_where_no_value_in_it_can_match() {
        let literals: Vec<Literal> = (-3..=3).map(Literal::Int).collect();
        let mut predicates = Vec::new();
        for literal in &literals {
            for make in [Predicate::Eq, Predicate::Ne, Predicate::Lt, Predicate::Le, Predicate::Gt, Predicate::Ge] {
                predicates.push(make(0, literal.clone()));
            }
            predicates.push(Predicate::In(0, vec![literal.clone(), Literal::Int(2)]));
        }
        predicates.push(Predicate::In(0, vec![]));
        for predicate in &predicates {
            for min in -2..=2 {
                for max in min..=2 {
                    let any = (min..=max).any(|value| predicate.holds_int(value));
                    let may = predicate.may_hold_between(min, max);
                    assert!(may || !any, "{predicate:?} over {min}..={max}");
                    if !matches!(predicate, Predicate::In(..)) {
                        assert_eq!(may, any, "{predicate:?} over {min}..={max}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_predicate_of_another_type_does_not_apply() {
        let columns = [ColumnSpec::int("a", "A."), ColumnSpec::label("b", "B.")];
        assert!(Predicate::Eq(0, Literal::Int(1)).applies(&columns));
        assert!(!Predicate::Eq(1, Literal::Int(1)).applies(&columns));
        assert!(!Predicate::Eq(2, Literal::Int(1)).applies(&columns));
        assert!(!Predicate::In(0, vec![Literal::Int(1), Literal::Bool(true)]).applies(&columns));
    }
}
