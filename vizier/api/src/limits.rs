//! Bounds and names both sides must agree on.

/// Largest component a client may send. The bundled Rust scripts are tens of kB, a JavaScript guest with its interpreter
/// 1.6 MB, a Python one 18 MB: this leaves room for the last with its libraries.
pub const COMPONENT_BYTES_MAX: usize = 32 << 20;
/// Largest request: a component, its arguments and some room for the envelope.
pub const REQUEST_BYTES_MAX: usize = COMPONENT_BYTES_MAX + (1 << 20);
/// Batches are cut so that one message stays below this (a batch of one row may exceed it, up to `RESPONSE_BYTES_MAX`).
pub const BATCH_BYTES_TARGET: usize = 1 << 20;
/// Largest response a client must be ready to decode. One row may hold a few bodies of 1 MiB.
pub const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// Key of gRPC status metadata that carries what to do about an error.
pub const HINT_KEY: &str = "pyxis-hint-bin";

/// The name PEMs expect in Vizier's certificate, whatever address they dial.
pub const VIZIER_TLS_NAME: &str = "vizier.pyxis.internal";
/// What follows an agent's id in the name of its certificate.
pub const AGENT_TLS_SUFFIX: &str = ".agent.pyxis.internal";
