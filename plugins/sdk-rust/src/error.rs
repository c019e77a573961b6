//! Failing.

use crate::bindings::pyxis::common::types::Error;

/// What every call of the host gives, and what a script returns.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Any error as the script's own: `text.parse::<u64>().map_err(failed)?`.
pub fn failed(why: impl core::fmt::Display) -> Error {
    Error::Failed(why.to_string())
}

/// Returns from the function with an error of the script's own: `fail!("no such service: {name}")`.
#[macro_export]
macro_rules! fail {
    ($($arg:tt)+) => {
        return ::core::result::Result::Err($crate::Error::Failed(::std::format!($($arg)+)))
    };
}
