//! What a script may do with data, as the host sees it: opaque frames made, changed and collected by whoever embeds
//! the host. The host knows no table, no cluster and no network; an engine implements these traits.

use std::any::Any;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;

use crate::error::Error;
use crate::meter::Meter;

/// Where frames come from.
pub trait Backend: Send + Sync {
    /// Every table the run may see.
    fn tables(&self) -> Vec<TableInfo>;
    /// Rows of a table in a time range (`None` = the query's own range).
    fn table(&self, name: &str, range: Option<TimeRange>) -> Result<Arc<dyn Frame>, Error>;
    /// The result of a SQL query; `$1…` or `$name` take `params`.
    fn sql(&self, text: &str, params: &[(String, Scalar)]) -> Result<Arc<dyn Frame>, Error>;
    /// Rows a guest made itself.
    fn inline(&self, batch: RecordBatch) -> Result<Arc<dyn Frame>, Error>;
}

/// A lazy query: cheap to make, nothing runs until it is collected or displayed.
pub trait Frame: Send + Sync {
    /// For the engine to find its own type again in `join` and `union`.
    fn as_any(&self) -> &dyn Any;
    /// A frame that does this on top. Expressions are checked against the schema at once.
    fn apply(&self, op: &Op) -> Result<Arc<dyn Frame>, Error>;
    /// Columns of the result.
    fn schema(&self) -> SchemaRef;
    /// Names of the tables the plan reads, sub-queries and SQL text included, each once. The host asks before a frame is
    /// displayed or collected, and denies what the script's manifest does not name; so it must not leave one out.
    //
    // Required on purpose: a default would either fail open or fail every script.
    fn sources(&self) -> Vec<String>;
    /// The optimised plan as text, one operator a line.
    fn explain(&self) -> Result<String, Error>;
    /// Runs it. Rows scanned and bytes made are charged to `meter` as the work happens; dropping the stream stops it everywhere.
    fn collect(&self, meter: Arc<Meter>) -> BoxStream<'static, Result<RecordBatch, Error>>;
}

/// A table as a script may see it.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// Name as used by `table`.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Columns; field metadata carries semantic type, unit, pattern and description.
    pub schema: SchemaRef,
}

/// Start inclusive, end exclusive, ns since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// First instant that belongs.
    pub start_ns: i64,
    /// First instant that does not.
    pub end_ns: i64,
}

/// A named SQL expression: `expr AS name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Name of the result column.
    pub name: String,
    /// SQL expression text.
    pub expr: String,
}

/// How two frames are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Rows with a match on both sides.
    Inner,
    /// All rows of the left side.
    Left,
    /// All rows of the right side.
    Right,
    /// All rows.
    Full,
    /// Left rows that have a match.
    Semi,
    /// Left rows that have none.
    Anti,
}

/// One key of a sort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// SQL expression text.
    pub expr: String,
    /// Largest first.
    pub descending: bool,
    /// Where nulls go.
    pub nulls_first: bool,
}

/// What can be done to a frame.
#[derive(Clone)]
pub enum Op {
    /// Exactly these columns.
    Select(Vec<Named>),
    /// All columns, with these added or replaced.
    WithColumns(Vec<Named>),
    /// All columns but these.
    Drop(Vec<String>),
    /// Rows for which the expression is true.
    Filter(String),
    /// One row per distinct `keys`, with `values` (aggregate expressions).
    Aggregate { keys: Vec<Named>, values: Vec<Named> },
    /// With another frame; `on` are (left column, right column) pairs. Right columns whose name is taken get `suffix`.
    Join { right: Arc<dyn Frame>, kind: JoinKind, on: Vec<(String, String)>, suffix: String },
    /// Rows of both (same columns by name).
    Union(Arc<dyn Frame>),
    /// In this order.
    Sort(Vec<SortKey>),
    /// `count` rows after `skip`.
    Limit { skip: u64, count: u64 },
    /// Without repeated rows.
    Distinct,
    /// All columns, plus window expressions (`row_number() over (…)`).
    Window(Vec<Named>),
}

/// A value that crosses the boundary.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// SQL NULL.
    Null,
    /// BOOLEAN
    Boolean(bool),
    /// BIGINT
    Int64(i64),
    /// 128 bits, big endian: upids.
    UInt128(u128),
    /// DOUBLE
    Float64(f64),
    /// VARCHAR
    Utf8(String),
    /// BYTEA
    Binary(Vec<u8>),
    /// ns since the epoch.
    TimeNs(i64),
    /// Length of time in ns.
    DurationNs(i64),
}

/// Where a run's output goes as it is made.
pub trait Sink: Send + Sync {
    /// The script wants this frame shown under `name`. Called while the guest runs; whoever embeds decides when it is executed.
    fn display(&self, name: &str, frame: Arc<dyn Frame>) -> Result<(), Error>;
    /// Rows the script made itself.
    fn emit(&self, name: &str, batch: RecordBatch) -> Result<(), Error>;
    /// A view declared at run time (JSON as in a manifest).
    fn view(&self, json: &str) -> Result<(), Error>;
    /// A log line, already cut to its bound.
    fn log(&self, level: Level, message: &str);
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// finest
    Trace,
    /// for the author
    Debug,
    /// for the user
    Info,
    /// something is odd
    Warn,
    /// something is wrong
    Error,
}
