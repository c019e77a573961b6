//! Compact forms of columns that never change again.
//!
//! Which form a column of a batch takes follows from its values alone, so that the same rows always give the same bytes. Every
//! form decodes in one pass to plain Arrow.

mod bits;
mod column;
mod dictionary;
mod ints;

pub(crate) use column::{Column, Encoder, Shared};
