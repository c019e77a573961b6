//! Parts of a upid: 16 bytes, big-endian, asid u32 | pid u32 | start ticks u64.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::leaf::UPID_TYPE;

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Asid,
    Pid,
    Start,
    Text,
}

impl Part {
    pub const ALL: [Self; 4] = [Self::Asid, Self::Pid, Self::Start, Self::Text];
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Upid {
    part: Part,
    signature: Signature,
}

impl Upid {
    pub fn new(part: Part) -> Self {
        Self { part, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Upid {
    fn name(&self) -> &str {
        match self.part {
            Part::Asid => "upid_asid",
            Part::Pid => "upid_pid",
            Part::Start => "upid_start",
            Part::Text => "upid_string",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        if arguments[0] != UPID_TYPE && !arguments[0].is_null() {
            return plan_err!("{} takes a upid, not {}", self.name(), arguments[0]);
        }
        Ok(if self.part == Part::Text { DataType::Utf8 } else { DataType::Int64 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(self.of(array)?)),
            scalar => {
                let array = self.of(&scalar.to_array(1)?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
        }
    }
}

impl Upid {
    fn of(&self, array: &ArrayRef) -> Result<ArrayRef> {
        if array.data_type().is_null() {
            let data_type = if self.part == Part::Text { DataType::Utf8 } else { DataType::Int64 };
            return Ok(arrow::array::new_null_array(&data_type, array.len()));
        }
        let Some(upids) = array.as_fixed_size_binary_opt().filter(|a| a.value_length() == 16) else {
            return exec_err!("{} takes a upid, not {}", self.name(), array.data_type());
        };
        Ok(match self.part {
            Part::Asid => numbers(upids, |upid| (upid >> 96) as i64),
            Part::Pid => numbers(upids, |upid| (upid >> 64) as u32 as i64),
            Part::Start => numbers(upids, |upid| upid as u64 as i64),
            Part::Text => Arc::new(StringArray::from_iter((0..upids.len()).map(|row| {
                upids.is_valid(row).then(|| {
                    let upid = number(upids, row);
                    format!("{}:{}:{}", (upid >> 96) as u32, (upid >> 64) as u32, upid as u64)
                })
            }))),
        })
    }
}

fn number(upids: &FixedSizeBinaryArray, row: usize) -> u128 {
    u128::from_be_bytes(upids.value(row).try_into().expect("its width was checked"))
}

fn numbers(upids: &FixedSizeBinaryArray, part: impl Fn(u128) -> i64) -> ArrayRef {
    let values = (0..upids.len()).map(|row| upids.is_valid(row).then(|| part(number(upids, row))));
    Arc::new(Int64Array::from_iter(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_upid() {
        let upid = (7u128 << 96) | (4_000_000_000u128 << 64) | 123_456_789_012;
        let bytes = upid.to_be_bytes();
        let array: ArrayRef = Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some(bytes), None].into_iter(), 16).unwrap(),
        );
        let of = |part| Upid::new(part).of(&array).unwrap();
        assert_eq!(of(Part::Asid).as_ref(), &Int64Array::from(vec![Some(7), None]));
        assert_eq!(of(Part::Pid).as_ref(), &Int64Array::from(vec![Some(4_000_000_000), None]));
        assert_eq!(of(Part::Start).as_ref(), &Int64Array::from(vec![Some(123_456_789_012), None]));
        assert_eq!(of(Part::Text).as_ref(), &StringArray::from(vec![Some("7:4000000000:123456789012"), None]));
    }
}
