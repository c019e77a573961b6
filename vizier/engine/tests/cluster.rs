//! The engine over real loopback connections, with agents in this process.

#[path = "cluster/data.rs"]
mod data;
#[path = "cluster/errors.rs"]
mod errors;
#[path = "cluster/failures.rs"]
mod failures;
#[path = "cluster/frames.rs"]
mod frames;
#[path = "cluster/functions.rs"]
mod functions;
#[path = "cluster/harness.rs"]
mod harness;
#[path = "cluster/history.rs"]
mod history;
#[path = "cluster/hostile.rs"]
mod hostile;
#[path = "cluster/malformed.rs"]
mod malformed;
#[path = "cluster/plans.rs"]
mod plans;
#[path = "cluster/policy.rs"]
mod policy;
#[path = "cluster/shapes.rs"]
mod shapes;
