//! The way in: frames for scripts, and SQL. Both are logical plans of the same run; nothing runs until a frame is collected.
//!
//! **Time range.** Every scan has the predicate `start <= time_ < end` of the run's range, in SQL too; a script may give a
//! scan its own. A condition on `time_` in a query narrows the range and cannot widen it.
//!
//! **SQL** is one SELECT. There is no DDL, DML, COPY or SET, no `information_schema`, and no function that reads files or
//! the environment. `EXPLAIN SELECT …` gives the plan as rows of text.

mod bounds;
mod context;
mod expansion;
mod failure;
mod nearest;
mod ops;
mod parse;
mod size;
mod widths;

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::MemTable;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use host::backend::{Backend, Frame, Op, Scalar, TableInfo, TimeRange};
use host::error::Error;
use host::meter::Meter;

use crate::functions;
use crate::policy::Access;
use crate::present;
use crate::provider::{PemTable, table_of};
use crate::query::Query;

use context::Context;

/// Longest SQL text: the parser's work grows with it.
pub const SQL_BYTES_MAX: usize = 256 << 10;

/// Frames of a run.
pub(crate) struct Frames {
    query: Arc<Query>,
}

impl Frames {
    pub fn new(query: Arc<Query>) -> Self {
        Self { query }
    }

    fn frame(&self, plan: LogicalPlan) -> Arc<dyn Frame> {
        Arc::new(QueryFrame::new(self.query.clone(), plan))
    }

    /// Names the run may see.
    fn names(&self) -> Vec<&str> {
        self.query.table_names()
    }

    fn statement(&self, text: &str) -> Result<Statement, Error> {
        if text.len() > SQL_BYTES_MAX {
            return Err(failure::invalid(format!("the query is longer than {SQL_BYTES_MAX} bytes"), None));
        }
        size::check(text)?;
        let parsed = DFParserBuilder::new(text)
            .with_dialect(&GenericDialect {})
            .build()
            .and_then(|mut parser| parser.parse_statements())
            .map_err(|e| failure::to_error(e, text, &[], &self.query))?;
        let mut statements = parsed;
        match (statements.pop_front(), statements.is_empty()) {
            (Some(statement), true) => {
                let mut inner = &statement;
                while let Statement::Explain(explain) = inner {
                    inner = &explain.statement;
                }
                if let Statement::Statement(statement) = inner {
                    expansion::check(statement.as_ref())?;
                }
                Ok(statement)
            }
            (None, _) => Err(failure::invalid("the query is empty", Some("write a SELECT"))),
            (Some(_), false) => Err(failure::invalid("there is more than one statement", Some("run them one by one"))),
        }
    }

    fn plan(&self, statement: Statement, text: &str, parameters: &[(String, Scalar)]) -> Result<LogicalPlan, Error> {
        let select = matches!(&statement, Statement::Statement(inner) if matches!(**inner, SqlStatement::Query(_)));
        if !select {
            let what = statement.to_string();
            let what = what.split_whitespace().next().unwrap_or_default().to_uppercase();
            return Err(failure::invalid(
                format!("only SELECT is allowed, not {what}"),
                Some("tables are written by agents alone; settings are the server's"),
            ));
        }
        let context = Context::new(&self.query);
        let fail = |e| failure::to_error(e, text, &[], &self.query);
        let options = ParserOptions::from(&self.query.engine.state.config_options().sql_parser);
        let plan = SqlToRel::new_with_options(&context, options).statement_to_plan(statement).map_err(fail)?;
        // Before anything walks over it.
        bounds::check(&plan)?;
        let names = plan.get_parameter_names().map_err(fail)?;
        for name in &names {
            let bare = name.trim_start_matches('$');
            if !parameters.iter().any(|(known, _)| known.trim_start_matches('$') == bare) {
                let known: Vec<_> =
                    parameters.iter().map(|(name, _)| format!("${}", name.trim_start_matches('$'))).collect();
                let hint = if known.is_empty() {
                    "no parameters were given".to_owned()
                } else {
                    format!("parameters given: {}", known.join(", "))
                };
                return Err(failure::at_word(text, name, format!("parameter {name} has no value"), Some(hint)));
            }
        }
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| functions::check(expr).map(|()| TreeNodeRecursion::Continue))
        })
        .map_err(fail)?;
        if names.is_empty() {
            return Ok(plan);
        }
        let values = parameters
            .iter()
            .map(|(name, value)| {
                (name.trim_start_matches('$').to_owned(), ScalarAndMetadata::from(scalar_value(value)))
            })
            .collect::<HashMap<_, _>>();
        plan.with_param_values(ParamValues::Map(values)).map_err(fail)
    }
}

impl Backend for Frames {
    fn tables(&self) -> Vec<TableInfo> {
        let table = |name: &str| {
            let table = self.query.pem_table(name).ok()??;
            Some(TableInfo {
                name: name.to_owned(),
                description: table.def.description.clone(),
                schema: table.exposed.clone(),
            })
        };
        self.names().into_iter().filter_map(table).collect()
    }

    fn table(&self, name: &str, range: Option<TimeRange>) -> Result<Arc<dyn Frame>, Error> {
        let table = self.query.pem_table(name).map_err(|e| failure::to_error(e, name, &[], &self.query))?;
        let Some(table) = table else { return Err(failure::no_table(name, &self.names(), None)) };
        let table = match range {
            Some(range) => PemTable { range, ..table.as_ref().clone() },
            None => table.as_ref().clone(),
        };
        let plan = LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)
            .and_then(LogicalPlanBuilder::build)
            .map_err(|e| failure::to_error(e, name, &[], &self.query))?;
        Ok(self.frame(plan))
    }

    fn sql(&self, text: &str, parameters: &[(String, Scalar)]) -> Result<Arc<dyn Frame>, Error> {
        match self.statement(text)? {
            Statement::Explain(explain) => {
                if explain.options.analyze {
                    return Err(failure::invalid(
                        "EXPLAIN ANALYZE is not there",
                        Some("run the query: statistics come with the result"),
                    ));
                }
                let plan = self.plan(*explain.statement, text, parameters)?;
                let plan = self.query.explain(plan).map_err(|e| failure::to_error(e, text, &[], &self.query))?;
                let lines = StringArray::from(plan.lines().collect::<Vec<_>>());
                let schema = Schema::new(vec![Field::new("plan", DataType::Utf8, false)]);
                let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(lines)]);
                self.inline(batch.map_err(|e| Error::Internal(e.to_string()))?)
            }
            statement => Ok(self.frame(self.plan(statement, text, parameters)?)),
        }
    }

    fn inline(&self, batch: RecordBatch) -> Result<Arc<dyn Frame>, Error> {
        let internal = |e: datafusion::common::DataFusionError| Error::Internal(e.strip_backtrace());
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(internal)?;
        let plan = LogicalPlanBuilder::scan("rows", provider_as_source(Arc::new(table)), None)
            .and_then(LogicalPlanBuilder::build)
            .map_err(internal)?;
        Ok(self.frame(plan))
    }
}

impl Query {
    /// Names of tables the run may see, sorted.
    pub(crate) fn table_names(&self) -> Vec<&str> {
        let visible = |name: &&String| matches!(self.cx.policy.access(name), Access::Granted(_));
        let names = self.view.tables.keys().chain(self.engine.local.names());
        let mut names: Vec<&str> = names.filter(visible).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A lazy query of a run.
pub(crate) struct QueryFrame {
    pub query: Arc<Query>,
    pub plan: LogicalPlan,
    schema: SchemaRef,
}

impl QueryFrame {
    pub fn new(query: Arc<Query>, plan: LogicalPlan) -> Self {
        let schema = present::schema(plan.schema().as_arrow());
        Self { query, plan, schema }
    }
}

impl Frame for QueryFrame {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn apply(&self, op: &Op) -> Result<Arc<dyn Frame>, Error> {
        let plan = ops::apply(self, op)?;
        bounds::check(&plan)?;
        Ok(Arc::new(Self::new(self.query.clone(), plan)))
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn sources(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        let visited = self.plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(table) = table_of(&scan.source)
            {
                names.insert(table.def.name.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(visited.is_ok(), "visiting fails only if the visitor does");
        names.into_iter().collect()
    }

    fn explain(&self) -> Result<String, Error> {
        self.query.explain(self.plan.clone()).map_err(|e| failure::to_error(e, "", &[], &self.query))
    }

    fn collect(&self, meter: Arc<Meter>) -> BoxStream<'static, Result<RecordBatch, Error>> {
        let (query, plan) = (self.query.clone(), self.plan.clone());
        let failing = query.clone();
        async move { query.present(plan, meter).await }
            .into_stream()
            .try_flatten()
            .map_err(move |e| failure::to_error(e, "", &[], &failing))
            .boxed()
    }
}

fn scalar_value(value: &Scalar) -> ScalarValue {
    match value {
        Scalar::Null => ScalarValue::Null,
        Scalar::Boolean(value) => ScalarValue::Boolean(Some(*value)),
        Scalar::Int64(value) => ScalarValue::Int64(Some(*value)),
        Scalar::UInt128(value) => ScalarValue::FixedSizeBinary(16, Some(value.to_be_bytes().to_vec())),
        Scalar::Float64(value) => ScalarValue::Float64(Some(*value)),
        Scalar::Utf8(value) => ScalarValue::Utf8(Some(value.clone())),
        Scalar::Binary(value) => ScalarValue::Binary(Some(value.clone())),
        Scalar::TimeNs(value) => ScalarValue::TimestampNanosecond(Some(*value), Some("UTC".into())),
        Scalar::DurationNs(value) => ScalarValue::DurationNanosecond(Some(*value)),
    }
}
