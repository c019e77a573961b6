//! Functions of strings, evaluated once per distinct value where the column is a dictionary.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, StringBuilder};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::ColumnarValue;

/// Type of the result of a string function over `argument`: dictionaries stay dictionaries.
pub(super) fn returns(function: &str, argument: &DataType) -> Result<DataType> {
    match argument {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Ok(DataType::Utf8),
        DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8 => {
            Ok(argument.clone())
        }
        other => plan_err!("{function} takes a string, not {other}"),
    }
}

/// `f` of each value; it writes its result.
pub(super) fn map(function: &str, argument: &ColumnarValue, f: &dyn Fn(&str, &mut String)) -> Result<ColumnarValue> {
    match argument {
        ColumnarValue::Scalar(value) => {
            let text = match value {
                ScalarValue::Dictionary(_, value) => value.try_as_str(),
                value => value.try_as_str(),
            };
            let mapped = text.flatten().map(|text| {
                let mut mapped = String::new();
                f(text, &mut mapped);
                mapped
            });
            let mapped = ScalarValue::Utf8(mapped);
            Ok(ColumnarValue::Scalar(match value {
                ScalarValue::Dictionary(key, _) => ScalarValue::Dictionary(key.clone(), Box::new(mapped)),
                _ => mapped,
            }))
        }
        ColumnarValue::Array(array) => Ok(ColumnarValue::Array(map_array(function, array, f)?)),
    }
}

fn map_array(function: &str, array: &ArrayRef, f: &dyn Fn(&str, &mut String)) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Utf8 => map_values(array.as_string::<i32>().iter(), f),
        DataType::LargeUtf8 => map_values(array.as_string::<i64>().iter(), f),
        DataType::Utf8View => map_values(array.as_string_view().iter(), f),
        DataType::Null => arrow::array::new_null_array(&DataType::Utf8, array.len()),
        DataType::Dictionary(..) => {
            let Some(dictionary) = array.as_dictionary_opt::<Int32Type>() else {
                return exec_err!("{function} takes dictionaries with 32-bit keys");
            };
            // A filter leaves the dictionary whole: with far fewer rows than values, row by row is less work.
            if dictionary.len() < dictionary.values().len() {
                let compacted = crate::exchange::batches::compact_dictionary(dictionary)?;
                return rekeyed(function, &compacted, f);
            }
            return rekeyed(function, dictionary, f);
        }
        other => return exec_err!("{function} takes a string, not {other}"),
    })
}

fn rekeyed(function: &str, dictionary: &DictionaryArray<Int32Type>, f: &dyn Fn(&str, &mut String)) -> Result<ArrayRef> {
    let values = map_array(function, dictionary.values(), f)?;
    // Values may now repeat in the dictionary; that is allowed, and grouping looks at values.
    Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(dictionary.keys().clone(), values)?))
}

fn map_values<'a>(values: impl Iterator<Item = Option<&'a str>>, f: &dyn Fn(&str, &mut String)) -> ArrayRef {
    let mut out = StringBuilder::new();
    let mut mapped = String::new();
    for value in values {
        match value {
            Some(value) => {
                mapped.clear();
                f(value, &mut mapped);
                out.append_value(&mapped);
            }
            None => out.append_null(),
        }
    }
    Arc::new(out.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_dictionary_is_asked_once_per_value() {
        let array: DictionaryArray<Int32Type> = ["a", "b", "a", "a", "b"].into_iter().cycle().take(500).collect();
        let calls = Cell::new(0);
        let f = |text: &str, out: &mut String| {
            calls.set(calls.get() + 1);
            out.push_str(&text.to_uppercase());
        };
        let mapped = map("f", &ColumnarValue::Array(Arc::new(array)), &f).unwrap();
        let mapped = mapped.into_array(500).unwrap();
        assert_eq!(calls.get(), 2);
        let mapped = mapped.as_dictionary::<Int32Type>().downcast_dict::<arrow::array::StringArray>().unwrap();
        assert_eq!(mapped.into_iter().take(3).map(|v| v.unwrap()).collect::<Vec<_>>(), ["A", "B", "A"]);
    }
}
