//! Messages between Vizier and a PEM, beside Arrow's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion_proto::protobuf;
use prost::Message;

use super::{ENGINE_VERSION, EXCHANGE_VERSION};
use crate::agent::{AgentId, AgentInfo};
use crate::exchange::TableOnAgent;

/// Action that asks an agent who it is: the answer is one [`Announcement`].
pub(crate) const DESCRIBE: &str = "describe";
/// Action that tells an agent why Vizier will not have it; the body is the reason as text.
pub(crate) const REFUSE: &str = "refuse";

/// Action that tells an agent which plugins it is to have, and drops the others: a [`PluginSet`], answered by
/// [`PluginsWanted`].
pub(crate) const PLUGINS: &str = "plugins";
/// Action that brings one: a [`PluginOffer`], answered by [`PluginAnswer`].
pub(crate) const PLUGIN: &str = "plugin";

/// The ticket of a `do_get`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Fragment {
    /// A datafusion-proto physical plan of one output partition.
    #[prost(bytes = "bytes", tag = "1")]
    pub plan: bytes::Bytes,
    /// Options of Vizier's session that differ from the defaults; time zone and the like.
    #[prost(btree_map = "string, string", tag = "2")]
    pub options: BTreeMap<String, String>,
    /// What is left until the query's deadline. The agent stops by itself then: Vizier may be frozen.
    #[prost(uint64, tag = "3")]
    pub remaining_ns: u64,
    /// Rows that may still be scanned on the run's behalf.
    #[prost(uint64, tag = "4")]
    pub rows_max: u64,
    /// Digests of the plugins whose functions the plan calls.
    #[prost(string, repeated, tag = "5")]
    pub plugins: Vec<String>,
    /// Processor time that functions of plugins may still use on the run's behalf.
    #[prost(uint64, tag = "6")]
    pub guest_cpu_ns_max: u64,
    /// Memory they may have, all together.
    #[prost(uint64, tag = "7")]
    pub guest_memory_bytes_max: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginRef {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(string, tag = "2")]
    pub kind: String,
    #[prost(string, tag = "3")]
    pub name: String,
}

/// All plugins an agent is to have.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginSet {
    #[prost(message, repeated, tag = "1")]
    pub plugins: Vec<PluginRef>,
}

/// Answer to a [`PluginSet`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginsWanted {
    /// Digests of those that are to be sent.
    #[prost(string, repeated, tag = "1")]
    pub digests: Vec<String>,
    /// Those that were sent before and could not be loaded, with the reason.
    #[prost(btree_map = "string, string", tag = "2")]
    pub failed: BTreeMap<String, String>,
}

/// One plugin.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginOffer {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(string, tag = "2")]
    pub kind: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(bytes = "bytes", tag = "4")]
    pub component: bytes::Bytes,
}

/// Answer to a [`PluginOffer`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginAnswer {
    /// Why it was not loaded.
    #[prost(string, optional, tag = "1")]
    pub refused: Option<String>,
}

/// What a fragment has used so far. Sent now and then between batches, and as the last message of a stream.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Usage {
    #[prost(uint64, tag = "1")]
    pub rows_scanned: u64,
    #[prost(uint64, tag = "2")]
    pub bytes_scanned: u64,
    #[prost(uint64, tag = "3")]
    pub elapsed_ns: u64,
    /// Processor time of functions of plugins.
    #[prost(uint64, tag = "4")]
    pub guest_cpu_ns: u64,
    /// Most memory they had at once.
    #[prost(uint64, tag = "5")]
    pub guest_memory_bytes: u64,
}

/// Answer to [`DESCRIBE`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Announcement {
    #[prost(uint32, tag = "1")]
    pub exchange_version: u32,
    #[prost(string, tag = "2")]
    pub engine_version: String,
    #[prost(string, tag = "3")]
    pub id: String,
    #[prost(uint32, tag = "4")]
    pub asid: u32,
    #[prost(string, tag = "5")]
    pub hostname: String,
    #[prost(string, tag = "6")]
    pub version: String,
    #[prost(string, tag = "7")]
    pub kernel: String,
    #[prost(string, tag = "8")]
    pub capture: String,
    #[prost(uint64, tag = "9")]
    pub events: u64,
    #[prost(uint64, tag = "10")]
    pub events_lost: u64,
    #[prost(message, repeated, tag = "11")]
    pub tables: Vec<AnnouncedTable>,
    #[prost(int64, optional, tag = "12")]
    pub since_ns: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AnnouncedTable {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub description: String,
    #[prost(message, optional, tag = "3")]
    pub schema: Option<protobuf::Schema>,
    #[prost(uint64, tag = "4")]
    pub rows: u64,
    #[prost(uint64, tag = "5")]
    pub bytes: u64,
    #[prost(uint64, tag = "6")]
    pub budget_bytes: u64,
    #[prost(int64, optional, tag = "7")]
    pub oldest_ns: Option<i64>,
    #[prost(int64, optional, tag = "8")]
    pub newest_ns: Option<i64>,
    #[prost(uint64, tag = "9")]
    pub rows_expired: u64,
}

impl Announcement {
    pub fn new(info: AgentInfo, tables: Vec<AnnouncedTable>) -> Self {
        Self {
            exchange_version: EXCHANGE_VERSION,
            engine_version: ENGINE_VERSION.into(),
            id: info.id.as_str().into(),
            asid: info.asid,
            hostname: info.hostname,
            version: info.version,
            kernel: info.kernel,
            capture: info.capture,
            events: info.events,
            events_lost: info.events_lost,
            tables,
            since_ns: info.since_ns,
        }
    }

    /// Why the two builds cannot work together, if they cannot.
    pub fn mismatch(&self) -> Option<String> {
        if self.exchange_version != EXCHANGE_VERSION {
            return Some(format!(
                "the agent speaks exchange version {}, this vizier {EXCHANGE_VERSION}: run the same release on both",
                self.exchange_version
            ));
        }
        (self.engine_version != ENGINE_VERSION).then(|| {
            format!(
                "the agent plans with engine {}, this vizier with {ENGINE_VERSION}: run the same release on both",
                self.engine_version
            )
        })
    }

    pub fn info(&self) -> AgentInfo {
        AgentInfo {
            id: AgentId::new(self.id.as_str()),
            asid: self.asid,
            hostname: self.hostname.clone(),
            version: self.version.clone(),
            kernel: self.kernel.clone(),
            capture: self.capture.clone(),
            events: self.events,
            events_lost: self.events_lost,
            since_ns: self.since_ns,
        }
    }
}

impl AnnouncedTable {
    pub fn schema(&self) -> Result<SchemaRef> {
        let proto = self.schema.as_ref().ok_or_else(|| exec_datafusion_err!("table {} has no schema", self.name))?;
        let schema = Schema::try_from(proto)
            .map_err(|e| DataFusionError::from(e).context(format!("schema of table {}", self.name)))?;
        Ok(Arc::new(schema))
    }

    pub fn state(&self) -> TableOnAgent {
        TableOnAgent {
            rows: self.rows,
            bytes: self.bytes,
            budget_bytes: self.budget_bytes,
            oldest_ns: self.oldest_ns,
            newest_ns: self.newest_ns,
            rows_expired: self.rows_expired,
        }
    }
}

pub(crate) fn decode<M: Message + Default>(bytes: &[u8], what: &str) -> Result<M> {
    M::decode(bytes).map_err(|e| exec_datafusion_err!("cannot read {what}: {e}"))
}
