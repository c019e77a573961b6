//! Aggregates: one value of the author's type for each group.

use core::cell::RefCell;

use super::bindings::pyxis::function::arguments::Argument;
use super::column::{Column, FromColumn, Output};
use crate::Error;
use crate::bindings::pyxis::common::types as wit;

/// What an aggregate keeps of the rows of a group. [`Default`] is a group without rows.
pub trait Aggregate: Default + 'static {
    /// The arguments, as a tuple: `(&'a str,)`, `(f64, i64)`.
    type Input<'a>: FromRow<'a>;
    /// What it gives; `Option` where a group without rows has no value.
    type Output: Output;
    /// One more row.
    fn add(&mut self, input: Self::Input<'_>);
    /// The rows of another, too: gives what adding all of them here would have given.
    fn merge(&mut self, other: Self);
    /// Itself as bytes, for another node.
    fn save(&self) -> Vec<u8>;
    /// The reverse; none where these are no such bytes.
    fn load(bytes: &[u8]) -> Option<Self>;
    /// The value.
    fn value(self) -> Self::Output;
}

/// The arguments in one row.
pub trait FromRow<'a> {
    /// Takes them.
    fn from_row(columns: &'a [Column], row: usize) -> Self;
}

macro_rules! rows {
    ($($name:ident),+) => {
        impl<'a, $($name: FromColumn<'a>),+> FromRow<'a> for ($($name,)+) {
            fn from_row(columns: &'a [Column], row: usize) -> Self {
                let mut columns = columns.iter();
                ($(Column::next::<$name>(&mut columns, row),)+)
            }
        }
    };
}

rows!(A);
rows!(A, B);
rows!(A, B, C);
rows!(A, B, C, D);

/// Groups of any aggregate.
pub trait Groups {
    #[doc(hidden)]
    fn update(&mut self, groups: &[u32], count: usize, columns: &[Column]);
    #[doc(hidden)]
    fn merge(&mut self, groups: &[u32], count: usize, states: &Column) -> Result<(), Error>;
    #[doc(hidden)]
    fn state(&mut self, first: usize) -> wit::ColumnValues;
    #[doc(hidden)]
    fn evaluate(&mut self, first: usize) -> wit::ColumnValues;
}

impl<A: Aggregate> Groups for Vec<A> {
    fn update(&mut self, groups: &[u32], count: usize, columns: &[Column]) {
        self.resize_with(count.max(self.len()), A::default);
        for (row, group) in groups.iter().enumerate() {
            self[*group as usize].add(<A::Input<'_> as FromRow<'_>>::from_row(columns, row));
        }
    }

    fn merge(&mut self, groups: &[u32], count: usize, states: &Column) -> Result<(), Error> {
        self.resize_with(count.max(self.len()), A::default);
        for (row, group) in groups.iter().enumerate() {
            let bytes = <&[u8]>::from_column(states, row);
            let other = A::load(bytes).ok_or_else(|| crate::failed("a state came that cannot be read"))?;
            self[*group as usize].merge(other);
        }
        Ok(())
    }

    fn state(&mut self, first: usize) -> wit::ColumnValues {
        let mut out = <Vec<u8> as Output>::builder(first);
        self.drain(..first).for_each(|group| <Vec<u8> as Output>::push(&mut out, group.save()));
        <Vec<u8> as Output>::finish(out)
    }

    fn evaluate(&mut self, first: usize) -> wit::ColumnValues {
        let mut out = A::Output::builder(first);
        self.drain(..first).for_each(|group| A::Output::push(&mut out, group.value()));
        A::Output::finish(out)
    }
}

/// An accumulator of the contract.
#[doc(hidden)]
pub struct Grouping(RefCell<Box<dyn Groups>>);

impl Grouping {
    pub fn of<A: Aggregate>() -> Self {
        Self(RefCell::new(Box::new(Vec::<A>::new())))
    }

    pub fn update(&self, groups: Vec<u32>, count: u32, arguments: Vec<Argument>) -> Result<(), Error> {
        self.0.borrow_mut().update(&groups, count as usize, &Column::all(arguments));
        Ok(())
    }

    pub fn merge(&self, groups: Vec<u32>, count: u32, states: wit::ColumnValues) -> Result<(), Error> {
        self.0.borrow_mut().merge(&groups, count as usize, &Column::of_values(states))
    }

    pub fn state(&self, first: u32) -> Result<wit::ColumnValues, Error> {
        Ok(self.0.borrow_mut().state(first as usize))
    }

    pub fn evaluate(&self, first: u32) -> Result<wit::ColumnValues, Error> {
        Ok(self.0.borrow_mut().evaluate(first as usize))
    }
}
