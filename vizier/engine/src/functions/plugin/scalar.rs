//! A plugin's scalar function. Over a column that is a dictionary an immutable one is called once for each distinct value.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray};
use arrow::compute::take;
use arrow::datatypes::{DataType, FieldRef, Int32Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use host::backend::Scalar;
use host::function::{Bound, Given, arrow_type, field};
use host::manifest::function::{Nulls, ValueType, Volatility as Declared};

use super::values::{coded_type, coerced, constant, exactly, is_coded};
use super::{FunctionRef, fault};

#[derive(Debug)]
pub(crate) struct PluginScalar {
    bound: Arc<Bound>,
    signature: Signature,
    returns: ValueType,
    /// Results of the dictionary seen last: batches of one table tend to share it.
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    values: ArrayRef,
    constants: Vec<Option<ScalarValue>>,
    results: ArrayRef,
}

impl PartialEq for PluginScalar {
    fn eq(&self, other: &Self) -> bool {
        FunctionRef::of(&self.bound) == FunctionRef::of(&other.bound)
    }
}

impl Eq for PluginScalar {}

impl Hash for PluginScalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bound.plugin().digest().hash(state);
        self.bound.export().name.hash(state);
    }
}

impl PluginScalar {
    pub fn new(bound: Arc<Bound>) -> Self {
        let volatility = match bound.export().volatility {
            Declared::Immutable => Volatility::Immutable,
            Declared::Stable => Volatility::Stable,
            Declared::Volatile => Volatility::Volatile,
        };
        // A scalar function always says what it returns: the manifest was checked.
        let returns = bound.export().returns.unwrap_or(ValueType::Utf8);
        Self { bound, signature: Signature::user_defined(volatility), returns, last: Mutex::default() }
    }

    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Whether it may be called for distinct values in place of rows.
    fn by_value(&self) -> bool {
        let export = self.bound.export();
        export.volatility == Declared::Immutable && export.nulls == Nulls::Propagate
    }

    /// Of the types alone, so that it is the same however far a plan is simplified.
    fn return_type_of<'a>(&self, mut arguments: impl Iterator<Item = &'a DataType>) -> DataType {
        let coded = arguments.any(is_coded);
        if self.returns == ValueType::Utf8 && coded && self.by_value() {
            coded_type()
        } else {
            arrow_type(self.returns)
        }
    }

    fn given<'a>(&self, arguments: &'a [ColumnarValue]) -> Result<Vec<Given<'a>>> {
        let declared = &self.bound.export().args;
        let of = |(argument, declared): (&'a ColumnarValue, &host::manifest::function::Argument)| match argument {
            ColumnarValue::Array(array) => Ok(Given::Values(array)),
            ColumnarValue::Scalar(value) => Ok(Given::Constant(constant(value, declared.value_type)?)),
        };
        arguments.iter().zip(declared).map(of).collect()
    }

    /// Results for the entries of the one dictionary among constants.
    fn of_entries(&self, at: usize, entries: &ArrayRef, arguments: &[ColumnarValue]) -> Result<ArrayRef> {
        let mut given = self.given(arguments)?;
        given[at] = Given::Values(entries);
        let results = self.bound.call(entries.len(), &given).map_err(fault)?;
        exactly(results, &arrow_type(self.returns))
    }

    fn remembered(&self, entries: &ArrayRef, constants: &[Option<ScalarValue>]) -> Option<ArrayRef> {
        let last = self.last.lock().expect("no panic while it is held");
        let last = last.as_ref()?;
        let same = Arc::ptr_eq(&last.values, entries) || last.values.to_data().ptr_eq(&entries.to_data());
        (same && last.constants == constants).then(|| last.results.clone())
    }

    fn over_dictionary(
        &self,
        at: usize,
        dictionary: &DictionaryArray<Int32Type>,
        arguments: &[ColumnarValue],
        returns: &DataType,
    ) -> Result<ArrayRef> {
        let constants: Vec<Option<ScalarValue>> = arguments
            .iter()
            .map(|argument| match argument {
                ColumnarValue::Scalar(value) => Some(value.clone()),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        let entries = dictionary.values();
        let (keys, results) = match self.remembered(entries, &constants) {
            Some(results) => (dictionary.keys().clone(), results),
            // A filter leaves the dictionary whole: with far fewer rows than values, only those that are there are looked at.
            None if dictionary.len() < entries.len() => {
                let compacted = crate::exchange::batches::compact_dictionary(dictionary)?;
                let results = self.of_entries(at, compacted.values(), arguments)?;
                (compacted.keys().clone(), results)
            }
            None => {
                let results = self.of_entries(at, entries, arguments)?;
                let last = Last { values: entries.clone(), constants, results: results.clone() };
                *self.last.lock().expect("no panic while it is held") = Some(last);
                (dictionary.keys().clone(), results)
            }
        };
        if is_coded(returns) {
            // Values may now repeat in the dictionary; that is allowed, and grouping looks at values.
            return Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, results)?));
        }
        Ok(take(&results, &keys, None)?)
    }
}

impl ScalarUDFImpl for PluginScalar {
    fn name(&self) -> &str {
        &self.bound.export().name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        coerced(self.bound.export(), given)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(self.return_type_of(arguments.iter()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let data_type = self.return_type_of(args.arg_fields.iter().map(|field| field.data_type()));
        Ok(Arc::new(field(self.name(), self.returns).with_data_type(data_type)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let returns = args.return_field.data_type();
        let export = self.bound.export();
        let constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let given = self.given(&args.args)?;
        let null = given.iter().any(|given| matches!(given, Given::Constant(Scalar::Null)));
        if null && export.nulls == Nulls::Propagate {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(returns)?));
        }
        if constant && export.volatility != Declared::Volatile {
            let one = self.bound.call(1, &given).map_err(fault)?;
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&exactly(one, returns)?, 0)?));
        }
        if self.by_value() {
            let mut columns = args.args.iter().enumerate().filter_map(|(i, argument)| match argument {
                ColumnarValue::Array(array) => Some((i, array)),
                ColumnarValue::Scalar(_) => None,
            });
            if let (Some((at, array)), None) = (columns.next(), columns.next())
                && let Some(dictionary) = array.as_dictionary_opt::<Int32Type>()
            {
                if dictionary.len() != args.number_rows {
                    return exec_err!("{} was given {} values for {} rows", export.name, array.len(), args.number_rows);
                }
                return Ok(ColumnarValue::Array(self.over_dictionary(at, dictionary, &args.args, returns)?));
            }
        }
        let values = self.bound.call(args.number_rows, &given).map_err(fault)?;
        Ok(ColumnarValue::Array(exactly(values, returns)?))
    }
}
