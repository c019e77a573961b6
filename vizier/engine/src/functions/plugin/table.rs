//! A plugin's table function: `select * from NAME(arguments)`, on Vizier.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::datasource::TableType;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use host::backend::Scalar;
use host::function::{Bound, Cursor, schema};

use super::fault;
use super::values::constant;

/// Rows of one batch that is put out; a function may give more at once.
const BATCH_ROWS: usize = 8192;

/// Rows of a table function, with its arguments.
#[derive(Debug)]
pub(crate) struct PluginTable {
    bound: Arc<Bound>,
    arguments: Vec<Scalar>,
    schema: SchemaRef,
}

/// The values of constant arguments.
pub(crate) fn constants(function: &str, arguments: Vec<Expr>, state: &SessionState) -> Result<Vec<ScalarValue>> {
    let cx = SimplifyContext::builder().with_config_options(Arc::clone(state.config_options())).build();
    let (simplifier, none) = (ExprSimplifier::new(cx), DFSchema::empty());
    let of = |argument: Expr| match simplifier.simplify(simplifier.coerce(argument, &none)?)? {
        Expr::Literal(value, _) => Ok(value),
        other => plan_err!(
            "{function} takes constants, not {other}: a table function has its arguments before any row is read"
        ),
    };
    arguments.into_iter().map(of).collect()
}

impl PluginTable {
    pub fn new(bound: Arc<Bound>, arguments: &[ScalarValue]) -> Result<Self> {
        let export = bound.export();
        if arguments.len() > export.args.len() {
            return plan_err!(
                "{} takes at most {} arguments, not {}\nwrite {}",
                export.name,
                export.args.len(),
                arguments.len(),
                export.signature()
            );
        }
        let of = |(value, declared): (&ScalarValue, &host::manifest::function::Argument)| {
            constant(value, declared.value_type).or_else(|_| {
                plan_err!(
                    "{} takes {} for `{}`, not {value}\nwrite {}",
                    export.name,
                    declared.value_type.name(),
                    declared.name,
                    export.signature()
                )
            })
        };
        let arguments = arguments.iter().zip(&export.args).map(of).collect::<Result<_>>()?;
        let schema = schema(&export.columns);
        Ok(Self { bound, arguments, schema })
    }
}

#[async_trait]
impl TableProvider for PluginTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projected = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(projected),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Arc::new(PluginTableExec {
            bound: self.bound.clone(),
            arguments: self.arguments.clone(),
            projection: projection.cloned(),
            properties: Arc::new(properties),
        }))
    }
}

#[derive(Debug)]
struct PluginTableExec {
    bound: Arc<Bound>,
    arguments: Vec<Scalar>,
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for PluginTableExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (function, plugin) = (&self.bound.export().name, &self.bound.plugin().manifest().name);
        write!(f, "PluginTableExec: function={function}, plugin={plugin}")
    }
}

impl ExecutionPlan for PluginTableExec {
    fn name(&self) -> &str {
        "PluginTableExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (bound, arguments) = (self.bound.clone(), self.arguments.clone());
        let projection = self.projection.clone();
        // Opened with the first poll: what is not read is not made.
        let batches = futures::stream::try_unfold(None::<Cursor>, move |cursor| {
            let next = || -> Result<Option<(RecordBatch, Option<Cursor>)>> {
                let mut cursor = match cursor {
                    Some(cursor) => cursor,
                    None => bound.open(&arguments).map_err(fault)?,
                };
                let Some(batch) = cursor.next_rows().map_err(fault)? else { return Ok(None) };
                let batch = match &projection {
                    Some(columns) => batch.project(columns)?,
                    None => batch,
                };
                Ok(Some((batch, Some(cursor))))
            };
            futures::future::ready(next())
        });
        let slices = batches.map_ok(|batch| {
            let starts = (0..batch.num_rows()).step_by(BATCH_ROWS);
            let slices: Vec<Result<RecordBatch>> =
                starts.map(|at| Ok(batch.slice(at, BATCH_ROWS.min(batch.num_rows() - at)))).collect();
            futures::stream::iter(slices)
        });
        let stream = RecordBatchStreamAdapter::new(self.schema(), slices.try_flatten().boxed());
        Ok(make_cooperative(Box::pin(stream)))
    }
}
