//! Makes a plugin from its folder: finds a compiler that can make WebAssembly, compiles the Rust crate, turns the module into
//! a component, checks it against the world, puts the manifest in.
//!
//! Used by `cargo xtask guests` for the bundled scripts and by `px plugin build` for everyone else's.
//!
//! ```no_run
//! use std::path::Path;
//!
//! let say = |line: &str| eprintln!("{line}");
//! let toolchain = plugins_build::Toolchain::find(Path::new("target/guests"), &say)?;
//! let built = plugins_build::build_guest(Path::new("plugins/connections"), Path::new("target/pyxis/plugins"), &toolchain, &say)?;
//! println!("{} {}", built.path.display(), built.digest);
//! # Ok::<(), plugins_build::Error>(())
//! ```
#![forbid(unsafe_code)]

mod component;
mod error;
mod guest;
pub mod sdk;
mod std_library;
pub mod template;
mod toolchain;

pub use component::componentize;
pub use error::Error;
pub use guest::{Built, build_guest, build_guests};
pub use toolchain::{Progress, TARGET, Toolchain};
