//! The PEM, the edge module: one per machine.
//!
//! ```text
//! probes (ring) ─┐
//! sources (/proc)├─▶ input ─▶ core ─▶ conns ─▶ protocols ─▶ pem-tables
//! recording ─────┘              └────────────────────────────▶
//! ```
//!
//! Everything that enters the tables is an [`input::Input`]; [`core::Core`] is pure, so a recording of the inputs replays
//! to the same tables.
#![deny(unsafe_code)]

pub mod agent;
pub mod conns;
pub mod core;
pub mod identity;
pub mod input;
pub mod metadata;
pub mod plugins;
#[allow(unsafe_code, reason = "maps rings and loads kernel programs; each block says why it is sound")]
pub mod probes;
pub mod protocols;
pub mod recording;
pub mod sandbox;
pub mod sources;
pub mod upid;
