//! Plans and runs queries over the agents of a registry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, RwLock};

use arrow::array::RecordBatch;
use arrow::temporal_conversions::timestamp_ns_to_datetime;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::OptimizerContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use host::manifest::function::ExportKind;
use host::meter::Meter;
use pem_tables::Store;

use crate::error::Fault;
use crate::exchange::Registry;
use crate::functions::plugin::{Functions, KIND};
use crate::functions::{FunctionComponent, fuse_quantiles, patient, plain_arguments};
use crate::guard::guard;
use crate::leaf::PemScanExec;
use crate::local::Locals;
use crate::policy::Access;
use crate::provider::PemTable;
use crate::query::{Query, QueryContext, RunCx};
use crate::yielding::yielding;
use crate::{cut, explain, present, rules, session, subquery};

/// How much of Vizier's machine queries may use, and how agents are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Partitions above the cut.
    pub threads: usize,
    /// Memory of operators above the cut that keep rows, all queries together.
    pub memory_bytes: usize,
    /// Partitions in which each agent reads a table: the cores of a node that one query may keep busy.
    pub partitions_per_agent: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            memory_bytes: 512 << 20,
            // An agent is a guest on its node.
            partitions_per_agent: 1,
        }
    }
}

/// The engine of one Vizier.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub registry: Arc<Registry>,
    pub state: SessionState,
    /// For one agent that reads in one partition: plans for more would only make work there.
    narrow: SessionState,
    pub config: EngineConfig,
    options: Arc<BTreeMap<String, String>>,
    pub local: Locals,
    functions: RwLock<Arc<Functions>>,
}

impl Inner {
    /// Functions of plugins, as of now.
    pub fn functions(&self) -> Arc<Functions> {
        self.functions.read().expect("no panic while it is held").clone()
    }
}

impl Engine {
    /// Over the agents of `registry`.
    pub fn new(registry: Arc<Registry>, config: EngineConfig) -> Result<Self, host::error::Error> {
        Self::with_local(registry, config, Locals::default())
    }

    /// Over the agents of `registry`, and the tables of a store that Vizier keeps itself: these hide an agent's of the same name.
    pub fn with_store(
        registry: Arc<Registry>,
        config: EngineConfig,
        store: &Store,
    ) -> Result<Self, host::error::Error> {
        Self::with_local(registry, config, Locals::of(store))
    }

    fn with_local(registry: Arc<Registry>, config: EngineConfig, local: Locals) -> Result<Self, host::error::Error> {
        let state = session::vizier(config.threads, config.memory_bytes)
            .map_err(|e| host::error::Error::Internal(format!("the query engine does not start: {e}")))?;
        let mut narrow = state.clone();
        narrow.config_mut().options_mut().execution.target_partitions = 1;
        let options = Arc::new(session::shared_options(state.config_options()));
        let functions = RwLock::default();
        Ok(Self { inner: Arc::new(Inner { registry, state, narrow, config, options, local, functions }) })
    }

    /// The agents.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.inner.registry
    }

    /// A run over the agents and tables of this moment.
    pub fn query(&self, cx: QueryContext) -> Arc<Query> {
        Query::new(self.inner.clone(), cx, self.inner.registry.view())
    }

    /// Makes the functions of these plugins known, in place of those there were, and has them sent to the agents. Gives the names
    /// of plugins that were not taken, with the reason: a function's name that is taken already. Must be called within a tokio runtime.
    pub fn set_functions(&self, plugins: Vec<FunctionComponent>) -> Vec<(String, String)> {
        let state = &self.inner.state;
        let built_in = |name: &str| {
            state.scalar_functions().contains_key(name)
                || state.aggregate_functions().contains_key(name)
                || state.window_functions().contains_key(name)
                || state.higher_order_functions().contains_key(name)
        };
        let (functions, refused) = Functions::of(plugins, built_in);
        let components = functions.components();
        *self.inner.functions.write().expect("no panic while it is held") = Arc::new(functions);
        self.inner.registry.set_plugins(KIND, components);
        refused
    }

    /// Names of all functions, for completion: scalar, aggregate, window.
    pub fn functions(&self) -> BTreeSet<String> {
        let state = &self.inner.state;
        let scalar = state.scalar_functions().keys();
        let own = scalar.chain(state.aggregate_functions().keys()).chain(state.window_functions().keys()).cloned();
        let plugins = self.inner.functions();
        let kinds = [ExportKind::Scalar, ExportKind::Aggregate, ExportKind::Table];
        own.chain(kinds.into_iter().flat_map(|kind| plugins.names(kind).map(str::to_owned))).collect()
    }
}

impl Query {
    /// The table as this run may see it, in the run's own range. `None`: it does not exist for the run.
    pub(crate) fn pem_table(&self, name: &str) -> Result<Option<Arc<PemTable>>> {
        if let Some(known) = self.tables.lock().expect("no panic while it is held").get(name) {
            return Ok(known.clone());
        }
        let table = self.make_table(name)?.map(Arc::new);
        self.tables.lock().expect("no panic while it is held").insert(name.to_owned(), table.clone());
        Ok(table)
    }

    fn make_table(&self, name: &str) -> Result<Option<PemTable>> {
        let (def, local) = match self.engine.local.get(name, &self.cx.meter) {
            Some((def, local)) => (def, Some(local)),
            None => match self.view.tables.get(name) {
                Some(def) => (def.clone(), None),
                None => return Ok(None),
            },
        };
        let Access::Granted(scope) = self.cx.policy.access(name) else { return Ok(None) };
        let wrong = |what: String| Fault::Denied(format!("the policy for table {name} is wrong: {what}"));
        let predicate = match &scope.predicate {
            Some(text) => {
                let schema = DFSchema::try_from(def.schema.as_ref().clone())?;
                let predicate = self.engine.state.create_logical_expr(text, &schema);
                Some(predicate.map_err(|e| wrong(e.strip_backtrace()))?)
            }
            None => None,
        };
        let mut masked = BTreeSet::new();
        for column in &scope.masked {
            let position = def.schema.index_of(column).map_err(|_| wrong(format!("there is no column {column}")))?;
            masked.insert(position);
        }
        Ok(Some(PemTable {
            exposed: PemTable::exposed(&def.schema, &masked),
            def,
            view: self.view.clone(),
            local,
            range: self.cx.range,
            per_agent: self.engine.config.partitions_per_agent.max(1),
            predicate,
            masked,
            guarded: false,
        }))
    }

    /// The plan as it runs, scalar subqueries evaluated. Everything that is executed comes through here.
    async fn physical(&self, plan: LogicalPlan, meter: Arc<Meter>) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = guard(plan)?;
        let plan = subquery::inline(plan, |subquery| self.scalar(subquery, meter.clone())).await?;
        let plan = self.optimised(plan).await?;
        plan.apply(|node| {
            if let Some(leaf) = node.downcast_ref::<PemScanExec>() {
                self.run.reads(&leaf.scan().table, leaf.scan().range);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        cut::cut(plan, &self.view, &self.engine.options)
    }

    /// The plan with the part that agents do cut off, as it is shown.
    async fn cut(&self, plan: LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        cut::cut(self.optimised(plan).await?, &self.view, &self.engine.options)
    }

    /// Planned as if all were here. Planning is not interrupted but ends at its next step once the run is over.
    async fn optimised(&self, plan: LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let one = self.view.agents.len() <= 1 && self.engine.config.partitions_per_agent <= 1;
        let state = if one { &self.engine.narrow } else { &self.engine.state };
        self.run.go_on()?;
        let plan = fuse_quantiles(plain_arguments(plan)?)?;
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
        let now = timestamp_ns_to_datetime(self.cx.now_ns).unwrap_or_default().and_utc();
        let cx = OptimizerContext::new_with_config_options(state.config_options().clone())
            .with_query_execution_start_time(now);
        let plan = rules::of(&self.run, state.optimizer()).optimize(plan, &cx, |_, _| {})?;
        let plan = patient(plan, self.bounds())?;
        self.run.go_on()?;
        let plan = state.query_planner().create_physical_plan(&plan, state).await?;
        self.run.go_on()?;
        Ok(plan)
    }

    /// Runs a plan.
    pub(crate) async fn run(
        &self,
        plan: LogicalPlan,
        meter: Arc<Meter>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let plan = yielding(self.physical(plan, meter.clone()).await?)?;
        let state = &self.engine.state;
        let cx = Arc::new(RunCx { run: self.run.clone(), meter });
        let task = TaskContext::new(
            None,
            String::new(),
            state.config().clone().with_extension(cx),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            state.runtime_env().clone(),
        );
        let stream = execute_stream(plan, Arc::new(task))?;
        Ok(self.run.clone().bounded(stream))
    }

    /// The value of a scalar subquery.
    fn scalar(&self, plan: LogicalPlan, meter: Arc<Meter>) -> BoxFuture<'_, Result<ScalarValue>> {
        async move {
            let data_type = plan.schema().field(0).data_type().clone();
            // One row more than there may be, to notice it.
            let plan = LogicalPlanBuilder::from(plan).limit(0, Some(2))?.build()?;
            let batches: Vec<_> = self.run(plan, meter).await?.try_collect().await?;
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            match batches.iter().find(|batch| batch.num_rows() > 0) {
                None => ScalarValue::try_from(&data_type),
                Some(batch) if rows == 1 => ScalarValue::try_from_array(batch.column(0), 0),
                Some(_) => Err(DataFusionError::Plan(
                    "a subquery used as a value gave more than one row: aggregate it, or add `limit 1`".into(),
                )),
            }
        }
        .boxed()
    }

    /// The optimised plan as text, what each agent does included. Runs nothing: a scalar subquery is shown by itself, and as
    /// a call of `subquery_N()` where its value will be.
    pub(crate) fn explain(&self, plan: LogicalPlan) -> Result<String> {
        // Planning awaits nothing: tables are known.
        futures::executor::block_on(async {
            let plan = guard(plan)?;
            let (plan, subqueries) = subquery::stand_ins(plan)?;
            let mut text = String::new();
            for (i, subquery) in subqueries.into_iter().enumerate() {
                let plan = self.cut(subquery).await?;
                text.push_str(&format!("subquery_{}, evaluated first:\n{}\n", i + 1, explain::explain(&plan)));
            }
            text.push_str(&explain::explain(&self.cut(plan).await?));
            Ok(text)
        })
    }

    /// The result in the types that are presented.
    pub(crate) async fn present(
        &self,
        plan: LogicalPlan,
        meter: Arc<Meter>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let schema = present::schema(plan.schema().as_arrow());
        let stream = self.run(plan, meter).await?;
        let present = move |batch: Result<RecordBatch>| Ok(present::batch(&batch?, &schema)?);
        let some = |batch: &Result<RecordBatch>| batch.as_ref().is_ok_and(|b| b.num_rows() == 0);
        Ok(stream.filter(move |batch| futures::future::ready(!some(batch))).map(present).boxed())
    }
}
