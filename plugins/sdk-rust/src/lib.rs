//! Writes Pyxis scripts in Rust.
//!
//! A script builds lazy [`Frame`]s and displays them. Nothing it writes down runs in the script itself: the host optimises
//! the whole and runs it beside the data, on every node. So a script costs microseconds, whatever it asks about.
//!
//! ```
//! use pyxis_sdk::prelude::*;
//!
//! pyxis_sdk::script!(run);
//!
//! fn run(args: Args) -> Result<()> {
//!     let requests = table("http_events")?.filter("resp_status >= 400")?;
//!     requests
//!         .aggregate(
//!             [col("req_path").named("path")],
//!             [count().named("errors"), quantile("latency", 0.99).named("p99")],
//!         )?
//!         .sort([desc("errors")])?
//!         .limit(args.count("limit")?)?
//!         .display("errors")
//! }
//! # fn main() {}
//! ```
//!
//! # Expressions
//!
//! Expressions are SQL text, checked against the columns at once; a mistake comes back as an [`Error`] that says where in
//! the text it is. [`col`], [`lit`], [`count`], [`avg`] and the like build the same text with values quoted properly.
//! One rule tells the two uses of text apart: where an *expression* is expected, text is SQL (`avg("latency / 1e6")`); where
//! a *value* is expected, it is a value (`col("req_method").eq("GET")`), so that an argument never becomes SQL.
//!
//! # Rows
//!
//! A script that computes something SQL cannot asks for rows by column with [`Frame::collect`], and gives rows back with
//! [`Columns`]:
//!
//! ```
//! # use pyxis_sdk::prelude::*;
//! fn slowest(frame: &Frame) -> Result<()> {
//!     let mut worst = 0;
//!     for batch in frame.collect()? {
//!         let batch = batch?;
//!         worst = batch.int64("latency")?.into_iter().fold(worst, i64::max);
//!     }
//!     Columns::new().duration_ns("worst", [worst]).emit("worst")
//! }
//! ```
//!
//! # Functions
//!
//! A plugin can also bring functions for SQL: see [`function`](mod@function).
//!
//! # What a script cannot do
//!
//! There are no files, sockets, environment, randomness or clock but [`clock`]. A panic ends the run and is reported with
//! its message and place; prefer returning an [`Error`].

pub mod args;
pub mod batch;
/// What wit-bindgen makes of `wit/script/script.wit`. Here for the unusual; the rest of the crate is easier to use.
#[allow(missing_docs, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit/common", "../../wit/script"],
        world: "pyxis:script/script",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "pyxis_sdk::bindings",
    });
}
pub mod clock;
pub mod columns;
pub mod error;
pub mod expr;
pub mod frame;
pub mod function;
pub mod log;
#[doc(hidden)]
pub mod script;
pub mod services;

pub use args::Args;
pub use batch::{Batch, Rows};
pub use bindings::pyxis::common::types::{Budget, DataType, Error, Mistake, Position, Scalar};
pub use bindings::pyxis::script::tables::JoinKind;
pub use columns::Columns;
pub use error::{Result, failed};
pub use expr::{
    Expr, Named, SortKey, asc, avg, col, count, count_distinct, count_where, desc, expr, lit, max, min, quantile, sum,
};
pub use frame::{Frame, inline, sql, table, tables, view};

/// Everything a script usually needs.
pub mod prelude {
    pub use crate::{
        Args, Batch, Columns, Error, Expr, Frame, JoinKind, Named, Result, Scalar, SortKey, asc, avg, clock, col,
        count, count_distinct, count_where, debug, desc, error, expr, fail, failed, info, lit, max, min, quantile,
        services, sql, sum, table, trace, warn,
    };
}
