//! How `px` ends: the exit codes that scripts around it may rely on.

use std::process::ExitCode;

/// How a command ended when it has nothing more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All that was asked for was done.
    Ok,
    /// It failed; the error has been printed.
    Failed,
    /// The command line was wrong, or somebody else cancelled the run.
    Usage,
    /// There is a result, but it is known to be incomplete.
    Partial,
    /// Credentials or permissions are missing.
    Denied,
    /// A deadline passed, as `timeout(1)` reports it.
    TimedOut,
    /// Ended by Ctrl-C or SIGTERM: 128 + SIGINT, as shells report it.
    Interrupted,
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::Denied => 4,
            Exit::TimedOut => 124,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
