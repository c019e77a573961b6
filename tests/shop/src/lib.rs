//! A small shop of real programs on loopback, for the demo and the tests to watch.
//!
//! `shop-client` asks `shop-frontend`, which asks `shop-catalog` (fast) and `shop-checkout` (slow and flaky on purpose);
//! checkout asks catalog as well. Each is a process of its own, speaks plain HTTP/1.1 and knows nothing of Pyxis. They
//! mix what real traffic mixes: ids in paths, several methods, 2xx to 5xx, keep-alive and close, bodies with a length and
//! in chunks.
//!
//! A service ends when its standard input does, so that none outlives whoever started it, however that one died.
#![forbid(unsafe_code)]

pub mod http;
pub mod program;
pub mod random;
pub mod service;
