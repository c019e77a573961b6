//! The part of Pyxis that there is one of: runs scripts and SQL for clients, over the PEMs that dialled it.
//!
//! A request passes through:
//! [`service`] (gRPC, decodes and encodes only) → `request` (checked: which script, which arguments, which range, which
//! budget) → `runs` (admitted, or told that Vizier is busy) → `run` (one round or many: the guest runs in `host`, its
//! frames are planned and distributed by `vizier_engine`, batches go to the client as it takes them) → history.
//! PEMs come in through [`agents`]; the engine owns their links.
#![forbid(unsafe_code)]

pub mod agents;
pub mod catalog;
pub mod config;
mod functions;
pub mod pki;
pub mod plugins;
mod request;
mod run;
pub mod runs;
pub mod scripts;
pub mod server;
pub mod service;
pub mod socket;
mod status;
pub mod tenants;
pub mod tls;

pub use config::{Config, Limits};
pub use server::{Error, Ready, Server, run};
