//! One run, from the request to the last byte of its result.

pub mod args;
pub mod completeness;
pub mod driver;
pub mod request;
pub mod selection;
pub mod statistics;
