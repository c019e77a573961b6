//! The store from outside: what goes in comes out, whatever happens between.

mod concurrency;
mod limits;
mod model;
mod properties;
