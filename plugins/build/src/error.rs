//! Why a plugin could not be built.

use std::path::PathBuf;

/// What failed, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No compiler for WebAssembly: each attempt with its reason.
    #[error("no Rust toolchain here can build for {target}:\n{attempts}\n{advice}", target = crate::TARGET)]
    NoToolchain {
        /// One line for each attempt.
        attempts: String,
        /// The commands that mend it.
        advice: String,
    },
    /// The folder is no plugin.
    #[error("{} is not a plugin: {why}", dir.display())]
    NotAPlugin {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// `plugin.toml` is wrong.
    #[error("{}{}: {source}{}", path.display(),
        source.position.as_ref().map(|at| format!(":{at}")).unwrap_or_default(),
        source.hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: host_manifest::Error,
    },
    /// The compiler refused. Its own output is in the text.
    #[error("compiling {what} failed:\n{output}")]
    Compile {
        /// Crate.
        what: String,
        /// What the compiler wrote.
        output: String,
    },
    /// The module is not a script.
    #[error("{0}")]
    World(String),
    /// A program could not be started, or a file not be read or written.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Adds what was tried to an I/O error.
pub(crate) trait Tried<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Tried<T> for std::io::Result<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io { what: format!("{}: {source}", what()), source })
    }
}
