//! Specs as Arrow schemas, and back.

use std::collections::HashMap;
use std::str::FromStr;

use arrow::datatypes::{DataType as ArrowType, Field, Schema, TimeUnit};

use super::kinds::{DataType, Pattern, Semantic, Unit};
use super::{ColumnSpec, TIME_COLUMN, TableSpec};

/// Metadata keys of fields and schemas.
pub mod keys {
    /// Field: [`Semantic`](super::Semantic), absent for none.
    pub const SEMANTIC: &str = "pyxis.semantic";
    /// Field: [`Unit`](super::Unit), absent for none.
    pub const UNIT: &str = "pyxis.unit";
    /// Field: [`Pattern`](super::Pattern).
    pub const PATTERN: &str = "pyxis.pattern";
    /// Field and schema: a sentence for people.
    pub const DESCRIPTION: &str = "pyxis.description";
    /// Schema: name of the table.
    pub const TABLE: &str = "pyxis.table";
}

pub(super) fn schema_of(spec: &TableSpec) -> Schema {
    let fields: Vec<Field> = spec.columns.iter().map(field_of).collect();
    let metadata = HashMap::from([
        (keys::TABLE.to_owned(), spec.name.to_owned()),
        (keys::DESCRIPTION.to_owned(), spec.description.to_owned()),
    ]);
    Schema::new_with_metadata(fields, metadata)
}

fn field_of(column: &ColumnSpec) -> Field {
    let mut metadata = HashMap::from([
        (keys::PATTERN.to_owned(), column.pattern.as_str().to_owned()),
        (keys::DESCRIPTION.to_owned(), column.description.to_owned()),
    ]);
    if column.semantic != Semantic::None {
        metadata.insert(keys::SEMANTIC.to_owned(), column.semantic.as_str().to_owned());
    }
    if column.unit != Unit::None {
        metadata.insert(keys::UNIT.to_owned(), column.unit.as_str().to_owned());
    }
    // A row always has its time: it is what it is found by.
    let nullable = column.name != TIME_COLUMN;
    Field::new(column.name, column.data_type.to_arrow(column.dictionary), nullable).with_metadata(metadata)
}

impl DataType {
    /// The Arrow type of a column. `dictionary` matters for strings only.
    pub fn to_arrow(self, dictionary: bool) -> ArrowType {
        match self {
            DataType::Boolean => ArrowType::Boolean,
            DataType::Int64 => ArrowType::Int64,
            DataType::UInt128 => ArrowType::FixedSizeBinary(16),
            DataType::Float64 => ArrowType::Float64,
            DataType::String if dictionary => {
                ArrowType::Dictionary(Box::new(ArrowType::Int32), Box::new(ArrowType::Utf8))
            }
            DataType::String => ArrowType::Utf8,
            DataType::Time64Ns => ArrowType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        }
    }

    /// The type an Arrow type stands for, and whether it is a dictionary. `None` for types that no table has.
    pub fn from_arrow(data_type: &ArrowType) -> Option<(Self, bool)> {
        Some(match data_type {
            ArrowType::Boolean => (DataType::Boolean, false),
            ArrowType::Int64 => (DataType::Int64, false),
            ArrowType::FixedSizeBinary(16) => (DataType::UInt128, false),
            ArrowType::Float64 => (DataType::Float64, false),
            ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View => (DataType::String, false),
            ArrowType::Dictionary(_, value) if DataType::from_arrow(value)?.0 == DataType::String => {
                (DataType::String, true)
            }
            ArrowType::Timestamp(TimeUnit::Nanosecond, _) => (DataType::Time64Ns, false),
            _ => return None,
        })
    }
}

/// A table as read back from a schema: [`TableSpec`] with names of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Name, empty when the schema is not of a table (a query's result).
    pub name: String,
    /// What one row is.
    pub description: String,
    /// Columns in order.
    pub columns: Vec<ColumnInfo>,
}

/// A column as read back from a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Name.
    pub name: String,
    /// Type of its values.
    pub data_type: DataType,
    /// Whether it is dictionary-encoded.
    pub dictionary: bool,
    /// What the values are of.
    pub semantic: Semantic,
    /// How they behave.
    pub pattern: Pattern,
    /// What one is counted in.
    pub unit: Unit,
    /// A sentence for people.
    pub description: String,
}

/// A schema that cannot be read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// An Arrow type that no table has.
    #[error("column {column:?} has type {data_type}, which no table has: cast it first")]
    Type {
        /// Its name.
        column: String,
        /// The type it has.
        data_type: Box<ArrowType>,
    },
}

impl TableInfo {
    /// Reads a spec back. Names of kinds that this version does not know read as the kind's nothing, so that an old
    /// reader can show a newer producer's tables.
    pub fn from_schema(schema: &Schema) -> Result<Self, SchemaError> {
        let text = |key: &str| schema.metadata().get(key).cloned().unwrap_or_default();
        Ok(TableInfo {
            name: text(keys::TABLE),
            description: text(keys::DESCRIPTION),
            columns: schema.fields().iter().map(|field| ColumnInfo::from_field(field)).collect::<Result<_, _>>()?,
        })
    }
}

impl ColumnInfo {
    /// Reads a column back.
    pub fn from_field(field: &Field) -> Result<Self, SchemaError> {
        let (data_type, dictionary) = DataType::from_arrow(field.data_type()).ok_or_else(|| SchemaError::Type {
            column: field.name().clone(),
            data_type: Box::new(field.data_type().clone()),
        })?;
        let metadata = field.metadata();
        Ok(ColumnInfo {
            name: field.name().clone(),
            data_type,
            dictionary,
            semantic: kind(metadata, keys::SEMANTIC, Semantic::None),
            pattern: kind(metadata, keys::PATTERN, Pattern::General),
            unit: kind(metadata, keys::UNIT, Unit::None),
            description: metadata.get(keys::DESCRIPTION).cloned().unwrap_or_default(),
        })
    }
}

fn kind<T: FromStr>(metadata: &HashMap<String, String>, key: &str, nothing: T) -> T {
    metadata.get(key).and_then(|text| text.parse().ok()).unwrap_or(nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    #[test]
    fn a_spec_reads_back_from_its_schema() {
        for spec in catalog::ALL {
            let info = TableInfo::from_schema(&spec.schema()).unwrap();
            assert_eq!(info.name, spec.name);
            assert_eq!(info.description, spec.description);
            assert_eq!(info.columns.len(), spec.columns.len());
            for (read, declared) in info.columns.iter().zip(spec.columns) {
                assert_eq!(
                    (read.name.as_str(), read.data_type, read.dictionary, read.semantic, read.pattern, read.unit),
                    (
                        declared.name,
                        declared.data_type,
                        declared.dictionary,
                        declared.semantic,
                        declared.pattern,
                        declared.unit
                    )
                );
                assert_eq!(read.description, declared.description);
            }
        }
    }

    #[test]
    fn names_of_kinds_are_distinct_and_read_back() {
        for semantic in Semantic::ALL {
            assert_eq!(semantic.as_str().parse(), Ok(*semantic));
        }
        let error = "ST_FROM_THE_FUTURE".parse::<Semantic>().unwrap_err();
        assert_eq!(error.to_string(), "\"ST_FROM_THE_FUTURE\" is not a Semantic: it may come from a newer version");
    }

    #[test]
    fn a_newer_semantic_reads_as_none_and_a_foreign_type_is_an_error() {
        let field = Field::new("x", ArrowType::Int64, true)
            .with_metadata(HashMap::from([(keys::SEMANTIC.to_owned(), "ST_FROM_THE_FUTURE".to_owned())]));
        assert_eq!(ColumnInfo::from_field(&field).unwrap().semantic, Semantic::None);
        let error = ColumnInfo::from_field(&Field::new("y", ArrowType::Int8, true)).unwrap_err();
        assert_eq!(error.to_string(), "column \"y\" has type Int8, which no table has: cast it first");
    }
}
