//! What `px up` is: a process that starts the parts, keeps them running, and ends them in order.
//!
//! ```text
//! px up ─┬─ px __helper    privileged: loads and attaches, hands descriptors over
//!        ├─ px __vizier    unprivileged: serves clients, runs scripts and queries
//!        └─ px __pem       unprivileged: reads, parses, stores, dials Vizier
//! ```
//! Each child gets its [`roles`] as one line of JSON on its stdin. That pipe then stays open: its end tells the child that the
//! supervisor is gone, however it went. Started by root, the supervisor keeps its capabilities (it has to start helpers), so
//! it decodes nothing that comes from the unprivileged side: even the words of welcome are a child's.

pub mod child;
pub mod folders;
pub mod keeper;
pub mod roles;
pub mod users;
