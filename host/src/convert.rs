//! Between the contract's types and the host's. Both directions of a pair stand together.

use crate::backend::{JoinKind, Named, Scalar, SortKey, TimeRange};
use crate::bindings::pyxis::common::types;
use crate::bindings::pyxis::script::tables;
use crate::error::{Error, Exhausted, Position};
use crate::manifest;

/// Longest expression or SQL text. A person writes hundreds of bytes; long lists of values belong into `inline` frames.
pub(crate) const TEXT_BYTES_MAX: usize = 64 << 10;
/// Longest name of a column, parameter or output table.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Longest text of an error that a guest returns: ten screens.
pub(crate) const SAID_BYTES_MAX: usize = 16 << 10;
/// Most expressions, keys or parameters of one call: wider than any table.
pub(crate) const LIST_MAX: usize = 512;

pub(crate) fn error_out(error: Error) -> types::Error {
    match error {
        Error::NotFound { message, hint } => types::Error::NotFound(types::Mistake { message, hint, position: None }),
        Error::Invalid { message, hint, position } => {
            let position = position.map(|p| types::Position { text: p.text, line: p.line, column: p.column });
            types::Error::Invalid(types::Mistake { message, hint, position })
        }
        Error::Denied(why) => types::Error::Denied(why),
        Error::Exhausted(which) => types::Error::Exhausted(budget_out(which)),
        Error::Cancelled => types::Error::Cancelled,
        // The last two end the run before they get here.
        Error::Unavailable(why) | Error::Trapped(why) | Error::Internal(why) => types::Error::Unavailable(why),
    }
}

/// What a guest returned. Its texts are cut: they go to the client whole, and into `plugin_runs`.
pub(crate) fn error_in(error: types::Error) -> Error {
    match error {
        types::Error::NotFound(m) => Error::NotFound { message: said(m.message), hint: m.hint.map(said) },
        types::Error::Invalid(m) => Error::Invalid {
            message: said(m.message),
            hint: m.hint.map(said),
            // A place in a text that was cut is a place in another one.
            position: m.position.filter(|p| p.text.len() <= TEXT_BYTES_MAX).map(|p| Position {
                text: p.text,
                line: p.line,
                column: p.column,
            }),
        },
        types::Error::Denied(why) => Error::Denied(said(why)),
        types::Error::Exhausted(which) => Error::Exhausted(budget_in(which)),
        types::Error::Unavailable(why) => Error::Unavailable(said(why)),
        types::Error::Cancelled => Error::Cancelled,
        types::Error::Failed(why) => Error::Invalid { message: said(why), hint: None, position: None },
    }
}

/// A guest's words, of a length that people read.
pub(crate) fn said(mut text: String) -> String {
    if text.len() > SAID_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SAID_BYTES_MAX));
        text.push_str(" …");
    }
    text
}

fn budget_out(which: Exhausted) -> types::Budget {
    match which {
        Exhausted::Cpu => types::Budget::Cpu,
        Exhausted::Memory => types::Budget::Memory,
        Exhausted::Rows => types::Budget::Rows,
        Exhausted::Output => types::Budget::Output,
        Exhausted::Deadline => types::Budget::Deadline,
        Exhausted::Logs => types::Budget::Logs,
        Exhausted::Calls => types::Budget::Calls,
    }
}

fn budget_in(which: types::Budget) -> Exhausted {
    match which {
        types::Budget::Cpu => Exhausted::Cpu,
        types::Budget::Memory => Exhausted::Memory,
        types::Budget::Rows => Exhausted::Rows,
        types::Budget::Output => Exhausted::Output,
        types::Budget::Deadline => Exhausted::Deadline,
        types::Budget::Logs => Exhausted::Logs,
        types::Budget::Calls => Exhausted::Calls,
    }
}

pub(crate) fn scalar_out(scalar: &Scalar) -> types::Scalar {
    match scalar {
        Scalar::Null => types::Scalar::Null,
        Scalar::Boolean(v) => types::Scalar::Boolean(*v),
        Scalar::Int64(v) => types::Scalar::Int64(*v),
        Scalar::UInt128(v) => types::Scalar::Uint128(((v >> 64) as u64, *v as u64)),
        Scalar::Float64(v) => types::Scalar::Float64(*v),
        Scalar::Utf8(v) => types::Scalar::Utf8(v.clone()),
        Scalar::Binary(v) => types::Scalar::Binary(v.clone()),
        Scalar::TimeNs(v) => types::Scalar::TimeNs(*v),
        Scalar::DurationNs(v) => types::Scalar::DurationNs(*v),
    }
}

pub(crate) fn scalar_in(scalar: types::Scalar) -> Scalar {
    match scalar {
        types::Scalar::Null => Scalar::Null,
        types::Scalar::Boolean(v) => Scalar::Boolean(v),
        types::Scalar::Int64(v) => Scalar::Int64(v),
        types::Scalar::Uint128((high, low)) => Scalar::UInt128(u128::from(high) << 64 | u128::from(low)),
        types::Scalar::Float64(v) => Scalar::Float64(v),
        types::Scalar::Utf8(v) => Scalar::Utf8(v),
        types::Scalar::Binary(v) => Scalar::Binary(v),
        types::Scalar::TimeNs(v) => Scalar::TimeNs(v),
        types::Scalar::DurationNs(v) => Scalar::DurationNs(v),
    }
}

/// An argument as the manifest types it.
pub(crate) fn argument(value: manifest::Value) -> Scalar {
    match value {
        manifest::Value::Null => Scalar::Null,
        manifest::Value::String(v) => Scalar::Utf8(v),
        manifest::Value::Int64(v) => Scalar::Int64(v),
        manifest::Value::Float64(v) => Scalar::Float64(v),
        manifest::Value::Boolean(v) => Scalar::Boolean(v),
        manifest::Value::DurationNs(v) => Scalar::DurationNs(v),
    }
}

pub(crate) fn range_in(range: types::TimeRange) -> Result<TimeRange, Error> {
    if range.start > range.end {
        return Err(invalid(format!("the time range ends ({}) before it starts ({})", range.end, range.start)));
    }
    Ok(TimeRange { start_ns: range.start, end_ns: range.end })
}

pub(crate) fn join_in(kind: tables::JoinKind) -> JoinKind {
    match kind {
        tables::JoinKind::Inner => JoinKind::Inner,
        tables::JoinKind::Left => JoinKind::Left,
        tables::JoinKind::Right => JoinKind::Right,
        tables::JoinKind::Full => JoinKind::Full,
        tables::JoinKind::Semi => JoinKind::Semi,
        tables::JoinKind::Anti => JoinKind::Anti,
    }
}

pub(crate) fn named_in(list: Vec<tables::Named>) -> Result<Vec<Named>, Error> {
    count(list.len(), "columns")?;
    list.into_iter().map(|n| Ok(Named { name: name(n.name)?, expr: text(n.expr)? })).collect()
}

pub(crate) fn sort_in(list: Vec<tables::SortKey>) -> Result<Vec<SortKey>, Error> {
    count(list.len(), "sort keys")?;
    list.into_iter()
        .map(|k| Ok(SortKey { expr: text(k.expr)?, descending: k.descending, nulls_first: k.nulls_first }))
        .collect()
}

pub(crate) fn names_in(list: Vec<String>) -> Result<Vec<String>, Error> {
    count(list.len(), "columns")?;
    list.into_iter().map(name).collect()
}

pub(crate) fn count(len: usize, what: &str) -> Result<(), Error> {
    if len > LIST_MAX {
        Err(invalid(format!("{len} {what} in one call, at most {LIST_MAX} are allowed")))
    } else {
        Ok(())
    }
}

pub(crate) fn name(name: String) -> Result<String, Error> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(invalid(format!("a name has {} bytes, it must have 1 to {NAME_BYTES_MAX}", name.len())));
    }
    Ok(name)
}

pub(crate) fn text(text: String) -> Result<String, Error> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::Invalid {
            message: format!("the text has {} bytes, at most {TEXT_BYTES_MAX} are allowed", text.len()),
            hint: Some("put long lists of values into an inline frame and join with it".into()),
            position: None,
        });
    }
    Ok(text)
}

pub(crate) fn invalid(message: String) -> Error {
    Error::Invalid { message, hint: None, position: None }
}
