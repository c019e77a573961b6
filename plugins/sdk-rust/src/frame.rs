//! Lazy queries.

use crate::batch::Rows;
use crate::bindings::pyxis::common::types as wit;
use crate::bindings::pyxis::script::{batches, output, tables as host};
use crate::columns::Columns;
use crate::error::Result;
use crate::expr::{Expr, Named, SortKey};

/// A lazy query. Every method gives a new frame and leaves this one as it was; nothing runs until the frame is displayed or
/// collected.
#[derive(Debug)]
pub struct Frame(host::Frame);

/// Tables this script may read, with their columns.
pub fn tables() -> Vec<host::TableInfo> {
    host::list_tables()
}

/// Rows of a table in the query's time range.
pub fn table(name: &str) -> Result<Frame> {
    host::table(name, None).map(Frame)
}

/// The result of a SQL query. `$name` takes the parameter of that name.
///
/// ```
/// # use pyxis_sdk::prelude::*;
/// fn paths(method: &str) -> Result<Frame> {
///     sql("select req_path, count(*) n from http_events where req_method = $method group by 1", [("method", Scalar::Utf8(method.into()))])
/// }
/// ```
pub fn sql<'a>(text: &str, params: impl IntoIterator<Item = (&'a str, wit::Scalar)>) -> Result<Frame> {
    let params: Vec<(String, wit::Scalar)> = params.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    host::sql(text, &params).map(Frame)
}

/// Rows of the script's own as a frame, to join or union with.
pub fn inline(columns: Columns) -> Result<Frame> {
    host::inline(&columns.into_rows()).map(Frame)
}

/// Adds or replaces the view of an output table: JSON as one entry of `views` in `plugin.toml`.
pub fn view(json: &str) -> Result<()> {
    output::view(json)
}

fn named<I: IntoIterator<Item: Into<Named>>>(list: I) -> Vec<host::Named> {
    list.into_iter().map(|n| n.into().into()).collect()
}

impl Frame {
    /// Rows of a table in a time range of the script's choice, ns since the epoch.
    pub fn of_range(name: &str, range_ns: core::ops::Range<i64>) -> Result<Self> {
        host::table(name, Some(wit::TimeRange { start: range_ns.start, end: range_ns.end })).map(Frame)
    }

    /// Exactly these columns.
    pub fn select(&self, columns: impl IntoIterator<Item: Into<Named>>) -> Result<Self> {
        self.0.select(&named(columns)).map(Frame)
    }

    /// All columns, with these added or replaced.
    pub fn with_columns(&self, columns: impl IntoIterator<Item: Into<Named>>) -> Result<Self> {
        self.0.with_columns(&named(columns)).map(Frame)
    }

    /// All columns but these.
    pub fn without<'a>(&self, columns: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let columns: Vec<String> = columns.into_iter().map(str::to_owned).collect();
        self.0.without(&columns).map(Frame)
    }

    /// Rows for which the expression is true.
    pub fn filter(&self, condition: impl Into<Expr>) -> Result<Self> {
        self.0.filter(condition.into().sql()).map(Frame)
    }

    /// Filters only if there is a condition; for arguments that need not be given.
    pub fn filter_some<E: Into<Expr>>(self, condition: Option<E>) -> Result<Self> {
        match condition {
            Some(condition) => self.filter(condition),
            None => Ok(self),
        }
    }

    /// One row for each distinct combination of `keys`, with `values` (aggregate expressions). Without keys one row in all.
    pub fn aggregate(
        &self,
        keys: impl IntoIterator<Item: Into<Named>>,
        values: impl IntoIterator<Item: Into<Named>>,
    ) -> Result<Self> {
        self.0.aggregate(&named(keys), &named(values)).map(Frame)
    }

    /// With another frame, on pairs of (left column, right column). Right columns whose name is taken end in `_right`.
    pub fn join<'a>(
        &self,
        right: &Frame,
        kind: host::JoinKind,
        on: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self> {
        let on: Vec<(String, String)> = on.into_iter().map(|(l, r)| (l.to_owned(), r.to_owned())).collect();
        self.0.join(&right.0, kind, &on, "_right").map(Frame)
    }

    /// Rows of both, repeated ones included. Columns are matched by name.
    pub fn union(&self, other: &Frame) -> Result<Self> {
        self.0.union(&other.0).map(Frame)
    }

    /// In this order.
    pub fn sort(&self, keys: impl IntoIterator<Item: Into<SortKey>>) -> Result<Self> {
        let keys: Vec<host::SortKey> = keys.into_iter().map(|k| k.into().into()).collect();
        self.0.sort(&keys).map(Frame)
    }

    /// The first `count` rows.
    pub fn limit(&self, count: u64) -> Result<Self> {
        self.0.limit(0, count).map(Frame)
    }

    /// `count` rows after the first `skip`.
    pub fn slice(&self, skip: u64, count: u64) -> Result<Self> {
        self.0.limit(skip, count).map(Frame)
    }

    /// Without repeated rows.
    pub fn distinct(&self) -> Result<Self> {
        self.0.distinct().map(Frame)
    }

    /// All columns, plus window expressions: `("rank", "row_number() over (partition by service order by latency)")`.
    pub fn window(&self, columns: impl IntoIterator<Item: Into<Named>>) -> Result<Self> {
        self.0.window(&named(columns)).map(Frame)
    }

    /// Columns of the result.
    pub fn columns(&self) -> Vec<wit::Column> {
        self.0.columns()
    }

    /// The optimised plan, one operator a line.
    pub fn explain(&self) -> Result<String> {
        self.0.explain()
    }

    /// Runs it and hands out the rows by batches.
    pub fn collect(&self) -> Result<Rows> {
        batches::collect(&self.0).map(Rows::new)
    }

    /// Shows it as an output table.
    pub fn display(&self, name: &str) -> Result<()> {
        output::display(name, &self.0)
    }
}
