//! A plugin's aggregate: partial on each agent, merged on Vizier. States travel as bytes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, FieldRef, UInt32Type};
use datafusion::common::{Result, ScalarValue, not_impl_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};
use host::function::{Accumulator as Guest, Bound, Given, arrow_type, field};
use host::manifest::function::ValueType;

use super::values::{coerced, exactly};
use super::{FunctionRef, fault};

#[derive(Debug)]
pub(crate) struct PluginAggregate {
    bound: Arc<Bound>,
    signature: Signature,
    returns: ValueType,
}

impl PartialEq for PluginAggregate {
    fn eq(&self, other: &Self) -> bool {
        FunctionRef::of(&self.bound) == FunctionRef::of(&other.bound)
    }
}

impl Eq for PluginAggregate {}

impl Hash for PluginAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bound.plugin().digest().hash(state);
        self.bound.export().name.hash(state);
    }
}

impl PluginAggregate {
    pub fn new(bound: Arc<Bound>) -> Self {
        // An aggregate always says what it returns: the manifest was checked.
        let returns = bound.export().returns.unwrap_or(ValueType::Utf8);
        Self { bound, signature: Signature::user_defined(Volatility::Immutable), returns }
    }

    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    fn groups(&self, args: &AccumulatorArgs<'_>) -> Result<Groups> {
        if args.is_distinct {
            return not_impl_err!("DISTINCT inside {}: select distinct values first", self.bound.export().name);
        }
        Groups::new(self.bound.clone())
    }
}

impl AggregateUDFImpl for PluginAggregate {
    fn name(&self) -> &str {
        &self.bound.export().name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        coerced(self.bound.export(), given)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(self.returns))
    }

    fn return_field(&self, _: &[FieldRef]) -> Result<FieldRef> {
        Ok(Arc::new(field(self.name(), self.returns)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "state"), DataType::Binary, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One { groups: self.groups(&args)?, bound: self.bound.clone() }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.groups(&args)?))
    }
}

#[derive(Debug)]
struct Groups {
    bound: Arc<Bound>,
    guest: Guest,
    arguments: usize,
    returns: DataType,
    count: usize,
}

impl Groups {
    fn new(bound: Arc<Bound>) -> Result<Self> {
        Ok(Self {
            guest: bound.accumulate().map_err(fault)?,
            arguments: bound.export().args.len(),
            returns: arrow_type(bound.export().returns.unwrap_or(ValueType::Utf8)),
            bound,
            count: 0,
        })
    }

    fn update(&mut self, values: &[ArrayRef], groups: &[u32], count: usize) -> Result<()> {
        self.count = count;
        // DataFusion gives the arguments, and the order's columns behind them where there is an order.
        let given: Vec<_> = values.iter().take(self.arguments).map(Given::Values).collect();
        self.guest.update(groups, count, &given).map_err(fault)
    }

    fn merge(&mut self, states: &ArrayRef, groups: &[u32], count: usize) -> Result<()> {
        self.count = count;
        self.guest.merge(groups, count, states).map_err(fault)
    }

    fn first(&mut self, emit: EmitTo) -> usize {
        let first = match emit {
            EmitTo::All => self.count,
            EmitTo::First(first) => first,
        };
        self.count -= first;
        first
    }
}

/// Rows that the filter keeps, and their groups.
fn kept(values: &[ArrayRef], groups: &[usize], keep: Option<&BooleanArray>) -> Result<(Vec<ArrayRef>, Vec<u32>)> {
    // DataFusion numbers groups as many as fit into memory, which are fewer than 2^32.
    let groups: Vec<u32> = groups.iter().map(|group| *group as u32).collect();
    let Some(keep) = keep else { return Ok((values.to_vec(), groups)) };
    let values = values.iter().map(|array| filter(array, keep)).collect::<std::result::Result<_, _>>()?;
    let groups = filter(&UInt32Array::from(groups), keep)?;
    Ok((values, groups.as_primitive::<UInt32Type>().values().to_vec()))
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let (values, groups) = kept(values, group_indices, opt_filter)?;
        self.update(&values, &groups, total_num_groups)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let (values, groups) = kept(values, group_indices, None)?;
        self.merge(&values[0], &groups, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let first = self.first(emit_to);
        exactly(self.guest.evaluate(first).map_err(fault)?, &self.returns)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let first = self.first(emit_to);
        Ok(vec![self.guest.state(first).map_err(fault)?])
    }

    /// Each row as a group of its own. Not offered (`supports_convert_to_state`): a state a row is more to make, and to send, than
    /// the rows are.
    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |array| array.len());
        let mut each = Self::new(self.bound.clone())?;
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.guest.bytes()
    }
}

/// All rows as one group.
#[derive(Debug)]
struct One {
    groups: Groups,
    bound: Arc<Bound>,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |array| array.len());
        self.groups.update(values, &vec![0; rows], 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.groups.merge(&states[0], &vec![0; states[0].len()], 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.seen()?;
        // Evaluating ends a group, and a window asks again as it grows: the value is taken of a copy.
        let state = self.groups.guest.state(1).map_err(fault)?;
        let mut copy = self.bound.accumulate().map_err(fault)?;
        copy.merge(&[0], 1, &state).map_err(fault)?;
        let value = exactly(copy.evaluate(1).map_err(fault)?, &self.groups.returns)?;
        self.groups.merge(&state, &[0], 1)?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.seen()?;
        let state = self.groups.guest.state(1).map_err(fault)?;
        self.groups.count = 0;
        Ok(vec![ScalarValue::try_from_array(&state, 0)?])
    }

    fn size(&self) -> usize {
        self.groups.guest.bytes()
    }
}

impl One {
    /// The group is there though no row was.
    fn seen(&mut self) -> Result<()> {
        if self.groups.count == 0 {
            self.groups.count = 1;
            let none: Vec<ArrayRef> = self
                .bound
                .export()
                .args
                .iter()
                .map(|argument| arrow::array::new_empty_array(&arrow_type(argument.value_type)))
                .collect();
            self.groups.update(&none, &[], 1)?;
        }
        Ok(())
    }
}
