//! The query engine across nodes: plans on Vizier, cuts each plan, runs what is local to a node on the PEMs, merges the rest.
//!
//! How a query passes through:
//! [`frame`] (scripts) and SQL become one DataFusion logical plan → [`policy`] is put below every scan → planned by
//! DataFusion → [`cut`] gives the part that each PEM can do by itself to a [`remote::RemoteExec`] → it travels as a
//! *fragment* over the connection which the PEM dialled ([`exchange`]) → the PEM runs it beside its tables ([`leaf`]) →
//! Arrow batches come back and are merged. What a node could not give is a named gap ([`query::Query::missing`]), never an
//! error; the query's own fault is an error, never a gap.
#![forbid(unsafe_code)]

pub mod agent;
mod codec;
pub mod completeness;
pub mod cut;
pub mod engine;
pub mod error;
pub mod exchange;
mod explain;
pub mod frame;
pub mod functions;
mod guard;
pub mod leaf;
mod local;
pub mod policy;
mod present;
mod provider;
pub mod query;
pub mod remote;
mod rules;
mod session;
mod subquery;
mod yielding;

pub use agent::{AgentId, AgentInfo};
pub use engine::{Engine, EngineConfig};
pub use exchange::Registry;
pub use functions::FunctionComponent;
pub use query::{Query, QueryContext};
