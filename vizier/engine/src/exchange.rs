//! The connection between a PEM and its Vizier.
//!
//! The PEM dials, so that nothing listens on a node; once connected the roles turn: the PEM *serves* HTTP/2 on the socket
//! it dialled ([`serve`]) and Vizier is the client ([`Registry::adopt`]). Both ends take anything that reads and writes
//! bytes; TLS is the caller's. Callers must set `TCP_NODELAY` on both ends (88 ms a query became 2.5 in a trial).
//!
//! One Flight `do_get` per query and PEM carries a fragment there and Arrow batches back; `do_action("describe")` asks who
//! the agent is and what tables it has, two more bring it [`plugins`].

pub(crate) mod batches;
mod io;
mod plugins;
mod registry;
mod server;
mod sessions;
pub(crate) mod wire;

use std::time::Duration;

pub use plugins::{AgentPlugins, PLUGINS_MAX, Plugin, PluginHandler};
pub use registry::{AdoptError, AgentState, AgentStatus, Registry, TableOnAgent, TableStatus};
pub(crate) use registry::{TableDef, View, client};
pub(crate) use server::FragmentCx;
pub use server::{Activity, Limits, serve};

/// Version of the messages between PEM and Vizier. Raised with any change of [`wire`].
pub const EXCHANGE_VERSION: u32 = 4;
/// Plans cross in DataFusion's own encoding, which is only promised within one version.
pub const ENGINE_VERSION: &str = datafusion::DATAFUSION_VERSION;

/// How often an idle connection is probed. With 1 s healthy PEMs were dropped under load; speed of noticing comes from the
/// query's deadline, this only ends what is dead.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Without an answer to the probe for so long, the connection is dead.
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// What one unread query may keep in flight per PEM: bounds the memory of a stalled query.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The connection's window must never be the limit, or a few unread queries starve every other one (with 16 MB the ninth
/// query hung behind eight unread ones).
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Largest message either side takes. Batches are cut far below; a single row may be large.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Time for the handshake and the first `describe`.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
