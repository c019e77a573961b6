//! Just enough HTTP/1.1 for the shop: a server with a thread per connection and a client that keeps its connections.

mod client;
mod message;
mod server;

pub use client::Client;
pub use message::{Request, Response};
pub use server::{Handler, serve};
