//! The probe path: from the kernel programs to raw records in this process.
//!
//! Two processes share it. The *helper* ([`helper`]) is privileged: it loads and attaches the kernel programs ([`load`]),
//! gives up every capability it no longer needs, and hands the descriptors of the event ring and the counters over a Unix
//! socket, on which it also answers a short list of questions about other processes ([`wire`]). The PEM is not: with a
//! [`client::Helper`] it takes the descriptors, maps them ([`ring`], [`counters`]) and reads.
//! The state of connections stays in the kernel and is never handed over: whoever holds a map may write it.
//!
//! This is the one module of the crate with `unsafe` in it: mapping memory, passing descriptors, dropping privileges.

pub mod btf;
pub mod client;
pub mod counters;
pub mod doctor;
pub mod helper;
pub mod load;
pub mod offsets;
mod privileges;
mod procfs;
pub mod ring;
pub mod wire;

pub use client::Helper;
pub use counters::Counters;
pub use load::{Capture, ProbeStatus, ProgramStats, Status};
pub use ring::Reader;
