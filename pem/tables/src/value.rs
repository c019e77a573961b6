//! One value of a row, on its way in.

use crate::spec::DataType;

/// One value of a row. Which variant a column takes follows from its [`DataType`]; `Null` fits every column but `time_`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Nothing known.
    Null,
    /// For [`DataType::Boolean`].
    Bool(bool),
    /// For [`DataType::Int64`].
    Int(i64),
    /// For [`DataType::UInt128`]; a upid is `asid << 96 | pid << 64 | start_ticks`.
    U128(u128),
    /// For [`DataType::Float64`].
    Float(f64),
    /// For [`DataType::String`]; cut at [`STRING_BYTES_MAX`].
    Str(&'a str),
    /// For [`DataType::Time64Ns`]: ns since the epoch.
    Time(i64),
}

/// Most bytes of one string; the rest is cut off at a character boundary and counted in `TableStats::values_cut`. Wide enough
/// for every header block that servers accept (8-32 KiB), small enough that one row cannot matter to a table's budget.
pub const STRING_BYTES_MAX: usize = 64 << 10;

impl Value<'_> {
    /// The type of column that takes this value; `None` for null, which has no type of its own.
    pub fn data_type(&self) -> Option<DataType> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(_) => DataType::Boolean,
            Value::Int(_) => DataType::Int64,
            Value::U128(_) => DataType::UInt128,
            Value::Float(_) => DataType::Float64,
            Value::Str(_) => DataType::String,
            Value::Time(_) => DataType::Time64Ns,
        })
    }
}

/// The longest prefix of at most `max` bytes that ends at a character boundary.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Why a row was not appended. The row leaves no trace in the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too many or too few values.
    #[error("row of {given} values for table {table}, which has {expected} columns")]
    Width {
        /// The table.
        table: &'static str,
        /// Values given.
        given: usize,
        /// Columns of the table.
        expected: usize,
    },
    /// A value of another type than the column's.
    #[error("{given} value for column {column} of table {table}, which takes {expected}")]
    Type {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// Type of the value.
        given: DataType,
        /// Type of the column.
        expected: DataType,
    },
    /// `time_` is null.
    #[error("row without {column} for table {table}: every row needs its time")]
    NoTime {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_cut_at_a_character() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc");
        assert_eq!(cut("aéé", 4), "aé");
        assert_eq!(cut("é", 1), "");
    }
}
