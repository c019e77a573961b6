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
pub mod agent;
pub mod conns;
pub mod core;
pub mod identity;
pub mod input;
pub mod metadata;
pub mod probes;
pub mod protocols;
pub mod recording;
pub mod sandbox;
pub mod sources;
pub mod upid;
