//! The three services, each a function from a request to a response.

pub mod catalog;
pub mod checkout;
pub mod frontend;
