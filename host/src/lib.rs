//! Runs scripts: admits, compiles, limits, meters and calls WebAssembly components of the world in `wit/script/script.wit`. Knows no
//! table, no cluster and no network: whoever embeds it implements [`backend::Backend`] and [`backend::Sink`].
//!
//! A component passes [`Runtime::load`] (checked against the world, compiled once, kept ahead-of-time compiled on disk) and
//! becomes a [`Script`]: pre-linked, ready in microseconds. [`Script::run`] gives it a store of its own and a slot in the
//! guest pool ([`pool`]), whose threads preempt each other's guests every millisecond. Calls into the host leave the
//! guest's stack, are charged to the run's [`meter::Meter`], and come back as values. What was used and how it ended is
//! the [`RunReport`].
//!
//! ```no_run
//! # use std::sync::Arc;
//! # async fn f(bytes: &[u8], backend: Arc<dyn host::backend::Backend>, sink: Arc<dyn host::backend::Sink>) -> Result<(), host::error::Error> {
//! let runtime = host::Runtime::new(host::Config::default())?;
//! let script = runtime.load(bytes)?;
//! let report = script.run(host::RunRequest::new(backend, sink)).await;
//! println!("{:?} after {} ns", report.result, report.guest_cpu_ns);
//! # Ok(()) }
//! ```
#![deny(unsafe_code)]

pub mod admission;
mod aot;
mod arrays;
pub mod backend;
mod bindings;
pub mod compiler;
mod convert;
mod engine;
pub mod error;
pub mod function;
mod imports;
mod limits;
pub mod meter;
pub mod pool;
mod report;
mod rows;
mod run;
mod runtime;
mod scope;
pub mod slots;
mod state;
pub mod tenant;

pub use admission::Inspection;
pub use host_manifest as manifest;
pub use report::RunReport;
pub use run::RunRequest;
pub use runtime::{Config, Runtime, Script};
