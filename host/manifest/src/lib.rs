//! What a plugin says about itself: `plugin.toml` in its folder, the same as JSON in the component's custom section
//! `pyxis.manifest`. The builder writes it, the host reads it, clients show it; so it is a crate of its own, without the
//! runtime.
//!
//! ```
//! let manifest = host_manifest::Manifest::from_toml(
//!     r#"
//!     name = "errors"
//!     version = "0.1.0"
//!     description = "Requests that failed"
//!     tables = ["http_events"]
//!     [[args]]
//!     name = "limit"
//!     type = "int64"
//!     default = 50
//!     "#,
//! )?;
//! assert_eq!(manifest.args[0].name, "limit");
//! # Ok::<(), host_manifest::Error>(())
//! ```
#![forbid(unsafe_code)]

mod args;
mod check;
pub mod function;
mod manifest;
mod position;
pub mod protocol;
pub mod section;
#[cfg(test)]
mod tests;

pub use args::{Arg, ArgType, Value, parse_duration};
pub use check::nearest;
pub use manifest::{
    Budget, Column, Error, FUNCTION_WORLD, Follow, Format, Kind, Manifest, Output, PROTOCOL_WORLD, Sort, View, WORLD,
    Widget,
};
pub use position::Position;
