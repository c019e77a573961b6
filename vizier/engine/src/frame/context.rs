//! What names mean while SQL is planned: the run's tables, and the engine's functions. Nothing else can be named.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::{DataFusionError, Result, TableReference, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner};
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use host::manifest::function::ExportKind;

use super::nearest::nearest;
use crate::functions::plugin::{PluginTable, constants};
use crate::query::Query;

pub(super) struct Context<'a> {
    query: &'a Query,
}

/// A name that is not there.
#[derive(Debug, thiserror::Error)]
#[error("no table `{0}`")]
pub(super) struct NoTable(pub String);

impl<'a> Context<'a> {
    pub fn new(query: &'a Query) -> Self {
        Self { query }
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let found = match &name {
            TableReference::Bare { table } => self.query.pem_table(table)?,
            _ => None,
        };
        match found {
            Some(table) => Ok(provider_as_source(table)),
            None => Err(DataFusionError::External(Box::new(NoTable(name.to_string())))),
        }
    }

    fn get_table_function_source(&self, name: &str, arguments: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        let Some(function) = self.query.calls().table(name) else {
            let near = nearest(name, self.query.calls().functions().names(ExportKind::Table));
            return match near {
                Some(near) => plan_err!("there is no table function `{name}`\ndid you mean `{near}`?"),
                None => plan_err!("there is no table function `{name}`: tables are all there is to select from"),
            };
        };
        let arguments = constants(name, arguments, &self.query.engine.state)?;
        Ok(provider_as_source(Arc::new(PluginTable::new(function, &arguments)?)))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.query.engine.state.expr_planners()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let own = self.query.engine.state.scalar_functions().get(name).cloned();
        own.or_else(|| self.query.calls().scalar(name))
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.query.engine.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        let own = self.query.engine.state.aggregate_functions().get(name).cloned();
        own.or_else(|| self.query.calls().aggregate(name))
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.query.engine.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.query.engine.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        let plugins = self.query.calls().functions().names(ExportKind::Scalar).map(str::to_owned);
        self.query.engine.state.scalar_functions().keys().cloned().chain(plugins).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.query.engine.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        let plugins = self.query.calls().functions().names(ExportKind::Aggregate).map(str::to_owned);
        self.query.engine.state.aggregate_functions().keys().cloned().chain(plugins).collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.query.engine.state.window_functions().keys().cloned().collect()
    }
}
