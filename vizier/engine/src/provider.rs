//! A table as the planner sees it on Vizier: columns, no data.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use datafusion::datasource::TableType;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use host::backend::TimeRange;

use crate::exchange::{TableDef, View};
use crate::leaf::{PemScanExec, Scan, TIME};
use crate::local::LocalTable;

/// A table in a time range, for one run.
#[derive(Clone, Debug)]
pub(crate) struct PemTable {
    pub def: Arc<TableDef>,
    pub view: Arc<View>,
    /// It is Vizier's own: no agent is asked.
    pub local: Option<LocalTable>,
    pub range: TimeRange,
    /// Partitions each agent reads it in.
    pub per_agent: usize,
    /// Rows the run may see; columns are the table's own.
    pub predicate: Option<Expr>,
    /// Positions of columns that read as NULL.
    pub masked: BTreeSet<usize>,
    /// Columns as the run sees them.
    pub exposed: SchemaRef,
    /// Set by the guard alone, once the two above stand above the scan. Nothing else can be planned.
    pub guarded: bool,
}

impl PemTable {
    /// The columns as a run sees them: masked ones may be null.
    pub fn exposed(schema: &SchemaRef, masked: &BTreeSet<usize>) -> SchemaRef {
        if masked.is_empty() {
            return schema.clone();
        }
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| {
                let field = field.as_ref().clone();
                if masked.contains(&i) { field.with_nullable(true) } else { field }
            })
            .collect();
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
    }

    /// The scan that stands below policy.
    pub fn guarded(&self) -> Self {
        Self { exposed: self.def.schema.clone(), guarded: true, ..self.clone() }
    }
}

#[async_trait]
impl TableProvider for PemTable {
    fn schema(&self) -> SchemaRef {
        self.exposed.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // What Vizier keeps is small: the range is narrowed, and the planner filters.
        let push = if self.local.is_some() {
            TableProviderFilterPushDown::Inexact
        } else {
            TableProviderFilterPushDown::Exact
        };
        Ok(vec![push; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !self.guarded {
            return internal_err!("table {} was about to be read without its policy", self.def.name);
        }
        let mut range = self.range;
        let filters: Vec<Expr> =
            filters.iter().filter(|filter| !narrow(filter, &mut range)).cloned().map(unnormalize_col).collect();
        if let Some(local) = &self.local {
            return local.scan(range, projection);
        }

        let schema = &self.def.schema;
        let mut source: Vec<usize> = match projection {
            Some(columns) => columns.clone(),
            None => (0..schema.fields().len()).collect(),
        };
        let output = source.len();
        for filter in &filters {
            let mut columns: Vec<_> =
                filter.column_refs().into_iter().map(|c| schema.index_of(c.name())).collect::<Result<_, _>>()?;
            columns.sort_unstable();
            for column in columns {
                if !source.contains(&column) {
                    source.push(column);
                }
            }
        }
        let source = Arc::new(schema.project(&source)?);
        let df_schema = DFSchema::try_from(source.as_ref().clone())?;
        let filters =
            filters.into_iter().map(|f| session.create_physical_expr(f, &df_schema)).collect::<Result<_>>()?;
        let scan = Scan {
            table: self.def.name.clone(),
            source,
            projection: (0..output).collect(),
            filters,
            range,
            fetch: limit,
        };
        let partitions = self.view.agents.len().max(1) * self.per_agent;
        let rows = usize::try_from(self.def.rows).ok();
        Ok(Arc::new(PemScanExec::try_new(scan, partitions, Some(self.view.clone()), rows)?))
    }
}

/// Narrows the range by a filter on `time_`. True if the range then says all that the filter said.
fn narrow(filter: &Expr, range: &mut TimeRange) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return false };
    let (column, op, literal) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(literal, _)) => (column, *op, literal),
        (Expr::Literal(literal, _), Expr::Column(column)) => match op.swap() {
            Some(op) => (column, op, literal),
            None => return false,
        },
        _ => return false,
    };
    let ScalarValue::TimestampNanosecond(Some(at), _) = literal else { return false };
    if column.name() != TIME {
        return false;
    }
    let after = at.saturating_add(1);
    match op {
        Operator::GtEq => range.start_ns = range.start_ns.max(*at),
        Operator::Gt => range.start_ns = range.start_ns.max(after),
        Operator::Lt => range.end_ns = range.end_ns.min(*at),
        Operator::LtEq => range.end_ns = range.end_ns.min(after),
        Operator::Eq => {
            range.start_ns = range.start_ns.max(*at);
            range.end_ns = range.end_ns.min(after);
        }
        _ => return false,
    }
    true
}

/// The engine's own table behind a source, if it is one.
pub(crate) fn table_of(source: &Arc<dyn datafusion::logical_expr::TableSource>) -> Option<&PemTable> {
    let source: &dyn Any = source.as_ref();
    let source = source.downcast_ref::<datafusion::catalog::default_table_source::DefaultTableSource>()?;
    let provider: &dyn Any = source.table_provider.as_ref();
    provider.downcast_ref::<PemTable>()
}
