//! Functions of our own, the same on Vizier and on every PEM. Beside them SQL has DataFusion's, without those that would
//! make a result depend on more than its input (`random`, `uuid`).
//!
//! | function | gives |
//! |---|---|
//! | `upid_asid(upid)` | short id of the agent |
//! | `upid_pid(upid)` | process id |
//! | `upid_start(upid)` | start of the process, in clock ticks since the machine started |
//! | `upid_string(upid)` | `asid:pid:start` |
//! | `path_pattern(path)` | the path with what identifies one thing replaced by `*`, without its query |
//! | `trace_role_name(trace_role)` | `client`, `server`, `unknown` |
//! | `protocol_name(protocol)` | `http`, `mysql`, … |
//! | `quantile(x, q)` | the value below which a share `q` of the values lies, within 1 % of it; merges across nodes |

mod dictionary;
mod fuse;
mod names;
mod path;
pub(crate) mod patient;
pub(crate) mod plugin;
mod quantile;
mod sketch;
mod upid;

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

pub(crate) use fuse::{fuse_quantiles, plain_arguments};
pub(crate) use patient::patient;
pub use plugin::FunctionComponent;
pub(crate) use quantile::check;
pub use sketch::{RELATIVE_ERROR, Sketch};

/// Scalar functions, for whoever builds a session of their own (tests compare with a single node).
pub fn scalars() -> Vec<Arc<ScalarUDF>> {
    let mut all: Vec<ScalarUDF> = upid::Part::ALL.into_iter().map(|part| upid::Upid::new(part).into()).collect();
    all.push(path::PathPattern::default().into());
    all.extend(names::Decoder::ALL.into_iter().map(|decoder| names::Named::new(decoder).into()));
    all.push(quantile::SketchQuantile::default().into());
    all.into_iter().map(Arc::new).collect()
}

/// Aggregate functions, likewise.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(quantile::Quantile::default().into()), Arc::new(quantile::SketchOf::default().into())]
}
