//! Rows that a script makes, by column.

use crate::bindings::pyxis::common::types as wit;
use crate::bindings::pyxis::script::output;
use crate::error::Result;
use crate::{DataType, Error, Mistake};

/// Builds rows, column by column. All columns must be equally long.
///
/// ```no_run
/// use pyxis_sdk::prelude::*;
/// # fn f() -> Result<()> {
/// Columns::new()
///     .text("service", ["cart", "catalog"])
///     .int64("requests", [120, 80])
///     .optional_float64("error_share", [Some(0.01), None])
///     .unit("requests", "1")
///     .emit("services")
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Columns {
    count: Option<usize>,
    columns: Vec<wit::Column>,
    values: Vec<wit::ColumnValues>,
    uneven: Option<String>,
}

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident, $optional:ident, $type:ty, $data_type:ident, $variant:ident) => {
        $(#[$doc])*
        pub fn $name(self, name: &str, values: impl IntoIterator<Item = $type>) -> Self {
            let values: Vec<$type> = values.into_iter().collect();
            self.push(name, DataType::$data_type, values.len(), wit::Values::$variant(values), None)
        }

        /// The same with nulls.
        pub fn $optional(self, name: &str, values: impl IntoIterator<Item = Option<$type>>) -> Self {
            let (values, valid) = split(values);
            self.push(name, DataType::$data_type, values.len(), wit::Values::$variant(values), Some(valid))
        }
    };
}

impl Columns {
    /// No columns.
    pub fn new() -> Self {
        Self::default()
    }

    numbers!(/// A column of whole numbers.
        int64, optional_int64, i64, Int64, Int64s);
    numbers!(/// A column of numbers.
        float64, optional_float64, f64, Float64, Float64s);
    numbers!(/// A column of instants, ns since the epoch.
        time_ns, optional_time_ns, i64, TimeNs, TimeNss);
    numbers!(/// A column of lengths of time, ns.
        duration_ns, optional_duration_ns, i64, DurationNs, DurationNss);

    /// A column of truths.
    pub fn boolean(self, name: &str, values: impl IntoIterator<Item = bool>) -> Self {
        let values: Vec<bool> = values.into_iter().collect();
        let bits = bitmap(values.iter().copied());
        self.push(name, DataType::Boolean, values.len(), wit::Values::Booleans(bits), None)
    }

    /// A column of 128-bit numbers (upids).
    pub fn uint128(self, name: &str, values: impl IntoIterator<Item = u128>) -> Self {
        let halves: Vec<u64> = values.into_iter().flat_map(|v| [(v >> 64) as u64, v as u64]).collect();
        self.push(name, DataType::Uint128, halves.len() / 2, wit::Values::Uint128s(halves), None)
    }

    /// A column of texts.
    pub fn text<T: AsRef<str>>(self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        let texts = texts(values.into_iter());
        self.push(name, DataType::Utf8, texts.offsets.len() - 1, wit::Values::Utf8s(texts), None)
    }

    /// The same with nulls.
    pub fn optional_text<T: AsRef<str>>(self, name: &str, values: impl IntoIterator<Item = Option<T>>) -> Self {
        let values: Vec<Option<T>> = values.into_iter().collect();
        let valid = bitmap(values.iter().map(Option::is_some));
        let texts = texts(values.iter().map(|v| v.as_ref().map_or("", AsRef::as_ref)));
        self.push(name, DataType::Utf8, values.len(), wit::Values::Utf8s(texts), Some(valid))
    }

    /// A column of texts that repeat: codes into a dictionary.
    pub fn coded<T: AsRef<str>>(self, name: &str, codes: Vec<u32>, dictionary: impl IntoIterator<Item = T>) -> Self {
        let len = codes.len();
        let coded = wit::Coded { codes, dictionary: texts(dictionary.into_iter()) };
        self.push(name, DataType::Utf8, len, wit::Values::Coded(coded), None)
    }

    /// The unit of a column added before.
    pub fn unit(mut self, name: &str, unit: &str) -> Self {
        self.columns.iter_mut().filter(|c| c.name == name).for_each(|c| c.unit = unit.into());
        self
    }

    /// The semantic type of a column added before (`ST_BYTES`, `ST_DURATION_NS`, …).
    pub fn semantic(mut self, name: &str, semantic: &str) -> Self {
        self.columns.iter_mut().filter(|c| c.name == name).for_each(|c| c.semantic = semantic.into());
        self
    }

    /// Appends the rows to an output table. Every call for one table must bring the same columns.
    pub fn emit(self, table: &str) -> Result<()> {
        output::emit(table, &self.try_into_rows()?)
    }

    /// The rows, unless the columns are uneven.
    pub(crate) fn try_into_rows(mut self) -> Result<wit::Rows> {
        if let Some(uneven) = self.uneven.take() {
            return Err(Error::Invalid(Mistake {
                message: uneven,
                hint: Some("all columns of a table have the same number of rows".into()),
                position: None,
            }));
        }
        Ok(self.into_rows())
    }

    pub(crate) fn into_rows(self) -> wit::Rows {
        wit::Rows { count: self.count.unwrap_or(0) as u32, columns: self.columns, values: self.values }
    }

    fn push(
        mut self,
        name: &str,
        data_type: DataType,
        len: usize,
        values: wit::Values,
        valid: Option<Vec<u8>>,
    ) -> Self {
        let count = *self.count.get_or_insert(len);
        if count != len {
            self.uneven.get_or_insert_with(|| format!("column `{name}` has {len} rows, the ones before have {count}"));
        }
        self.columns.push(wit::Column {
            name: name.into(),
            data_type,
            semantic: String::new(),
            unit: String::new(),
            pattern: String::new(),
            description: String::new(),
        });
        self.values.push(wit::ColumnValues { values, valid });
        self
    }
}

fn split<T: Default>(values: impl IntoIterator<Item = Option<T>>) -> (Vec<T>, Vec<u8>) {
    let values: Vec<Option<T>> = values.into_iter().collect();
    let valid = bitmap(values.iter().map(Option::is_some));
    (values.into_iter().map(Option::unwrap_or_default).collect(), valid)
}

fn bitmap(bits: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, bit) in bits.enumerate() {
        if i % 8 == 0 {
            out.push(0);
        }
        out[i / 8] |= u8::from(bit) << (i % 8);
    }
    out
}

fn texts<T: AsRef<str>>(values: impl Iterator<Item = T>) -> wit::Texts {
    let (mut offsets, mut bytes) = (vec![0], Vec::new());
    for value in values {
        bytes.extend_from_slice(value.as_ref().as_bytes());
        offsets.push(bytes.len() as u32);
    }
    wit::Texts { offsets, bytes }
}
