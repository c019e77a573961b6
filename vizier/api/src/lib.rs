//! What Vizier offers its clients, as gRPC: see `proto/vizier.proto`, which is the contract and says what each message means.
//!
//! Messages are always there; [`client`] and [`server`] come by features of the same name (both by default), and [`ipc`],
//! which turns Arrow schemas and batches into the bytes the messages carry and back, by the feature `arrow`.
#![forbid(unsafe_code)]

#[cfg(feature = "arrow")]
pub mod ipc;
mod limits;

pub use limits::*;

#[allow(clippy::all, missing_docs, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/pyxis.vizier.v1.rs"));
}

pub use generated::*;

/// The stub that calls a Vizier.
#[cfg(feature = "client")]
pub mod client {
    pub use crate::generated::vizier_client::VizierClient;
}

/// The trait that a Vizier implements.
#[cfg(feature = "server")]
pub mod server {
    pub use crate::generated::vizier_server::{SERVICE_NAME, Vizier, VizierServer};
}

/// The encoded `FileDescriptorSet` of the contract, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
