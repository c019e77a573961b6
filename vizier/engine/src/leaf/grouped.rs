//! `GROUP BY` strings that are dictionaries, without looking at the strings: stock DataFusion writes out every row's key as
//! bytes and hashes it. Here a batch's dictionary is looked up once, and a row's group is found by its code in a table.
//!
//! It takes the place of DataFusion's aggregate inside a fragment, after the fragment has been decoded, and gives the same
//! columns; so Vizier and the wire know nothing of it.

mod codes;

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt};

use codes::Groups;

/// The plan with the aggregates that fit replaced.
pub(crate) fn specialise(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(plan
        .transform_up(|node| match node.downcast_ref::<AggregateExec>() {
            Some(aggregate) if fits(aggregate) => {
                Ok(Transformed::yes(Arc::new(GroupedExec::new(node.clone())) as Arc<dyn ExecutionPlan>))
            }
            _ => Ok(Transformed::no(node)),
        })?
        .data)
}

fn fits(aggregate: &AggregateExec) -> bool {
    let schema = aggregate.input().schema();
    let keys = aggregate.group_expr();
    let dictionary = |key: &Arc<dyn PhysicalExpr>| {
        matches!(
            key.data_type(&schema),
            Ok(DataType::Dictionary(code, value)) if *code == DataType::Int32 && *value == DataType::Utf8
        )
    };
    matches!(aggregate.mode(), AggregateMode::Partial | AggregateMode::Single | AggregateMode::SinglePartitioned)
        && keys.is_single()
        && !keys.expr().is_empty()
        && keys.expr().iter().all(|(key, _)| dictionary(key))
        && aggregate.limit_options().is_none()
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && aggregate.aggr_expr().iter().all(|a| a.groups_accumulator_supported() && a.order_bys().is_empty())
}

/// An aggregate by dictionary columns.
#[derive(Debug)]
struct GroupedExec {
    /// The [`AggregateExec`] it stands for.
    stock: Arc<dyn ExecutionPlan>,
}

impl GroupedExec {
    fn new(stock: Arc<dyn ExecutionPlan>) -> Self {
        Self { stock }
    }

    fn aggregate(&self) -> &AggregateExec {
        self.stock.downcast_ref().expect("it is made of aggregates only")
    }
}

impl DisplayAs for GroupedExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grouped")?;
        self.aggregate().fmt_as(format, f)
    }
}

impl ExecutionPlan for GroupedExec {
    fn name(&self) -> &str {
        "GroupedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.stock.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.stock.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.stock.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Arc::new(Self::new(self.stock.clone().replace_children(children, options)?)))
    }

    fn execute(&self, partition: usize, cx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let aggregate = self.aggregate();
        let mut input = aggregate.input().execute(partition, cx.clone())?;
        let batch_rows = cx.session_config().batch_size();
        let mut work = Work::new(aggregate, &cx)?;
        let schema = self.schema();
        let batches = async move {
            while let Some(batch) = input.next().await {
                work.update(&batch?)?;
            }
            drop(input);
            let batch = work.finish()?;
            let rows = batch.num_rows();
            let slices = (0..rows)
                .step_by(batch_rows.max(1))
                .map(move |from| Ok(batch.slice(from, batch_rows.min(rows - from))));
            Ok::<_, datafusion::common::DataFusionError>(futures::stream::iter(slices))
        };
        let stream = futures::stream::once(batches).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

struct Work {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    calls: Vec<Call>,
    groups: Groups,
    /// Group of each row of a batch; kept for its memory.
    rows: Vec<usize>,
    states: bool,
    schema: SchemaRef,
    memory: MemoryReservation,
}

struct Call {
    accumulator: Box<dyn GroupsAccumulator>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

impl Work {
    fn new(aggregate: &AggregateExec, cx: &TaskContext) -> Result<Self> {
        let calls = aggregate
            .aggr_expr()
            .iter()
            .zip(aggregate.filter_expr())
            .map(|(call, filter)| {
                Ok(Call {
                    accumulator: call.create_groups_accumulator()?,
                    arguments: call.expressions(),
                    filter: filter.clone(),
                })
            })
            .collect::<Result<_>>()?;
        let keys: Vec<_> = aggregate.group_expr().expr().iter().map(|(key, _)| key.clone()).collect();
        Ok(Self {
            groups: Groups::new(keys.len()),
            keys,
            calls,
            rows: Vec::new(),
            states: *aggregate.mode() == AggregateMode::Partial,
            schema: aggregate.schema(),
            memory: MemoryConsumer::new("groups by dictionary").register(cx.memory_pool()),
        })
    }

    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        let keys =
            self.keys.iter().map(|key| key.evaluate(batch)?.into_array(rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let dictionaries: Vec<_> = keys.iter().map(|key| key.as_dictionary::<Int32Type>()).collect();
        self.groups.assign(&dictionaries, &mut self.rows);
        let total = self.groups.len();
        for call in &mut self.calls {
            let arguments = call
                .arguments
                .iter()
                .map(|argument| argument.evaluate(batch)?.into_array(rows))
                .collect::<Result<Vec<_>>>()?;
            let filter = match &call.filter {
                Some(filter) => Some(filter.evaluate(batch)?.into_array(rows)?),
                None => None,
            };
            let filter: Option<&BooleanArray> = filter.as_ref().map(|filter| filter.as_boolean());
            call.accumulator.update_batch(&arguments, &self.rows, filter, total)?;
        }
        let size = self.groups.size() + self.calls.iter().map(|call| call.accumulator.size()).sum::<usize>();
        self.memory.try_resize(size)
    }

    fn finish(mut self) -> Result<RecordBatch> {
        if self.groups.len() == 0 {
            return Ok(RecordBatch::new_empty(self.schema));
        }
        let mut columns = self.groups.columns()?;
        for call in &mut self.calls {
            if self.states {
                columns.extend(call.accumulator.state(EmitTo::All)?);
            } else {
                columns.push(call.accumulator.evaluate(EmitTo::All)?);
            }
        }
        debug_assert!(columns.iter().all(|column| column.len() == self.groups.len()));
        Ok(RecordBatch::try_new(self.schema, columns)?)
    }
}
