//! A plugin's table: the host's columns, then its own.

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, StringArray};
use arrow::datatypes::{DataType as ArrowType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType};
use host::manifest::protocol::{ColumnType, HOST_COLUMNS, Table};
use pem_tables::spec::{ColumnSpec, DataType, Declaration, DeclareError, DeclaredColumn, Semantic, TableSpec};
use pem_tables::{AddError, Appender, Store, Value, catalog};

use crate::conns::Facts;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalogue's are ours.
    #[error("{0} is a table of the agent's own: give the plugin's another name")]
    Own(String),
    /// Its declaration.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// The store.
    #[error(transparent)]
    Add(#[from] AddError),
    /// Another plugin writes it.
    #[error("another plugin writes the table {0}: only one can")]
    Written(String),
}

/// The way into it.
pub(super) struct Rows {
    name: &'static str,
    appender: Appender,
}

/// What is known of a row beside the plugin's columns.
pub(super) struct Known<'a> {
    pub time_ns: i64,
    pub facts: &'a Facts,
    pub role: u8,
}

impl Rows {
    pub fn new(store: &Store, table: &Table) -> Result<Self, Error> {
        if catalog::find(&table.name).is_some() {
            return Err(Error::Own(table.name.clone()));
        }
        let spec = TableSpec::declare(&declaration(table))?;
        let appender = store.add(spec)?.try_appender().ok_or_else(|| Error::Written(table.name.clone()))?;
        Ok(Self { name: spec.name, appender })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Adds row `row` of `columns`. Returns roughly what it takes; an error is the store's refusal.
    pub fn append(&mut self, known: &Known<'_>, columns: &[ArrayRef], row: usize) -> Result<u64, String> {
        let Known { time_ns, facts, role } = known;
        let mut values = Vec::with_capacity(HOST_COLUMNS.len() + columns.len());
        values.extend([
            Value::Time(*time_ns),
            Value::U128(facts.upid.as_u128()),
            Value::Str(facts.remote.addr.as_str()),
            Value::Int(facts.remote.port.into()),
            Value::Str(facts.local.addr.as_str()),
            Value::Int(facts.local.port.into()),
            Value::Int((*role).into()),
        ]);
        let mut bytes = 8 * values.len() as u64;
        for column in columns {
            let value = value(column, row);
            bytes += if let Value::Str(text) = value { 4 + text.len() as u64 } else { 8 };
            values.push(value);
        }
        self.appender.append(&values).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    pub fn publish(&mut self, now_ns: i64) {
        self.appender.publish(now_ns);
    }
}

/// The value of a checked column; of another type than the host lets through, nothing.
fn value(column: &ArrayRef, row: usize) -> Value<'_> {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        ArrowType::Boolean => Value::Bool(column.as_boolean().value(row)),
        ArrowType::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(row)),
        ArrowType::Float64 => Value::Float(column.as_primitive::<Float64Type>().value(row)),
        ArrowType::Timestamp(..) => Value::Time(column.as_primitive::<TimestampNanosecondType>().value(row)),
        ArrowType::FixedSizeBinary(16) => {
            let bytes = column.as_fixed_size_binary().value(row);
            bytes.try_into().map_or(Value::Null, |bytes| Value::U128(u128::from_be_bytes(bytes)))
        }
        ArrowType::Utf8 => Value::Str(column.as_string::<i32>().value(row)),
        ArrowType::Dictionary(..) => {
            let coded: &DictionaryArray<Int32Type> = column.as_dictionary();
            let texts = coded.values().as_any().downcast_ref::<StringArray>();
            match (texts, coded.key(row)) {
                (Some(texts), Some(key)) => Value::Str(texts.value(key)),
                _ => Value::Null,
            }
        }
        _ => Value::Null,
    }
}

fn declaration(table: &Table) -> Declaration {
    let host = [
        ColumnSpec::time("When the last byte of the answer was seen."),
        ColumnSpec::upid("The traced process."),
        ColumnSpec::label("remote_addr", "IP address of the other side.").semantic(Semantic::IpAddress),
        ColumnSpec::int("remote_port", "Port of the other side.").semantic(Semantic::Port),
        ColumnSpec::label("local_addr", "IP address of the traced process's side.").semantic(Semantic::IpAddress),
        ColumnSpec::int("local_port", "Port of the traced process's side.").semantic(Semantic::Port),
        ColumnSpec::code("trace_role", "Side of the traced process: 1 client, 2 server, 4 not known."),
    ];
    let own = table.columns.iter().map(|column| DeclaredColumn {
        name: column.name.clone(),
        data_type: match column.data_type {
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Int64 | ColumnType::DurationNs => DataType::Int64,
            ColumnType::Uint128 => DataType::UInt128,
            ColumnType::Float64 => DataType::Float64,
            ColumnType::Utf8 => DataType::String,
            ColumnType::TimeNs => DataType::Time64Ns,
        },
        // What this version does not know means nothing to it, as with a newer producer's columns.
        semantic: match column.semantic.as_str() {
            "" if column.data_type == ColumnType::DurationNs => Semantic::DurationNs,
            text => text.parse().unwrap_or(Semantic::None),
        },
        pattern: column.pattern.parse().unwrap_or(pem_tables::spec::Pattern::General),
        unit: match column.unit.as_str() {
            "" if column.data_type == ColumnType::DurationNs => pem_tables::spec::Unit::Nanoseconds,
            text => text.parse().unwrap_or(pem_tables::spec::Unit::None),
        },
        description: column.description.clone(),
        dictionary: column.repeats,
    });
    Declaration {
        name: table.name.clone(),
        description: table.description.clone(),
        columns: host.iter().map(DeclaredColumn::of).chain(own).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::manifest::protocol::{PATTERNS, UNITS};

    #[test]
    fn the_manifest_and_the_tables_speak_of_the_same_things() {
        assert_eq!(PATTERNS, pem_tables::spec::Pattern::ALL.iter().map(|p| p.as_str()).collect::<Vec<_>>());
        assert_eq!(UNITS, pem_tables::spec::Unit::ALL.iter().map(|u| u.as_str()).collect::<Vec<_>>());
        let table = Table { name: "x".into(), description: "X.".into(), columns: Vec::new() };
        let names: Vec<String> = declaration(&table).columns.into_iter().map(|column| column.name).collect();
        assert_eq!(names, HOST_COLUMNS);
    }
}
