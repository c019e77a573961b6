//! The one place that turns errors into what clients see: a gRPC status before a run has started, the status of `Finished`
//! afterwards. Clients get a message and what to do; the chain of causes goes to the log.

use host::error::{Error, Exhausted};
use tonic::metadata::MetadataValue;
use vizier_api::status::Code;
use vizier_api::{HINT_KEY, Position, Status};

/// Why a request was not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// gRPC code.
    pub code: tonic::Code,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Refusal {
    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: tonic::Code::InvalidArgument, message: message.into(), hint: hint.into() }
    }

    /// What it names does not exist.
    pub fn not_found(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: tonic::Code::NotFound, message: message.into(), hint: hint.into() }
    }

    /// There is no room now.
    pub fn busy(message: impl Into<String>) -> Self {
        let hint = "try again in a moment, or end another run".to_owned();
        Self { code: tonic::Code::ResourceExhausted, message: message.into(), hint }
    }

    /// Vizier ends.
    pub fn stopping() -> Self {
        let hint = "try again once it is back".to_owned();
        Self { code: tonic::Code::Unavailable, message: "vizier is stopping".into(), hint }
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        let mut status = Self::new(refusal.code, refusal.message);
        if !refusal.hint.is_empty() {
            status.metadata_mut().insert_bin(HINT_KEY, MetadataValue::from_bytes(refusal.hint.as_bytes()));
        }
        status
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::NotFound { .. } => tonic::Code::NotFound,
            Error::Invalid { .. } => tonic::Code::InvalidArgument,
            Error::Denied(_) => tonic::Code::PermissionDenied,
            Error::Exhausted(_) => tonic::Code::ResourceExhausted,
            Error::Cancelled => tonic::Code::Cancelled,
            Error::Unavailable(_) => tonic::Code::Unavailable,
            Error::Trapped(_) => tonic::Code::FailedPrecondition,
            Error::Internal(reason) => {
                tracing::error!(%reason, "internal error");
                tonic::Code::Internal
            }
        };
        let status = finished(&Err(error));
        Self { code, message: status.message, hint: status.hint }
    }
}

impl From<host_manifest::Error> for Refusal {
    fn from(error: host_manifest::Error) -> Self {
        Self::invalid(error.message, error.hint.unwrap_or_default())
    }
}

/// How a run ended.
pub fn finished(end: &Result<(), Error>) -> Status {
    let Err(error) = end else { return Status::default() };
    let mut status = Status { message: error.to_string(), ..Status::default() };
    let code = match error {
        Error::NotFound { hint, .. } => {
            status.hint = hint.clone().unwrap_or_default();
            Code::Failed
        }
        Error::Invalid { hint, position, .. } => {
            status.hint = hint.clone().unwrap_or_default();
            status.position =
                position.as_ref().map(|at| Position { text: at.text.clone(), line: at.line, column: at.column });
            Code::Failed
        }
        Error::Denied(_) => {
            status.hint =
                "name the table in `tables` of the script's plugin.toml, or ask for the right to read it".into();
            Code::Failed
        }
        Error::Exhausted(which) => {
            (status.message, status.hint) = exhausted(*which);
            status.exhausted = which.to_string();
            if *which == Exhausted::Deadline { Code::TimedOut } else { Code::Exhausted }
        }
        Error::Cancelled => Code::Cancelled,
        Error::Unavailable(_) => {
            status.hint = "see `px agents` for who is connected, and try again".into();
            Code::Failed
        }
        Error::Trapped(_) => Code::Failed,
        Error::Internal(reason) => {
            tracing::error!(%reason, "internal error");
            status.hint = "this is a fault of Pyxis: its log has more".into();
            Code::Internal
        }
    };
    status.set_code(code);
    status
}

fn exhausted(which: Exhausted) -> (String, String) {
    let (message, hint) = match which {
        Exhausted::Cpu => ("the script used up its processor time", "do less in the guest: leave the work to frames"),
        Exhausted::Memory => ("the run used up its memory", "collect less at once, or aggregate before collecting"),
        Exhausted::Rows => {
            ("the run used up the rows it may scan", "narrow the time range (--since), or filter earlier")
        }
        Exhausted::Output => ("the run used up its output", "aggregate, filter, or lower --limit"),
        Exhausted::Deadline => {
            ("time ran out; what was there until then was sent", "narrow the range, or raise --timeout")
        }
        Exhausted::Logs => ("the script used up its log", "log less"),
        Exhausted::Calls => ("the script used up its calls into the host", "read columns whole instead of by piece"),
    };
    (message.into(), hint.into())
}

#[cfg(test)]
mod tests {
    use host::error::Position as At;

    use super::*;

    #[test]
    fn a_mistake_keeps_its_hint_and_place() {
        let error = Error::Invalid {
            message: "no column `latncy`".into(),
            hint: Some("did you mean `latency`?".into()),
            position: Some(At { text: "select latncy".into(), line: 1, column: 8 }),
        };
        let status = finished(&Err(error.clone()));
        assert_eq!(status.code(), Code::Failed);
        assert_eq!(status.hint, "did you mean `latency`?");
        assert_eq!(status.position.map(|p| (p.line, p.column)), Some((1, 8)));
        let grpc = tonic::Status::from(Refusal::from(error));
        assert_eq!(grpc.code(), tonic::Code::InvalidArgument);
        let hint = grpc.metadata().get_bin(HINT_KEY).unwrap().to_bytes().unwrap();
        assert_eq!(hint, "did you mean `latency`?".as_bytes());
    }

    #[test]
    fn each_budget_says_what_to_do_and_the_deadline_is_its_own_code() {
        for which in [
            Exhausted::Cpu,
            Exhausted::Memory,
            Exhausted::Rows,
            Exhausted::Output,
            Exhausted::Deadline,
            Exhausted::Logs,
            Exhausted::Calls,
        ] {
            let status = finished(&Err(Error::Exhausted(which)));
            assert!(!status.hint.is_empty() && status.exhausted == which.to_string(), "{which}");
            assert_eq!(status.code() == Code::TimedOut, which == Exhausted::Deadline);
        }
        assert_eq!(finished(&Ok(())).code(), Code::Ok);
    }
}
