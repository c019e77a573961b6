//! An aggregate at work: one instance, one accumulator over many groups.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::filter;
use arrow::datatypes::UInt32Type;
use wasmtime::component::ResourceAny;

use super::instance::Instance;
use super::{Given, columns, null_rows};
use crate::backend::Scalar;
use crate::error::Error;
use crate::manifest::function::{Export, Nulls, ValueType};

/// Values of many rows on their way to one for each group.
pub struct Accumulator {
    instance: Instance,
    handle: ResourceAny,
    export: Export,
}

impl std::fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accumulator").field("function", &self.export.name).finish_non_exhaustive()
    }
}

impl Accumulator {
    pub(super) fn new(mut instance: Instance, export: Export) -> Result<Self, Error> {
        let handle = instance.call(&export.name, |store, guest, name| {
            guest.pyxis_function_aggregates().accumulator().call_make(store, name)
        })?;
        Ok(Self { instance, handle, export })
    }

    /// Adds rows: row `i` belongs to group `groups[i]` of `count`. Rows with a null argument are left out unless the manifest
    /// asks for them.
    pub fn update(&mut self, groups: &[u32], count: usize, arguments: &[Given<'_>]) -> Result<(), Error> {
        let mut groups = Cow::Borrowed(groups);
        let mut columns: Vec<Option<ArrayRef>> = arguments
            .iter()
            .map(|argument| match argument {
                Given::Values(array) => Some(Arc::clone(array)),
                Given::Constant(_) => None,
            })
            .collect();
        if self.export.nulls == Nulls::Propagate {
            if arguments.iter().any(|a| matches!(a, Given::Constant(Scalar::Null))) {
                // Every row is one with a null; the groups are there all the same.
                groups = Cow::Owned(Vec::new());
                columns.iter_mut().flatten().for_each(|column| *column = column.slice(0, 0));
            } else if let Some(nulls) = null_rows(arguments) {
                let keep = BooleanArray::new(nulls.inner().clone(), None);
                let of = |array: &dyn Array| {
                    filter(array, &keep).map_err(|e| Error::Internal(format!("cannot leave out nulls: {e}")))
                };
                for column in columns.iter_mut().flatten() {
                    *column = of(column.as_ref())?;
                }
                let left = of(&UInt32Array::from(groups.to_vec()))?;
                groups = Cow::Owned(left.as_primitive::<UInt32Type>().values().to_vec());
            }
        }
        let given: Vec<Given<'_>> = columns
            .iter()
            .zip(arguments)
            .map(|(column, argument)| column.as_ref().map_or_else(|| argument.clone(), Given::Values))
            .collect();
        let wit = columns::arguments(&self.export, groups.len(), &given)
            .map_err(|why| self.instance.broke(&self.export.name, &why))?;
        let handle = self.handle;
        self.instance.call(&self.export.name, |store, guest, _| {
            guest.pyxis_function_aggregates().accumulator().call_update(store, handle, &groups, count as u32, &wit)
        })
    }

    /// Adds states that other accumulators gave, a `binary` column.
    pub fn merge(&mut self, groups: &[u32], count: usize, states: &ArrayRef) -> Result<(), Error> {
        let states = columns::column_out(states, ValueType::Binary)
            .map_err(|is| self.instance.broke(&self.export.name, &format!("was given states that are {is}")))?;
        let handle = self.handle;
        self.instance.call(&self.export.name, |store, guest, _| {
            guest.pyxis_function_aggregates().accumulator().call_merge(store, handle, groups, count as u32, &states)
        })
    }

    /// States of the first groups, which are dropped.
    pub fn state(&mut self, first: usize) -> Result<ArrayRef, Error> {
        let handle = self.handle;
        let states = self.instance.call(&self.export.name, |store, guest, _| {
            guest.pyxis_function_aggregates().accumulator().call_state(store, handle, first as u32)
        })?;
        columns::array_in(states, ValueType::Binary, first)
            .map_err(|why| self.instance.broke(&self.export.name, &format!("as states {why}")))
    }

    /// Values of the first groups, which are dropped.
    pub fn evaluate(&mut self, first: usize) -> Result<ArrayRef, Error> {
        let handle = self.handle;
        let values = self.instance.call(&self.export.name, |store, guest, _| {
            guest.pyxis_function_aggregates().accumulator().call_evaluate(store, handle, first as u32)
        })?;
        let returns = self.export.returns.unwrap_or(ValueType::Binary);
        columns::array_in(values, returns, first).map_err(|why| self.instance.broke(&self.export.name, &why))
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        self.instance.bytes()
    }
}
