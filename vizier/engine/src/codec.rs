//! How a leaf travels inside a fragment. Everything else in a fragment is DataFusion's own and travels by its codec;
//! functions travel by name, those of plugins with the digest of their plugin.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arrow::datatypes::{Field, Schema};
use datafusion::common::{Result, exec_datafusion_err, internal_err};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
};
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use host::backend::TimeRange;
use host::function::Bound;
use prost::Message;

use crate::exchange::wire::decode;
use crate::functions::patient::{MARK, Patient};
use crate::functions::plugin::{FragmentFunctions, FunctionRef, PluginAggregate, PluginScalar};
use crate::leaf::{PemScanExec, Scan};

/// Encodes a plan.
pub(crate) fn to_bytes(plan: Arc<dyn ExecutionPlan>) -> Result<Encoded> {
    let codec = Codec::default();
    let plan = physical_plan_to_bytes_with_extension_codec(plan, &codec)?;
    let plugins = codec.plugins.into_inner().expect("no panic while it is held").into_iter().collect();
    Ok(Encoded { plan, plugins })
}

/// A plan as bytes.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub plan: bytes::Bytes,
    /// Digests of the plugins whose functions it calls.
    pub plugins: Vec<String>,
}

/// The reverse, against the functions and options of `cx`.
pub(crate) fn from_bytes(
    bytes: &[u8],
    cx: &TaskContext,
    functions: FragmentFunctions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let codec = Codec { functions: Some(functions), ..Codec::default() };
    physical_plan_from_bytes_with_extension_codec(bytes, cx, &codec)
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScanMessage {
    #[prost(string, tag = "1")]
    table: String,
    #[prost(message, optional, tag = "2")]
    source: Option<protobuf::Schema>,
    #[prost(uint32, repeated, tag = "3")]
    projection: Vec<u32>,
    #[prost(message, repeated, tag = "4")]
    filters: Vec<protobuf::PhysicalExprNode>,
    #[prost(sint64, tag = "5")]
    start_ns: i64,
    #[prost(sint64, tag = "6")]
    end_ns: i64,
    #[prost(uint64, optional, tag = "7")]
    fetch: Option<u64>,
    #[prost(uint32, tag = "8")]
    partitions: u32,
}

#[derive(Debug, Default)]
struct Codec {
    /// While encoding: plugins met.
    plugins: Mutex<BTreeSet<String>>,
    /// While decoding.
    functions: Option<FragmentFunctions>,
}

impl Codec {
    fn name(&self, bound: &Bound, buffer: &mut Vec<u8>) -> Result<()> {
        let function = FunctionRef::of(bound);
        self.plugins.lock().expect("no panic while it is held").insert(function.digest.clone());
        function.encode(buffer).map_err(|e| exec_datafusion_err!("cannot encode a function: {e}"))
    }

    fn bound(&self, name: &str, buffer: &[u8]) -> Result<Arc<Bound>> {
        let functions = self.functions.as_ref().filter(|_| !buffer.is_empty());
        let functions = functions.ok_or_else(|| exec_datafusion_err!("there is no function {name}"))?;
        functions.bound(&decode(buffer, "a function")?)
    }
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        _inputs: &[Arc<dyn ExecutionPlan>],
        cx: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let message: ScanMessage = decode(bytes, "a scan")?;
        let source = message.source.as_ref().ok_or_else(|| exec_datafusion_err!("a scan came without its columns"))?;
        let source: Schema = source.try_into()?;
        let decode_cx = PhysicalPlanDecodeContext::new(cx, self);
        let filters = message
            .filters
            .iter()
            .map(|filter| converter.proto_to_physical_expr(filter, &source, &decode_cx))
            .collect::<Result<_>>()?;
        let scan = Scan {
            table: message.table,
            source: Arc::new(source),
            projection: message.projection.into_iter().map(|i| i as usize).collect(),
            filters,
            range: TimeRange { start_ns: message.start_ns, end_ns: message.end_ns },
            fetch: message.fetch.map(|rows| rows as usize),
        };
        Ok(Arc::new(PemScanExec::try_new(scan, message.partitions.max(1) as usize, None, None)?))
    }

    fn try_decode_udf(&self, name: &str, buffer: &[u8]) -> Result<Arc<ScalarUDF>> {
        if buffer == MARK {
            let functions = self.functions.as_ref();
            let functions = functions.ok_or_else(|| exec_datafusion_err!("{name} was decoded outside a fragment"))?;
            return Ok(Arc::new(ScalarUDF::new_from_impl(Patient::named(name, functions.bounds.clone())?)));
        }
        Ok(Arc::new(ScalarUDF::new_from_impl(PluginScalar::new(self.bound(name, buffer)?))))
    }

    fn try_encode_udf(&self, node: &ScalarUDF, buffer: &mut Vec<u8>) -> Result<()> {
        let function: &dyn Any = node.inner().as_ref();
        if function.is::<Patient>() {
            buffer.extend_from_slice(MARK);
            return Ok(());
        }
        function.downcast_ref::<PluginScalar>().map_or(Ok(()), |function| self.name(function.bound(), buffer))
    }

    fn try_decode_udaf(&self, name: &str, buffer: &[u8]) -> Result<Arc<AggregateUDF>> {
        Ok(Arc::new(AggregateUDF::new_from_impl(PluginAggregate::new(self.bound(name, buffer)?))))
    }

    fn try_encode_udaf(&self, node: &AggregateUDF, buffer: &mut Vec<u8>) -> Result<()> {
        let function: &dyn Any = node.inner().as_ref();
        function.downcast_ref::<PluginAggregate>().map_or(Ok(()), |function| self.name(function.bound(), buffer))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(leaf) = node.downcast_ref::<PemScanExec>() else {
            return internal_err!("{} cannot be sent to an agent", node.name());
        };
        let scan = leaf.scan();
        let message = ScanMessage {
            table: scan.table.clone(),
            source: Some((&bare(&scan.source)).try_into()?),
            projection: scan.projection.iter().map(|i| *i as u32).collect(),
            filters: scan
                .filters
                .iter()
                .map(|filter| converter.physical_expr_to_proto(filter, self))
                .collect::<Result<_>>()?,
            start_ns: scan.range.start_ns,
            end_ns: scan.range.end_ns,
            fetch: scan.fetch.map(|rows| rows as u64),
            partitions: leaf.partitions() as u32,
        };
        message.encode(buffer).map_err(|e| exec_datafusion_err!("cannot encode a scan: {e}"))
    }
}

/// Names and types: descriptions stay on Vizier.
fn bare(schema: &Schema) -> Schema {
    Schema::new(
        schema
            .fields()
            .iter()
            .map(|field| Field::new(field.name(), field.data_type().clone(), field.is_nullable()))
            .collect::<Vec<_>>(),
    )
}
