//! Tables that are declared while the process runs, as protocol plugins do.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::{ColumnSpec, DataType, Pattern, Semantic, TIME_COLUMN, TableSpec, Unit};

/// Different declarations that a process remembers. Specs live as long as the process, so that rows, batches and plans may point
/// to them; what that costs is bounded by this number (some KiB each), and the same declaration twice costs nothing. A
/// node runs a handful of plugins, and an author who changes a table restarts nothing for a day.
pub const DECLARATIONS_MAX: usize = 1024;

/// A table as it is declared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Declaration {
    /// See [`TableSpec::name`].
    pub name: String,
    /// See [`TableSpec::description`].
    pub description: String,
    /// Columns in order; `time_` must be among them.
    pub columns: Vec<DeclaredColumn>,
}

/// One column of a [`Declaration`]; fields as in [`ColumnSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "said there")]
pub struct DeclaredColumn {
    pub name: String,
    pub data_type: DataType,
    pub semantic: Semantic,
    pub pattern: Pattern,
    pub unit: Unit,
    pub description: String,
    pub dictionary: bool,
}

/// Why a table cannot be declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// No row can be found without its time.
    #[error("table {0} has no column time_ of type TIME64NS, by which rows are found: declare one")]
    NoTime(String),
    /// Two columns of one name.
    #[error("table {table} has two columns {column}: name one of them otherwise")]
    Twice {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The process has seen too many.
    #[error("{DECLARATIONS_MAX} different tables were declared since this process began: restart it to declare more")]
    TooMany,
}

static DECLARED: Mutex<Option<HashSet<Known>>> = Mutex::new(None);

/// A spec that is compared by what it says.
#[derive(PartialEq, Eq)]
struct Known(&'static TableSpec);

impl std::hash::Hash for Known {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl DeclaredColumn {
    /// As a spec of the catalogue has it.
    pub fn of(spec: &ColumnSpec) -> Self {
        Self {
            name: spec.name.to_owned(),
            data_type: spec.data_type,
            semantic: spec.semantic,
            pattern: spec.pattern,
            unit: spec.unit,
            description: spec.description.to_owned(),
            dictionary: spec.dictionary,
        }
    }
}

impl TableSpec {
    /// A spec for this declaration: the one that was made for the same before, else a new one.
    pub fn declare(declaration: &Declaration) -> Result<&'static TableSpec, DeclareError> {
        let Declaration { name, description, columns } = declaration;
        let mut seen = HashSet::new();
        for column in columns {
            if !seen.insert(&column.name) {
                return Err(DeclareError::Twice { table: name.clone(), column: column.name.clone() });
            }
        }
        if !columns.iter().any(|column| column.name == TIME_COLUMN && column.data_type == DataType::Time64Ns) {
            return Err(DeclareError::NoTime(name.clone()));
        }
        let mut declared = DECLARED.lock().unwrap_or_else(PoisonError::into_inner);
        let declared = declared.get_or_insert_default();
        if let Some(known) = declared.iter().find(|known| said_by(known.0, declaration)) {
            return Ok(known.0);
        }
        if declared.len() >= DECLARATIONS_MAX {
            return Err(DeclareError::TooMany);
        }
        let columns: Vec<ColumnSpec> = columns
            .iter()
            .map(|column| ColumnSpec {
                name: leak(&column.name),
                data_type: column.data_type,
                semantic: column.semantic,
                pattern: column.pattern,
                unit: column.unit,
                description: leak(&column.description),
                dictionary: column.dictionary && column.data_type == DataType::String,
            })
            .collect();
        let spec: &'static TableSpec = Box::leak(Box::new(TableSpec {
            name: leak(name),
            description: leak(description),
            columns: Vec::leak(columns),
            budget_share: crate::store::DECLARED_SHARE,
        }));
        declared.insert(Known(spec));
        Ok(spec)
    }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn said_by(spec: &TableSpec, declaration: &Declaration) -> bool {
    spec.name == declaration.name
        && spec.description == declaration.description
        && spec.columns.iter().map(DeclaredColumn::of).eq(declaration.columns.iter().cloned())
}
