//! The operator where a plan is cut: its stage runs on every agent of the query, its partitions are the agents' answers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use arrow_flight::Ticket;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use datafusion_proto::protobuf;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::time::Instant;
use tonic::Request;

use crate::codec::{self, Encoded};
use crate::error::{Fault, from_status};
use crate::exchange::batches::decode;
use crate::exchange::wire::{Fragment, Usage};
use crate::exchange::{View, client};
use crate::query::RunCx;

type Plan = Arc<dyn ExecutionPlan>;

/// Runs a stage on every agent.
#[derive(Debug)]
pub struct RemoteExec {
    stage: Plan,
    view: Arc<View>,
    options: Arc<BTreeMap<String, String>>,
    /// Encoded once, not once per agent.
    encoded: OnceLock<Encoded>,
    properties: Arc<PlanProperties>,
}

impl RemoteExec {
    pub(crate) fn new(stage: Plan, view: Arc<View>, options: Arc<BTreeMap<String, String>>) -> Self {
        let stage = single(stage);
        let properties = stage.properties();
        // Order is all that holds of every agent's rows alike; what is constant on one may differ on another.
        let order = stage.output_ordering().cloned();
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(stage.schema(), order),
            Partitioning::UnknownPartitioning(view.agents.len().max(1)),
            properties.emission_type,
            properties.boundedness,
        );
        Self { stage, view, options, encoded: OnceLock::new(), properties: Arc::new(properties) }
    }

    /// What each agent runs.
    pub fn stage(&self) -> &Plan {
        &self.stage
    }

    /// Encodes now, so that what cannot travel shows while planning.
    pub(crate) fn encode(&self) -> Result<&Encoded> {
        if let Some(encoded) = self.encoded.get() {
            return Ok(encoded);
        }
        let encoded = codec::to_bytes(self.stage.clone())?;
        // Agents read it with the same bound on its depth, and would all be missing.
        protobuf::PhysicalPlanNode::decode(encoded.plan.as_ref()).map_err(|_| {
            DataFusionError::Plan(
                "what agents are to do is nested too deep to travel\ncompute it in fewer steps, or nest expressions less deep"
                    .to_owned(),
            )
        })?;
        Ok(self.encoded.get_or_init(|| encoded))
    }
}

/// The plan with one partition, its order kept.
pub(crate) fn single(plan: Plan) -> Plan {
    if plan.output_partitioning().partition_count() == 1 {
        return plan;
    }
    match plan.output_ordering().cloned() {
        Some(order) => Arc::new(SortPreservingMergeExec::new(order, plan)),
        None => Arc::new(CoalescePartitionsExec::new(plan)),
    }
}

impl DisplayAs for RemoteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteExec: agents={}", self.view.agents.len())
    }
}

impl ExecutionPlan for RemoteExec {
    fn name(&self) -> &str {
        "RemoteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Plan> {
        // The stage is in another process: rules that walk the plan end here.
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Plan>) -> Result<Plan> {
        Ok(self)
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let cx = task
            .session_config()
            .get_extension::<RunCx>()
            .ok_or_else(|| internal_datafusion_err!("RemoteExec was run outside a query"))?;
        if partition == 0 {
            for (agent, reason) in &self.view.absent {
                cx.run.miss(agent, reason.as_str());
            }
        }
        let schema = self.schema();
        let Some(agent) = self.view.agents.get(partition) else {
            // No agent is connected: an empty answer, with the absent ones named.
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::empty())));
        };
        let budget = cx.meter.budget.rows_scanned;
        let used = cx.meter.rows_scanned.load(std::sync::atomic::Ordering::Relaxed);
        let encoded = self.encode()?;
        let cpu = cx.meter.guest_cpu_ns.load(std::sync::atomic::Ordering::Relaxed);
        let fragment = Fragment {
            plan: encoded.plan.clone(),
            options: self.options.as_ref().clone(),
            remaining_ns: cx.run.deadline.saturating_duration_since(Instant::now()).as_nanos() as u64,
            rows_max: budget.saturating_sub(used),
            plugins: encoded.plugins.clone(),
            guest_cpu_ns_max: cx.meter.budget.guest_cpu_ns.saturating_sub(cpu),
            guest_memory_bytes_max: cx.meter.budget.memory_bytes,
        };
        let needs = fragment.plugins.clone();
        let ticket = Ticket::new(fragment.encode_to_vec());
        let (channel, shipped, plugins) = (agent.channel.clone(), agent.shipped.clone(), self.view.plugins.clone());
        let (run, id) = (cx.run.clone(), agent.id.clone());
        let answer = {
            let schema = schema.clone();
            let (run, id) = (run.clone(), id.clone());
            async move {
                if !needs.is_empty() {
                    shipped.needed(&channel, &plugins, &needs).await.map_err(Fault::Node)?;
                }
                let messages = client(channel).do_get(Request::new(ticket)).await.map_err(|s| from_status(&s))?;
                let before = Mutex::new(Usage::default());
                let on_message = {
                    let (run, id) = (run.clone(), id.clone());
                    move |bytes| run.received(&id, bytes)
                };
                let on_usage = move |usage: Usage| {
                    let mut before = before.lock().expect("no panic while it is held");
                    let before = std::mem::replace(&mut *before, usage);
                    run.charge(&id, &before, &usage, &cx.meter)
                };
                Ok::<_, DataFusionError>(decode(messages.into_inner(), schema, on_message, on_usage))
            }
        };
        let stream = futures::stream::once(answer).try_flatten().boxed();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, run.tolerant(id, stream))))
    }
}
