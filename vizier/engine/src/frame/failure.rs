//! Errors as scripts and people see them: whose fault, where in the text, and what was probably meant.

use datafusion::common::diagnostic::Diagnostic;
use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use host::error::{Error, Exhausted, Position};

use super::context::NoTable;
use super::nearest::nearest;
use crate::error::{Fault, fault_in, find, message_of};
use crate::query::Query;

/// An error about the text itself.
pub(super) fn invalid(message: impl Into<String>, hint: Option<&str>) -> Error {
    Error::Invalid { message: message.into(), hint: hint.map(str::to_owned), position: None }
}

/// An error about a word of the text.
pub(super) fn at_word(text: &str, word: &str, message: String, hint: Option<String>) -> Error {
    Error::Invalid { message, hint, position: position_of(text, word) }
}

/// A table that does not exist for the run.
pub(super) fn no_table(name: &str, tables: &[&str], text: Option<&str>) -> Error {
    let message = format!("no table `{name}`");
    let bare = name.rsplit('.').next().unwrap_or(name);
    let hint = match nearest(bare, tables.iter().copied()) {
        Some(table) => format!("did you mean `{table}`?"),
        None if tables.is_empty() => {
            "no agent has told of its tables yet: is one connected? `px agents` lists them".to_owned()
        }
        None => format!("tables: {}", tables.join(", ")),
    };
    match text {
        Some(text) => at_word(text, bare, message, Some(hint)),
        None => Error::NotFound { message, hint: Some(hint) },
    }
}

/// The engine's error as the host's. `text` is what the user wrote, `columns` what it could refer to where that is known.
pub(super) fn to_error(error: DataFusionError, text: &str, columns: &[&str], query: &Query) -> Error {
    match fault_in(&error) {
        Some(Fault::Rows) => return Error::Exhausted(Exhausted::Rows),
        Some(Fault::Cancelled) => return Error::Cancelled,
        Some(Fault::Deadline) => return Error::Exhausted(Exhausted::Deadline),
        Some(Fault::Function(why)) => return why.clone(),
        Some(Fault::Denied(why)) => return Error::Denied(why.clone()),
        Some(Fault::Node(why)) => return Error::Unavailable(why.clone()),
        None => {}
    }
    if let Some(NoTable(name)) = find::<NoTable>(&error) {
        return no_table(name, &query.table_names(), Some(text));
    }
    if let Some(error) = schema_error(&error) {
        return of_schema(error, text, columns);
    }
    let span = diagnostic_of(&error).and_then(|diagnostic| diagnostic.span);
    let position = span.map(|span| Position {
        text: text.to_owned(),
        line: span.start.line as u32,
        column: span.start.column as u32,
    });
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => Error::Exhausted(Exhausted::Memory),
        DataFusionError::SQL(parser, _) => of_parser(&parser.to_string(), text),
        DataFusionError::Internal(message) => Error::Internal(message.clone()),
        DataFusionError::NotImplemented(message) => {
            Error::Invalid { message: format!("not supported: {message}"), hint: None, position }
        }
        _ => of_message(&message_of(&error), text, position, query),
    }
}

fn schema_error(error: &DataFusionError) -> Option<&SchemaError> {
    match error {
        DataFusionError::SchemaError(inner, _) => Some(inner),
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => schema_error(inner),
        DataFusionError::Shared(inner) => schema_error(inner),
        DataFusionError::Collection(inner) => inner.iter().find_map(schema_error),
        _ => None,
    }
}

fn diagnostic_of(error: &DataFusionError) -> Option<&Diagnostic> {
    match error {
        DataFusionError::Diagnostic(diagnostic, _) => Some(diagnostic),
        DataFusionError::Context(_, inner) => diagnostic_of(inner),
        DataFusionError::Shared(inner) => diagnostic_of(inner),
        DataFusionError::Collection(inner) => inner.iter().find_map(diagnostic_of),
        _ => None,
    }
}

fn of_schema(error: &SchemaError, text: &str, columns: &[&str]) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known: Vec<&str> =
                if columns.is_empty() { valid_fields.iter().map(Column::name).collect() } else { columns.to_vec() };
            let place = match &field.relation {
                Some(relation) => format!(" in {relation}"),
                None => one_relation(valid_fields),
            };
            let hint = match nearest(&field.name, known.iter().copied()) {
                Some(column) => format!("did you mean `{column}`?"),
                None => format!("columns: {}", known.join(", ")),
            };
            at_word(text, &field.name, format!("no column `{}`{place}", field.name), Some(hint))
        }
        SchemaError::AmbiguousReference { field } => at_word(
            text,
            &field.name,
            format!("column `{}` is on both sides", field.name),
            Some(format!("say which: write `table.{}`", field.name)),
        ),
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => at_word(
            text,
            name,
            format!("two columns are called `{name}`"),
            Some("give one of them another name".into()),
        ),
    }
}

/// ` in http_events`, if all columns are of that one table.
fn one_relation(fields: &[Column]) -> String {
    match fields.first().and_then(|field| field.relation.as_ref()) {
        Some(relation) if fields.iter().all(|f| f.relation.as_ref() == Some(relation)) => format!(" in {relation}"),
        _ => String::new(),
    }
}

/// The parser says where in its message: `… at Line: 1, Column: 8`.
fn of_parser(message: &str, text: &str) -> Error {
    let message = message.strip_prefix("sql parser error: ").unwrap_or(message);
    let (message, place) = match message.rsplit_once(" at Line: ") {
        Some((message, place)) => (message, place.split_once(", Column: ")),
        None => (message, None),
    };
    let number = |digits: &str| digits.trim().chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    let position = place.and_then(|(line, column)| {
        Some(Position { text: text.to_owned(), line: number(line)?, column: number(column)? })
    });
    // The end of the text has no place of its own.
    let position =
        position.filter(|p: &Position| p.line > 0).or_else(|| message.contains("found: EOF").then(|| end_of(text)));
    Error::Invalid { message: format!("syntax: {message}"), hint: None, position }
}

fn of_message(message: &str, text: &str, position: Option<Position>, query: &Query) -> Error {
    // `Invalid function 'x'.\nDid you mean 'y'?`
    if let Some(name) = message.strip_prefix("Invalid function '").and_then(|rest| rest.split('\'').next()) {
        let state = &query.engine.state;
        let known = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
        let known = known.chain(state.window_functions().keys()).map(String::as_str);
        let known = known.chain(query.plugin_functions());
        let hint = nearest(name, known).map(|function| format!("did you mean `{function}`?"));
        return at_word(text, name, format!("no function `{name}`"), hint);
    }
    // Function signatures come as one long line each: the first paragraph says what is wrong, the rest what would be right.
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let message = lines.next().unwrap_or("the query failed").to_owned();
    let hint: Vec<_> = lines.collect();
    let hint = (!hint.is_empty()).then(|| hint.join("; "));
    let position = position.or_else(|| {
        let function = message.split('\'').nth(1)?;
        position_of(text, function)
    });
    Error::Invalid { message, hint, position }
}

/// Where a word stands first, outside of strings.
fn position_of(text: &str, word: &str) -> Option<Position> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().ok()?;
    let found = tokens.into_iter().find(|token| match &token.token {
        Token::Word(this) => this.value.eq_ignore_ascii_case(word),
        Token::Placeholder(this) => this == word,
        _ => false,
    })?;
    Some(Position { text: text.to_owned(), line: found.span.start.line as u32, column: found.span.start.column as u32 })
}

fn end_of(text: &str) -> Position {
    let last = text.lines().last().unwrap_or_default();
    Position {
        text: text.to_owned(),
        line: text.lines().count().max(1) as u32,
        column: last.chars().count() as u32 + 1,
    }
}
