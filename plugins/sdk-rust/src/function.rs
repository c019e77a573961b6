//! Writes function plugins: functions that scripts and SQL call by name, beside the rows, a batch at a time.
//!
//! `plugin.toml` declares each function (`[[exports]]`), and [`functions!`](crate::functions) names the Rust behind it: scalar
//! functions are plain functions of a row's values, aggregates types that are [`Aggregate`]s, table functions give an iterator of
//! [`Columns`].
//!
//! ```
//! use pyxis_sdk::function::{Aggregate, Arguments};
//! use pyxis_sdk::{Columns, Result};
//!
//! pyxis_sdk::functions! {
//!     scalar { shout(&str) -> String }
//!     aggregate { longest: Longest }
//!     table { squares }
//! }
//!
//! fn shout(text: &str) -> String {
//!     text.to_uppercase()
//! }
//!
//! #[derive(Default)]
//! struct Longest(i64);
//!
//! impl Aggregate for Longest {
//!     type Input<'a> = (&'a str,);
//!     type Output = i64;
//!     fn add(&mut self, (text,): (&str,)) {
//!         self.0 = self.0.max(text.len() as i64);
//!     }
//!     fn merge(&mut self, other: Self) {
//!         self.0 = self.0.max(other.0);
//!     }
//!     fn save(&self) -> Vec<u8> {
//!         self.0.to_le_bytes().to_vec()
//!     }
//!     fn load(bytes: &[u8]) -> Option<Self> {
//!         Some(Self(i64::from_le_bytes(bytes.try_into().ok()?)))
//!     }
//!     fn value(self) -> i64 {
//!         self.0
//!     }
//! }
//!
//! fn squares(args: &Arguments) -> Result<impl Iterator<Item = Columns> + 'static> {
//!     let most = args.int64(0).unwrap_or(10);
//!     Ok(std::iter::once(Columns::new().int64("square", (0..most).map(|n| n * n))))
//! }
//! # fn main() {}
//! ```
//!
//! A null argument makes a scalar function's value null and is not added to an aggregate, so plain types will do; with `nulls =
//! "pass"` in `plugin.toml` take `Option<T>`.

/// What wit-bindgen makes of `wit/function/function.wit`.
#[allow(missing_docs, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit/common", "../../wit/function"],
        world: "pyxis:function/function",
        with: {
            "pyxis:common/types@0.1.0": crate::bindings::pyxis::common::types,
            "pyxis:common/log@0.1.0": crate::bindings::pyxis::common::log,
        },
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "pyxis_sdk::function::bindings",
    });
}

mod accumulator;
mod column;
mod table;

pub use accumulator::{Aggregate, FromRow, Grouping, Groups};
pub use column::{Column, Duration, FromColumn, Output, Time};
pub use table::{Arguments, Cursor};

use crate::{Error, Mistake};

/// There is no such function: `plugin.toml` declares one that the code does not have.
#[doc(hidden)]
pub fn unknown(function: &str) -> Error {
    Error::NotFound(Mistake {
        message: format!("the code has no function `{function}`"),
        hint: Some("plugin.toml and functions! must name the same functions".into()),
        position: None,
    })
}

/// Makes a crate's functions those of its plugin. The names are those of `plugin.toml`; see [`function`](mod@crate::function).
#[macro_export]
macro_rules! functions {
    (
        $(scalar { $($scalar:ident ( $($argument:ty),* $(,)? ) -> $returns:ty),* $(,)? })?
        $(aggregate { $($aggregate:ident : $accumulator:ty),* $(,)? })?
        $(table { $($table:ident),* $(,)? })?
    ) => {
        #[doc(hidden)]
        struct PyxisFunctions;

        // A plugin need not have all three kinds.
        #[allow(unused_variables, unused_mut)]
        const _: () = {
            use $crate::bindings::pyxis::common::types::{ColumnValues, Error, Rows, Scalar};
            use $crate::function::bindings::exports::pyxis::function as contract;
            use $crate::function::bindings::pyxis::function::arguments::Argument;

            impl contract::scalars::Guest for PyxisFunctions {
                fn call(
                    function: ::std::string::String,
                    rows: u32,
                    arguments: ::std::vec::Vec<Argument>,
                ) -> ::core::result::Result<ColumnValues, Error> {
                    $crate::script::report_panics();
                    match function.as_str() {
                        $($(stringify!($scalar) => {
                            let columns = $crate::function::Column::all(arguments);
                            let mut out = <$returns as $crate::function::Output>::builder(rows as usize);
                            for row in 0..rows as usize {
                                let mut columns = columns.iter();
                                <$returns as $crate::function::Output>::push(
                                    &mut out,
                                    $scalar($($crate::function::Column::next::<$argument>(&mut columns, row)),*),
                                );
                            }
                            ::core::result::Result::Ok(<$returns as $crate::function::Output>::finish(out))
                        })*)?
                        other => ::core::result::Result::Err($crate::function::unknown(other)),
                    }
                }
            }

            impl contract::aggregates::Guest for PyxisFunctions {
                type Accumulator = PyxisAccumulator;
            }

            pub struct PyxisAccumulator($crate::function::Grouping);

            impl contract::aggregates::GuestAccumulator for PyxisAccumulator {
                fn make(
                    function: ::std::string::String,
                ) -> ::core::result::Result<contract::aggregates::Accumulator, Error> {
                    $crate::script::report_panics();
                    match function.as_str() {
                        $($(stringify!($aggregate) => ::core::result::Result::Ok(contract::aggregates::Accumulator::new(
                            PyxisAccumulator($crate::function::Grouping::of::<$accumulator>()),
                        )),)*)?
                        other => ::core::result::Result::Err($crate::function::unknown(other)),
                    }
                }
                fn update(
                    &self,
                    groups: ::std::vec::Vec<u32>,
                    count: u32,
                    arguments: ::std::vec::Vec<Argument>,
                ) -> ::core::result::Result<(), Error> {
                    self.0.update(groups, count, arguments)
                }
                fn merge(
                    &self,
                    groups: ::std::vec::Vec<u32>,
                    count: u32,
                    states: ColumnValues,
                ) -> ::core::result::Result<(), Error> {
                    self.0.merge(groups, count, states)
                }
                fn state(&self, first: u32) -> ::core::result::Result<ColumnValues, Error> {
                    self.0.state(first)
                }
                fn evaluate(&self, first: u32) -> ::core::result::Result<ColumnValues, Error> {
                    self.0.evaluate(first)
                }
            }

            impl contract::tables::Guest for PyxisFunctions {
                type Cursor = PyxisCursor;
            }

            pub struct PyxisCursor($crate::function::Cursor);

            impl contract::tables::GuestCursor for PyxisCursor {
                fn open(
                    function: ::std::string::String,
                    arguments: ::std::vec::Vec<Scalar>,
                ) -> ::core::result::Result<contract::tables::Cursor, Error> {
                    $crate::script::report_panics();
                    let arguments = $crate::function::Arguments::new(arguments);
                    match function.as_str() {
                        $($(stringify!($table) => ::core::result::Result::Ok(contract::tables::Cursor::new(
                            PyxisCursor($crate::function::Cursor::of($table(&arguments)?)),
                        )),)*)?
                        other => ::core::result::Result::Err($crate::function::unknown(other)),
                    }
                }
                fn next(&self) -> ::core::result::Result<::core::option::Option<Rows>, Error> {
                    self.0.next()
                }
            }
        };

        $crate::function::bindings::export!(PyxisFunctions with_types_in $crate::function::bindings);
    };
}
