//! Runs sandboxed components: compiles, limits, meters and calls them.
#![deny(unsafe_code)]

pub mod backend;
pub mod error;
pub mod meter;
