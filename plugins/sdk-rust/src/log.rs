//! Messages to whoever runs the script: [`trace!`](crate::trace), [`debug!`](crate::debug), [`info!`](crate::info),
//! [`warn!`](crate::warn), [`error!`](crate::error), used like `println!`. A line is cut at 4 KiB; lines past the run's log
//! budget are dropped and counted.

pub use crate::bindings::pyxis::common::log::Level;

/// Writes a line.
pub fn write(level: Level, message: &str) {
    crate::bindings::pyxis::common::log::log(level, message);
}

/// Logs the finest detail.
#[macro_export]
macro_rules! trace {
    ($($arg:tt)+) => { $crate::log::write($crate::log::Level::Trace, &::std::format!($($arg)+)) };
}
/// Logs for the script's author.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)+) => { $crate::log::write($crate::log::Level::Debug, &::std::format!($($arg)+)) };
}
/// Logs for whoever runs the script.
#[macro_export]
macro_rules! info {
    ($($arg:tt)+) => { $crate::log::write($crate::log::Level::Info, &::std::format!($($arg)+)) };
}
/// Logs that something is odd.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)+) => { $crate::log::write($crate::log::Level::Warn, &::std::format!($($arg)+)) };
}
/// Logs that something is wrong.
#[macro_export]
macro_rules! error {
    ($($arg:tt)+) => { $crate::log::write($crate::log::Level::Error, &::std::format!($($arg)+)) };
}
