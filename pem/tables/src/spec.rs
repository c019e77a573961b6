//! What a table is: its name, its columns and what their values mean.
//!
//! A spec is declared once, by the producer of the table, and travels with every batch as Arrow metadata, so that a
//! reader needs no copy of it: see [`TableSpec::schema`] for the way out and [`TableInfo::from_schema`] for the way back.

mod arrow_schema;
mod declared;
mod kinds;

use std::sync::Arc;

use ::arrow::datatypes::SchemaRef;

pub use arrow_schema::{ColumnInfo, SchemaError, TableInfo, keys};
pub use declared::{DECLARATIONS_MAX, Declaration, DeclareError, DeclaredColumn};
pub use kinds::{DataType, Pattern, Semantic, Unit};

/// A table as its producer declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSpec {
    /// Name by which scripts and SQL ask for it.
    pub name: &'static str,
    /// What one row is, in one or two sentences.
    pub description: &'static str,
    /// Columns in order. A column named `time_` of type [`DataType::Time64Ns`] must be among them.
    pub columns: &'static [ColumnSpec],
    /// Share of the store's byte budget, relative to the sum over all its tables.
    pub budget_share: u32,
}

/// One column of a [`TableSpec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Name, lower case, unique in its table.
    pub name: &'static str,
    /// Type of its values.
    pub data_type: DataType,
    /// What the values are of, for formatting, links and joins.
    pub semantic: Semantic,
    /// How the values behave.
    pub pattern: Pattern,
    /// What one is counted in.
    pub unit: Unit,
    /// One sentence for people.
    pub description: &'static str,
    /// Strings that repeat: read as `Dictionary(Int32, Utf8)`, so that engines work once per distinct value.
    pub dictionary: bool,
}

/// Name of the column that every table is indexed by.
pub const TIME_COLUMN: &str = "time_";

impl TableSpec {
    /// The Arrow schema of this table's batches, with the whole spec in its metadata.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(arrow_schema::schema_of(self))
    }

    /// Position of a column.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Column by name.
    pub fn column(&self, name: &str) -> Option<&'static ColumnSpec> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Position of `time_`.
    ///
    /// # Panics
    /// When the spec has none. Specs are statics and `catalog`'s are checked by a test.
    pub fn time_index(&self) -> usize {
        self.column_index(TIME_COLUMN).expect("every table spec has a time_ column")
    }
}

impl ColumnSpec {
    /// A column of this type, with nothing more to say about it than its description.
    pub const fn new(name: &'static str, data_type: DataType, description: &'static str) -> Self {
        ColumnSpec {
            name,
            data_type,
            semantic: Semantic::None,
            pattern: Pattern::General,
            unit: Unit::None,
            description,
            dictionary: false,
        }
    }

    /// The `time_` column.
    pub const fn time(description: &'static str) -> Self {
        Self::new(TIME_COLUMN, DataType::Time64Ns, description)
            .semantic(Semantic::TimeNs)
            .pattern(Pattern::MetricCounter)
            .unit(Unit::Nanoseconds)
    }

    /// The `upid` column.
    pub const fn upid(description: &'static str) -> Self {
        Self::new("upid", DataType::UInt128, description).semantic(Semantic::Upid)
    }

    /// A string that repeats.
    pub const fn label(name: &'static str, description: &'static str) -> Self {
        let mut column = Self::new(name, DataType::String, description);
        column.dictionary = true;
        column
    }

    /// A string that seldom repeats.
    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self::new(name, DataType::String, description)
    }

    /// An integer.
    pub const fn int(name: &'static str, description: &'static str) -> Self {
        Self::new(name, DataType::Int64, description)
    }

    /// A truth value.
    pub const fn boolean(name: &'static str, description: &'static str) -> Self {
        Self::new(name, DataType::Boolean, description)
    }

    /// An integer whose values have names (`catalog::enums`).
    pub const fn code(name: &'static str, description: &'static str) -> Self {
        Self::int(name, description).pattern(Pattern::GeneralEnum)
    }

    /// A number of bytes.
    pub const fn bytes(name: &'static str, description: &'static str) -> Self {
        Self::int(name, description).semantic(Semantic::Bytes).unit(Unit::Bytes)
    }

    /// A length of time in ns.
    pub const fn duration(name: &'static str, description: &'static str) -> Self {
        Self::int(name, description).semantic(Semantic::DurationNs).unit(Unit::Nanoseconds)
    }

    /// Grows without bound; differences matter.
    pub const fn counter(self) -> Self {
        self.pattern(Pattern::MetricCounter)
    }

    /// Goes up and down.
    pub const fn gauge(self) -> Self {
        self.pattern(Pattern::MetricGauge)
    }

    /// With this semantic.
    pub const fn semantic(mut self, semantic: Semantic) -> Self {
        self.semantic = semantic;
        self
    }

    /// With this pattern.
    pub const fn pattern(mut self, pattern: Pattern) -> Self {
        self.pattern = pattern;
        self
    }

    /// With this unit.
    pub const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }
}
