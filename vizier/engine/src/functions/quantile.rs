//! `quantile(x, q)` and what it is made of: `sketch(x)`, an aggregate whose state merges across nodes, and
//! `sketch_quantile(sketch, q)`.

use std::mem;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Float64Array, Float64Builder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, ColumnarValue, EmitTo, Expr, GroupsAccumulator, ScalarFunctionArgs, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

use super::sketch::Sketch;

/// `quantile(x, q)`
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Quantile {
    signature: Signature,
}

/// `sketch(x)`
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SketchOf {
    signature: Signature,
}

/// `sketch_quantile(sketch, q)`
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SketchQuantile {
    signature: Signature,
}

impl Default for Quantile {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for SketchOf {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for SketchQuantile {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![DataType::Binary, DataType::Float64], Volatility::Immutable) }
    }
}

fn number(function: &str, argument: &DataType) -> Result<DataType> {
    match argument {
        DataType::Duration(_) | DataType::Interval(_) => {
            plan_err!("{function} takes numbers: cast the duration to bigint")
        }
        other if other.is_numeric() || other.is_null() => Ok(DataType::Float64),
        other => plan_err!("{function} takes numbers, not {other}"),
    }
}

impl AggregateUDFImpl for Quantile {
    fn name(&self) -> &str {
        "quantile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [x, q] if q.is_numeric() => Ok(vec![number(self.name(), x)?, DataType::Float64]),
            _ => plan_err!("quantile takes a number column and a share from 0 to 1, as in quantile(latency, 0.99)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_fields(args.name))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One { sketch: Sketch::default(), give: Give::Quantile(share(&args)?) }))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups { sketches: Vec::new(), give: Give::Quantile(share(&args)?), size: 0 }))
    }
}

impl AggregateUDFImpl for SketchOf {
    fn name(&self) -> &str {
        "sketch"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [x] => Ok(vec![number(self.name(), x)?]),
            _ => plan_err!("sketch takes one number column"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_fields(args.name))
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One { sketch: Sketch::default(), give: Give::Sketch }))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups { sketches: Vec::new(), give: Give::Sketch, size: 0 }))
    }
}

impl ScalarUDFImpl for SketchQuantile {
    fn name(&self) -> &str {
        "sketch_quantile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let sketches = args.args[0].to_array(rows)?;
        let shares = args.args[1].to_array(rows)?;
        let (sketches, shares) = (sketches.as_binary::<i32>(), shares.as_primitive::<Float64Type>());
        let mut out = Float64Builder::with_capacity(rows);
        for row in 0..rows {
            let known = sketches.is_valid(row) && shares.is_valid(row);
            out.append_option(if known {
                Sketch::decode(sketches.value(row))?.quantile(checked(shares.value(row))?)
            } else {
                None
            });
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

fn state_fields(name: &str) -> Vec<FieldRef> {
    vec![Arc::new(Field::new(format_state_name(name, "sketch"), DataType::Binary, true))]
}

/// The literal `q` of `quantile(x, q)`.
fn share(args: &AccumulatorArgs) -> Result<f64> {
    // Coercion may have put a cast around the literal; what it gives does not depend on a row.
    let Some(q) = args.exprs.get(1) else { return exec_err!("quantile came without its share") };
    let value = match q.downcast_ref::<Literal>() {
        Some(literal) => literal.value().clone(),
        None => constant(q)?,
    };
    match value.cast_to(&DataType::Float64)? {
        ScalarValue::Float64(Some(q)) => checked(q),
        _ => plan_err!("the share of quantile(x, q) must be a constant from 0 to 1"),
    }
}

fn constant(expr: &Arc<dyn PhysicalExpr>) -> Result<ScalarValue> {
    let empty = arrow::array::RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
    match expr.evaluate(&empty) {
        Ok(ColumnarValue::Scalar(value)) => Ok(value),
        _ => plan_err!("the share of quantile(x, q) must be a constant from 0 to 1"),
    }
}

fn checked(q: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&q) {
        Ok(q)
    } else {
        plan_err!("the share of quantile(x, q) must be from 0 to 1, as in quantile(latency, 0.99); it is {q}")
    }
}

#[derive(Clone, Copy, Debug)]
enum Give {
    Quantile(f64),
    Sketch,
}

#[derive(Debug)]
struct One {
    sketch: Sketch,
    give: Give,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = floats(&values[0])?;
        for value in values.iter().flatten() {
            self.sketch.add(value);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in states[0].as_binary::<i32>().iter().flatten() {
            self.sketch.merge(&Sketch::decode(state)?);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.give {
            Give::Quantile(q) => Ok(ScalarValue::Float64(self.sketch.quantile(q))),
            Give::Sketch => Ok(ScalarValue::Binary(Some(encoded(&self.sketch)))),
        }
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(encoded(&self.sketch)))])
    }

    fn size(&self) -> usize {
        self.sketch.size()
    }
}

struct Groups {
    sketches: Vec<Sketch>,
    give: Give,
    /// Bytes of the sketches, kept up to date instead of summed up at each batch.
    size: usize,
}

impl Groups {
    fn grow(&mut self, groups: usize) {
        if groups > self.sketches.len() {
            self.size += (groups - self.sketches.len()) * size_of::<Sketch>();
            self.sketches.resize_with(groups, Sketch::default);
        }
    }

    fn take(&mut self, emit: EmitTo) -> Vec<Sketch> {
        let taken = match emit {
            EmitTo::All => mem::take(&mut self.sketches),
            EmitTo::First(n) => {
                let rest = self.sketches.split_off(n);
                mem::replace(&mut self.sketches, rest)
            }
        };
        self.size = self.sketches.iter().map(Sketch::size).sum();
        taken
    }

    fn encoded(sketches: &[Sketch]) -> ArrayRef {
        let mut out = BinaryBuilder::new();
        let mut bytes = Vec::new();
        for sketch in sketches {
            bytes.clear();
            sketch.encode(&mut bytes);
            out.append_value(&bytes);
        }
        Arc::new(out.finish())
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.grow(total);
        let values = floats(&values[0])?;
        for (row, group) in groups.iter().enumerate() {
            if values.is_null(row) || filter.is_some_and(|f| f.is_null(row) || !f.value(row)) {
                continue;
            }
            self.size += self.sketches[*group].add(values.value(row));
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.grow(total);
        let states = states[0].as_binary::<i32>();
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| states.is_valid(*row)) {
            let sketch = &mut self.sketches[*group];
            let before = sketch.size();
            sketch.merge(&Sketch::decode(states.value(row))?);
            self.size = (self.size + sketch.size()).saturating_sub(before);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let sketches = self.take(emit);
        Ok(match self.give {
            Give::Quantile(q) => Arc::new(Float64Array::from_iter(sketches.iter().map(|s| s.quantile(q)))),
            Give::Sketch => Self::encoded(&sketches),
        })
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let sketches = self.take(emit);
        Ok(vec![Self::encoded(&sketches)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = floats(&values[0])?;
        let sketch = |row: usize| {
            let mut sketch = Sketch::default();
            if values.is_valid(row) && filter.is_none_or(|f| f.is_valid(row) && f.value(row)) {
                sketch.add(values.value(row));
            }
            sketch
        };
        let sketches: Vec<_> = (0..values.len()).map(sketch).collect();
        Ok(vec![Self::encoded(&sketches)])
    }

    fn size(&self) -> usize {
        self.size
    }
}

fn encoded(sketch: &Sketch) -> Vec<u8> {
    let mut bytes = Vec::new();
    sketch.encode(&mut bytes);
    bytes
}

fn floats(values: &ArrayRef) -> Result<Float64Array> {
    if let Some(values) = values.as_primitive_opt::<Float64Type>() {
        return Ok(values.clone());
    }
    Ok(cast(values, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

/// Refuses a `quantile` whose share is a literal out of range, while its text is still at hand.
pub(crate) fn check(expr: &Expr) -> Result<()> {
    expr.apply(|expr| {
        if let Expr::AggregateFunction(call) = expr
            && call.func.name() == "quantile"
            && let Some(Expr::Literal(value, _)) = call.params.args.get(1)
            && let Ok(ScalarValue::Float64(Some(q))) = value.cast_to(&DataType::Float64)
        {
            checked(q)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}
