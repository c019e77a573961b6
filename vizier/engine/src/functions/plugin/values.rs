//! Types and values between SQL and functions of plugins.

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use host::backend::Scalar;
use host::function::arrow_type;
use host::manifest::function::{Export, ValueType};

/// Text by reference, as tables have it.
pub(super) fn is_coded(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8)
}

pub(super) fn coded_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The types arguments are converted to before the function sees them.
pub(super) fn coerced(export: &Export, given: &[DataType]) -> Result<Vec<DataType>> {
    if given.len() != export.args.len() {
        return plan_err!(
            "{} takes {} arguments, not {}\nwrite {}",
            export.name,
            export.args.len(),
            given.len(),
            export.signature()
        );
    }
    let of = |(given, declared): (&DataType, &host::manifest::function::Argument)| match one(given, declared.value_type)
    {
        Some(data_type) => Ok(data_type),
        None => plan_err!(
            "{} takes {} for `{}`, not {given}\nwrite {}, or cast the argument",
            export.name,
            declared.value_type.name(),
            declared.name,
            export.signature()
        ),
    };
    given.iter().zip(&export.args).map(of).collect()
}

fn one(given: &DataType, declared: ValueType) -> Option<DataType> {
    let target = arrow_type(declared);
    if *given == target || *given == DataType::Null {
        return Some(target);
    }
    let text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let inner = match given {
        DataType::Dictionary(_, value) => value.as_ref(),
        other => other,
    };
    let fits = match declared {
        ValueType::Boolean => *inner == DataType::Boolean,
        ValueType::Int64 => inner.is_integer(),
        ValueType::Float64 => inner.is_numeric(),
        ValueType::Utf8 if is_coded(given) => return Some(given.clone()),
        ValueType::Utf8 => text(inner),
        ValueType::Binary => {
            matches!(
                inner,
                DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
            ) || text(inner)
        }
        ValueType::Uint128 => *inner == DataType::FixedSizeBinary(16),
        ValueType::TimeNs => match given {
            // Whatever the zone: the instant is the same.
            DataType::Timestamp(TimeUnit::Nanosecond, _) => return Some(given.clone()),
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => true,
            other => text(other),
        },
        ValueType::DurationNs => match given {
            DataType::Duration(TimeUnit::Nanosecond) => return Some(given.clone()),
            DataType::Duration(_) => return Some(DataType::Duration(TimeUnit::Nanosecond)),
            // `interval '5 minutes'` is cast before it is read.
            DataType::Interval(_) => return Some(DataType::Duration(TimeUnit::Nanosecond)),
            other => other.is_integer(),
        },
    };
    fits.then_some(target)
}

/// A constant as the function gets it.
pub(super) fn constant(value: &ScalarValue, declared: ValueType) -> Result<Scalar> {
    let value = match value {
        ScalarValue::Dictionary(_, value) => value.as_ref(),
        value => value,
    };
    if value.is_null() {
        return Ok(Scalar::Null);
    }
    let number = |value: &ScalarValue| match value.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(Some(number)) => Ok(number),
        other => Err(exec_datafusion_err!("{other} is no whole number")),
    };
    Ok(match (declared, value) {
        (ValueType::TimeNs, ScalarValue::TimestampNanosecond(Some(at), _)) => Scalar::TimeNs(*at),
        (ValueType::TimeNs, value) => match value.cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, None))? {
            ScalarValue::TimestampNanosecond(Some(at), _) => Scalar::TimeNs(at),
            other => return Err(exec_datafusion_err!("{other} is no time")),
        },
        (ValueType::DurationNs, ScalarValue::DurationNanosecond(Some(ns))) => Scalar::DurationNs(*ns),
        (ValueType::DurationNs, ScalarValue::IntervalMonthDayNano(Some(span))) if span.months == 0 => {
            const DAY_NS: i64 = 86_400_000_000_000;
            Scalar::DurationNs(i64::from(span.days).saturating_mul(DAY_NS).saturating_add(span.nanoseconds))
        }
        (ValueType::DurationNs, value) => Scalar::DurationNs(number(value)?),
        (ValueType::Int64, value) => Scalar::Int64(number(value)?),
        (ValueType::Boolean, ScalarValue::Boolean(Some(v))) => Scalar::Boolean(*v),
        (ValueType::Float64, value) => match value.cast_to(&DataType::Float64)? {
            ScalarValue::Float64(Some(number)) => Scalar::Float64(number),
            other => return Err(exec_datafusion_err!("{other} is no number")),
        },
        (ValueType::Utf8, value) => match value.try_as_str() {
            Some(Some(text)) => Scalar::Utf8(text.to_owned()),
            _ => return Err(exec_datafusion_err!("{value} is no text")),
        },
        (ValueType::Uint128, ScalarValue::FixedSizeBinary(16, Some(bytes))) => {
            let bytes = bytes.as_slice().try_into().map_err(|_| exec_datafusion_err!("a upid has 16 bytes"))?;
            Scalar::UInt128(u128::from_be_bytes(bytes))
        }
        (ValueType::Binary, value) => match value.cast_to(&DataType::Binary)? {
            ScalarValue::Binary(Some(bytes)) => Scalar::Binary(bytes),
            other => return Err(exec_datafusion_err!("{other} is no bytes")),
        },
        (declared, value) => return Err(exec_datafusion_err!("{value} is no {}", declared.name())),
    })
}

/// The column in exactly this type: texts may come by reference or not.
pub(super) fn exactly(array: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type { Ok(array) } else { Ok(cast(&array, data_type)?) }
}
