//! Table functions: constant arguments in, batches of rows out.

use core::cell::RefCell;

use crate::bindings::pyxis::common::types::{Rows, Scalar};
use crate::{Columns, Error};

/// Arguments of a table function, by position. Those that were left out are none.
pub struct Arguments(Vec<Scalar>);

impl Arguments {
    #[doc(hidden)]
    pub fn new(arguments: Vec<Scalar>) -> Self {
        Self(arguments)
    }

    /// A whole number, time or duration.
    pub fn int64(&self, index: usize) -> Option<i64> {
        match self.0.get(index)? {
            Scalar::Int64(v) | Scalar::TimeNs(v) | Scalar::DurationNs(v) => Some(*v),
            _ => None,
        }
    }

    /// A number.
    pub fn float64(&self, index: usize) -> Option<f64> {
        match self.0.get(index)? {
            Scalar::Float64(v) => Some(*v),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, index: usize) -> Option<&str> {
        match self.0.get(index)? {
            Scalar::Utf8(v) => Some(v),
            _ => None,
        }
    }

    /// True or false.
    pub fn boolean(&self, index: usize) -> Option<bool> {
        match self.0.get(index)? {
            Scalar::Boolean(v) => Some(*v),
            _ => None,
        }
    }
}

/// A cursor of the contract.
#[doc(hidden)]
pub struct Cursor(RefCell<Box<dyn Iterator<Item = Columns>>>);

impl Cursor {
    pub fn of(batches: impl Iterator<Item = Columns> + 'static) -> Self {
        Self(RefCell::new(Box::new(batches)))
    }

    pub fn next(&self) -> Result<Option<Rows>, Error> {
        self.0.borrow_mut().next().map(Columns::try_into_rows).transpose()
    }
}
