//! Who an agent (a PEM) is.

use std::fmt;
use std::sync::Arc;

/// Identity of a PEM: stable over its restarts, unique in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(Arc<str>);

/// What an agent says about itself when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentInfo {
    /// Identity.
    pub id: AgentId,
    /// Short id, the first part of every upid made on this node. No two agents may have the same one.
    pub asid: u32,
    /// Name of the machine.
    pub hostname: String,
    /// Version of the agent's build.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// How it captures: `socket`, `sys_exit`, `syscalls`, `replay`, `replay_live`, `none`.
    pub capture: String,
    /// Events taken from the kernel since start.
    pub events: u64,
    /// Events lost since start, for any reason.
    pub events_lost: u64,
    /// Since when its tables hold what happened, ns since the epoch: its start. `None` where no such moment exists, as in a
    /// replay.
    pub since_ns: Option<i64>,
}

impl AgentId {
    /// From its text.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for AgentId {
    fn from(id: &str) -> Self {
        Self::new(id)
    }
}
