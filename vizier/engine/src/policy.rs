//! Who may see what: put below every scan, whatever the way in.

use std::fmt::Debug;

/// Decides what one run may see of each table. Asked once per run and table; what it says is applied by the engine to every
/// scan of the table, before optimisation: frames, SQL, joins, subqueries and aliases all pass the same place.
pub trait Policy: Debug + Send + Sync {
    /// What the run may see of `table`.
    fn access(&self, table: &str) -> Access;
}

/// What a run may see of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: the table does not exist for the run.
    Denied,
    /// The rows and columns of the scope.
    Granted(Scope),
}

/// Part of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// SQL expression over the table's columns; rows for which it is not true do not exist.
    pub predicate: Option<String>,
    /// Columns whose values read as NULL. They stay in the schema, so that scripts work.
    pub masked: Vec<String>,
}

/// Everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn access(&self, _table: &str) -> Access {
        Access::Granted(Scope::default())
    }
}
