//! Why an artifact, a signature or a key was refused.

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was named is not there.
    NotFound,
    /// The artifact, signature or key is malformed, or its parts do not fit together.
    Invalid,
    /// It is well formed, and not signed by anybody who is trusted.
    Untrusted,
    /// A file could not be read or written.
    Io,
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Who has to act.
    pub kind: Kind,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Error {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { kind: Kind::Invalid, message: message.into(), hint: None }
    }

    pub(crate) fn untrusted(message: impl Into<String>) -> Self {
        Self { kind: Kind::Untrusted, message: message.into(), hint: None }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { kind: Kind::NotFound, message: message.into(), hint: None }
    }

    pub(crate) fn io(doing: impl std::fmt::Display, source: &std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Io,
        };
        Self { kind, message: format!("cannot {doing}: {source}"), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
