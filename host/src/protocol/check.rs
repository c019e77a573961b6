//! Checks what a parser gives: it may give anything.

use arrow::array::ArrayRef;

use super::bindings::Messages as Given;
use super::instance::{Limits, Messages};
use crate::bindings::pyxis::common::types::DataType;
use crate::manifest::protocol::{ColumnType, TableColumn};
use crate::rows;

/// The rows, or what is wrong with them. `open` tells whether a connection is open.
pub(crate) fn messages(
    given: Given,
    columns: &[TableColumn],
    limits: &Limits,
    open: impl Fn(u32) -> bool,
) -> Result<Messages, String> {
    let Given { connections, times, columns: values, skipped } = given;
    let count = connections.len();
    if count > limits.call_rows_max {
        return Err(format!("it gave {count} rows in one call, at most {} are allowed", limits.call_rows_max));
    }
    if times.len() != count {
        return Err(format!("it gave {count} connections and {} times", times.len()));
    }
    if values.len() != columns.len() {
        return Err(format!("it gave {} columns, its plugin.toml declares {}", values.len(), columns.len()));
    }
    if let Some(connection) = connections.iter().find(|connection| !open(**connection)) {
        return Err(format!("it gave a row of connection {connection}, which is not open"));
    }
    let columns: Vec<ArrayRef> = columns
        .iter()
        .zip(values)
        .map(|(column, values)| {
            rows::array(values, data_type(column.data_type), count)
                .map_err(|why| format!("column `{}` {why}", column.name))
        })
        .collect::<Result<_, _>>()?;
    Ok(Messages { connections, times, columns, skipped })
}

fn data_type(declared: ColumnType) -> DataType {
    match declared {
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Uint128 => DataType::Uint128,
        ColumnType::Float64 => DataType::Float64,
        ColumnType::Utf8 => DataType::Utf8,
        ColumnType::TimeNs => DataType::TimeNs,
        ColumnType::DurationNs => DataType::DurationNs,
    }
}
