//! A harness that runs the real Pyxis against real programs, from outside: it starts `px up` on folders of its own, makes
//! traffic on loopback, asks with `px`, and compares.
//!
//! Nothing of the product is linked here. A test that needs root, a kernel feature or a program says so and does nothing
//! where that is missing ([`needs`]).
#![forbid(unsafe_code)]

pub mod fleet;
pub mod load;
pub mod needs;
pub mod proc;
pub mod programs;
pub mod pyxis;
pub mod registry;
pub mod server;

pub use fleet::Fleet;
pub use needs::Need;
pub use pyxis::Pyxis;
pub use registry::Registry;
pub use server::Server;

/// What tests return: a failure is told with its whole chain.
pub type Result<T = ()> = anyhow::Result<T>;
