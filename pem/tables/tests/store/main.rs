//! The store from outside: what goes in comes out, whatever happens between.

mod concurrency;
mod declared;
mod limits;
mod model;
mod properties;
