//! Errors by who has to act.

use thiserror::Error;

/// What went wrong with a run, a component or a frame.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// The script asked for something that does not exist.
    #[error("{message}")]
    NotFound {
        /// What was asked for.
        message: String,
        /// The nearest thing that exists, or what to do.
        hint: Option<String>,
    },
    /// The script or its arguments are wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
        /// Where in the text.
        position: Option<Position>,
    },
    /// The grant does not cover it.
    #[error("{0}")]
    Denied(String),
    /// A budget ran out.
    #[error("exhausted: {0}")]
    Exhausted(Exhausted),
    /// Someone stopped the run.
    #[error("cancelled")]
    Cancelled,
    /// A part of the system that is needed is not there; trying again may help.
    #[error("{0}")]
    Unavailable(String),
    /// The guest broke the contract: it trapped. Text is the guest's own backtrace where it has one.
    #[error("the script trapped: {0}")]
    Trapped(String),
    /// Our fault.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Which budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exhausted {
    /// Time on the processor inside the guest.
    Cpu,
    /// Linear memory and tables.
    Memory,
    /// Rows scanned on its behalf.
    Rows,
    /// Rows or bytes it puts out.
    Output,
    /// Wall clock.
    Deadline,
    /// Log lines.
    Logs,
    /// Host calls.
    Calls,
}

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Rows => "rows",
            Self::Output => "output",
            Self::Deadline => "deadline",
            Self::Logs => "logs",
            Self::Calls => "calls",
        })
    }
}

/// A place in a text, both from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The text it counts in.
    pub text: String,
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}
