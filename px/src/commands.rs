//! One file per command.

pub mod agents;
pub mod announce;
pub mod completion;
pub mod doctor;
pub mod internal;
pub mod listing;
pub mod plugin;
pub mod record;
pub mod run;
pub mod scripts;
pub mod sql;
pub mod tables;
pub mod up;
pub mod version;
