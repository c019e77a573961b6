//! The tables of a PEM: what they hold ([`spec`], [`catalog`]) and the store that keeps their recent past in memory.
//!
//! A row is appended by the one writer of its table, becomes visible at the next [`Appender::publish`] as plain Arrow in a
//! chunk, is encoded into a sealed batch together with some thousands of its neighbours, and goes with its batch when the
//! table's byte budget is used up:
//!
//! ```text
//! append -> builder -(publish)-> hot chunks -(seal)-> sealed batches -(budget)-> gone
//!                                └──────── snapshot: what a scan reads ───────┘
//! ```
//!
//! Readers take an immutable snapshot, so a query never blocks ingest and ingest never blocks a query. Nothing here reads a
//! clock: the same appends and publishes give the same bytes.
//!
//! ```
//! use pem_tables::{Store, StoreConfig, TimeRange, Value, catalog};
//!
//! let store = Store::new(StoreConfig::default(), catalog::ALL);
//! let table = store.table("proc_exit_events").unwrap();
//! let mut appender = table.appender();
//! appender.append(&[Value::Time(17), Value::U128(1), Value::Int(0), Value::Int(-1), Value::Str("sh")]).unwrap();
//! appender.publish(20);
//! let batches: Vec<_> = table.scan(TimeRange::ALL, Some(&[0, 4])).collect();
//! assert_eq!(batches[0].num_rows(), 1);
//! ```

#![forbid(unsafe_code)]

mod arrays;
mod builder;
pub mod catalog;
mod chunk;
mod encode;
mod intern;
mod predicate;
mod scan;
mod sealed;
mod segment;
pub mod spec;
mod store;
mod table;
mod value;
mod writer;

pub use predicate::{Literal, Predicate};
pub use scan::{Scan, ScanCounts, TimeRange};
pub use segment::{BatchStats, ColumnStats};
pub use store::{AddError, Store, StoreConfig};
pub use table::{Appender, Table, TableStats};
pub use value::{AppendError, STRING_BYTES_MAX, Value};
