//! No code: a list of every third-party crate of the workspace.
//!
//! Cargo unites the features of the packages it is asked to build. Asked for one crate alone it would choose fewer
//! features for a shared dependency than when asked for all, and compile DataFusion a second time. Selecting this package
//! beside a crate (`cargo test -p pem-tables -p xtask-deps`) keeps the choice the same, and building it alone is what a
//! cold build spends most of its time on. A structure test asserts that it names every third-party dependency.
#![forbid(unsafe_code)]
