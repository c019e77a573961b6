//! Whose fault an error is: the query's, a node's, or a budget's.

use std::error::Error as StdError;

use datafusion::common::DataFusionError;
use tonic::{Code, Status};

/// An error with its own way of being handled, carried inside a [`DataFusionError::External`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// This node cannot answer this query; others may. Becomes a named gap.
    #[error("{0}")]
    Node(String),
    /// The run's budget of scanned rows is used up.
    #[error("the run's budget of scanned rows is used up")]
    Rows,
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// A function of a plugin failed.
    #[error("{0}")]
    Function(host::error::Error),
    /// The query reads or does something that it may not.
    #[error("{0}")]
    Denied(String),
}

impl From<Fault> for DataFusionError {
    fn from(fault: Fault) -> Self {
        Self::External(Box::new(fault))
    }
}

/// The fault somewhere inside an error, if there is one.
pub(crate) fn fault_in(error: &DataFusionError) -> Option<&Fault> {
    find(error)
}

/// The first error of type `E` in the chain.
pub(crate) fn find<E: StdError + 'static>(error: &DataFusionError) -> Option<&E> {
    // `source` of some wrappers skips a level, so each level is looked at as itself and as what it wraps.
    match error {
        DataFusionError::External(inner) => {
            if let Some(found) = inner.downcast_ref::<E>() {
                return Some(found);
            }
            if let Some(inner) = inner.downcast_ref::<DataFusionError>() {
                return find(inner);
            }
        }
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => return find(inner),
        DataFusionError::Shared(inner) => return find(inner),
        DataFusionError::Collection(inner) => return inner.iter().find_map(find),
        _ => {}
    }
    let mut level: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = level {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        if let Some(DataFusionError::External(inner)) = error.downcast_ref::<DataFusionError>()
            && let Some(found) = inner.downcast_ref::<E>()
        {
            return Some(found);
        }
        level = error.source();
    }
    None
}

/// How an error of a fragment travels from a PEM to Vizier.
pub(crate) fn to_status(error: &DataFusionError) -> Status {
    match fault_in(error) {
        Some(Fault::Node(why)) => return Status::not_found(why.clone()),
        // A code that nothing below us uses: tonic's own for a message that is too large is `OutOfRange`.
        Some(Fault::Rows) => return Status::aborted(Fault::Rows.to_string()),
        // A node's own lack of room is its gap; a function that fails would fail everywhere.
        Some(Fault::Function(host::error::Error::Unavailable(why))) => return Status::not_found(why.clone()),
        Some(Fault::Function(host::error::Error::Invalid { message, hint: Some(hint), .. })) => {
            return Status::failed_precondition(format!("{message}\n{hint}"));
        }
        Some(Fault::Deadline) => return Status::deadline_exceeded(Fault::Deadline.to_string()),
        _ => {}
    }
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => Status::resource_exhausted(
            "the query needs more memory than this agent gives to queries: narrow the time range or add filters",
        ),
        _ => Status::failed_precondition(message_of(error)),
    }
}

/// The reverse of [`to_status`].
pub(crate) fn from_status(status: &Status) -> DataFusionError {
    match status.code() {
        Code::FailedPrecondition => DataFusionError::Execution(status.message().to_owned()),
        Code::Aborted => Fault::Rows.into(),
        Code::OutOfRange => {
            Fault::Node(format!("it sent more than a message may hold: {}", short(status.message()))).into()
        }
        Code::NotFound | Code::ResourceExhausted | Code::Unimplemented => {
            Fault::Node(status.message().to_owned()).into()
        }
        Code::DeadlineExceeded => Fault::Node("no answer before the deadline".to_owned()).into(),
        _ => Fault::Node(format!("link lost: {}", short(&transport_reason(status)))).into(),
    }
}

fn transport_reason(status: &Status) -> String {
    // The innermost cause says what happened ("connection reset by peer"), the outer ones only that something did.
    let mut reason = status.message().to_owned();
    let mut level = status.source();
    while let Some(error) = level {
        reason = error.to_string();
        level = error.source();
    }
    reason
}

/// Reasons are shown in one line of a table.
pub(crate) const REASON_CHARS_MAX: usize = 160;

fn short(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}

/// An error's text for people: without the names of our libraries' categories.
pub(crate) fn message_of(error: &DataFusionError) -> String {
    match error {
        DataFusionError::Diagnostic(_, inner) => message_of(inner),
        DataFusionError::Shared(inner) => message_of(inner),
        DataFusionError::Context(_, inner) => message_of(inner),
        DataFusionError::Collection(errors) if !errors.is_empty() => message_of(&errors[0]),
        DataFusionError::ArrowError(inner, _) => inner.to_string(),
        DataFusionError::External(inner) => inner.to_string(),
        other => {
            let text = other.message().into_owned();
            if text.is_empty() { other.strip_backtrace() } else { text }
        }
    }
}
