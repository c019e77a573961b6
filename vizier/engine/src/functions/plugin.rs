//! Functions that plugins bring. SQL and expressions call them by name like any other; each run has them bound to its own
//! budget ([`host::function::Bounds`]). Inside a fragment they are called by digest and name: the codec writes these in place of
//! a function's name, and the agent binds its own copy of the plugin to the fragment.

mod agent;
mod aggregate;
mod scalar;
mod table;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use host::function::{Bound, Bounds, FunctionPlugin};
use host::manifest::function::{Export, ExportKind};

use crate::error::Fault;
use crate::exchange::Plugin;

pub(crate) use agent::AgentFunctions;
pub(crate) use aggregate::PluginAggregate;
pub(crate) use scalar::PluginScalar;
pub(crate) use table::{PluginTable, constants};

/// Kind of these plugins, for agents.
pub(crate) const KIND: &str = "function";

/// A function plugin as Vizier has it.
#[derive(Clone, Debug)]
pub struct FunctionComponent {
    /// Ready to be called.
    pub plugin: Arc<FunctionPlugin>,
    /// Its bytes, for the agents.
    pub component: Bytes,
}

/// The functions of plugins at one moment.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    by_name: BTreeMap<String, Arc<FunctionPlugin>>,
    plugins: Vec<FunctionComponent>,
}

impl Functions {
    /// Those of the plugins that can be taken, and why the others cannot: a plugin is taken whole or not at all. `built_in` says
    /// whether a function is the engine's own.
    pub fn of(plugins: Vec<FunctionComponent>, built_in: impl Fn(&str) -> bool) -> (Self, Vec<(String, String)>) {
        let (mut taken, mut refused) = (Self::default(), Vec::new());
        for component in plugins {
            let manifest = component.plugin.manifest();
            let clash = manifest.exports.iter().find_map(|export| {
                let name = &export.name;
                if built_in(name) {
                    return Some(format!("its function `{name}` has the name of a built-in one: give it another name"));
                }
                let other = &taken.by_name.get(name)?.manifest().name;
                Some(format!("its function `{name}` is one of plugin `{other}` already: give it another name, or remove that plugin"))
            });
            if let Some(why) = clash {
                refused.push((manifest.name.clone(), why));
                continue;
            }
            for export in &manifest.exports {
                taken.by_name.insert(export.name.clone(), component.plugin.clone());
            }
            taken.plugins.push(component);
        }
        (taken, refused)
    }

    /// For agents.
    pub fn components(&self) -> Vec<Plugin> {
        let of = |component: &FunctionComponent| Plugin {
            digest: component.plugin.digest().to_owned(),
            kind: KIND.to_owned(),
            name: component.plugin.manifest().name.clone(),
            component: component.component.clone(),
        };
        self.plugins.iter().map(of).collect()
    }

    /// The function and its plugin.
    pub fn get(&self, name: &str) -> Option<(&Arc<FunctionPlugin>, &Export)> {
        let plugin = self.by_name.get(name)?;
        Some((plugin, plugin.manifest().exports.iter().find(|e| e.name == name)?))
    }

    /// Names of functions of that kind.
    pub fn names(&self, kind: ExportKind) -> impl Iterator<Item = &str> {
        let of_kind = move |(name, plugin): &(&String, &Arc<FunctionPlugin>)| {
            plugin.manifest().exports.iter().any(|e| e.name == **name && e.kind == kind)
        };
        self.by_name.iter().filter(of_kind).map(|(name, _)| name.as_str())
    }
}

/// What functions of plugins a run has called so far: every call of one function shares its instances.
#[derive(Debug)]
pub(crate) struct Calls {
    functions: Arc<Functions>,
    bounds: Arc<Bounds>,
    scalars: std::sync::Mutex<BTreeMap<String, Arc<ScalarUDF>>>,
    aggregates: std::sync::Mutex<BTreeMap<String, Arc<AggregateUDF>>>,
}

impl Calls {
    pub fn new(functions: Arc<Functions>, bounds: Arc<Bounds>) -> Self {
        Self { functions, bounds, scalars: Default::default(), aggregates: Default::default() }
    }

    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    pub fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let mut known = self.scalars.lock().expect("no panic while it is held");
        if let Some(function) = known.get(name) {
            return Some(function.clone());
        }
        let bound = self.bound(name, ExportKind::Scalar)?;
        let function = Arc::new(ScalarUDF::new_from_impl(PluginScalar::new(bound)));
        known.insert(name.to_owned(), function.clone());
        Some(function)
    }

    pub fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        let mut known = self.aggregates.lock().expect("no panic while it is held");
        if let Some(function) = known.get(name) {
            return Some(function.clone());
        }
        let bound = self.bound(name, ExportKind::Aggregate)?;
        let function = Arc::new(AggregateUDF::new_from_impl(PluginAggregate::new(bound)));
        known.insert(name.to_owned(), function.clone());
        Some(function)
    }

    pub fn table(&self, name: &str) -> Option<Arc<Bound>> {
        self.bound(name, ExportKind::Table)
    }

    fn bound(&self, name: &str, kind: ExportKind) -> Option<Arc<Bound>> {
        let (plugin, export) = self.functions.get(name)?;
        if export.kind != kind {
            return None;
        }
        plugin.bind(name, self.bounds.clone()).ok().map(Arc::new)
    }
}

/// The host's error as the engine carries it.
pub(crate) fn fault(error: host::error::Error) -> DataFusionError {
    use host::error::{Error, Exhausted};
    match error {
        Error::Cancelled => Fault::Cancelled.into(),
        Error::Exhausted(Exhausted::Deadline) => Fault::Deadline.into(),
        error => Fault::Function(error).into(),
    }
}

/// A function as a plan names it on its way to an agent.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FunctionRef {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(string, tag = "2")]
    pub name: String,
}

impl FunctionRef {
    pub fn of(bound: &Bound) -> Self {
        Self { digest: bound.plugin().digest().to_owned(), name: bound.export().name.clone() }
    }
}

/// What a fragment's plan is decoded with: functions by digest and name.
#[derive(Debug)]
pub(crate) struct FragmentFunctions {
    pub held: Option<Arc<AgentFunctions>>,
    pub bounds: Arc<Bounds>,
    bound: std::sync::Mutex<BTreeMap<(String, String), Arc<Bound>>>,
}

impl FragmentFunctions {
    pub fn new(held: Option<Arc<AgentFunctions>>, bounds: Arc<Bounds>) -> Self {
        Self { held, bounds, bound: Default::default() }
    }

    pub fn bound(&self, function: &FunctionRef) -> Result<Arc<Bound>> {
        let mut bound = self.bound.lock().expect("no panic while it is held");
        let key = (function.digest.clone(), function.name.clone());
        if let Some(known) = bound.get(&key) {
            return Ok(known.clone());
        }
        let plugin = self.held.as_ref().and_then(|held| held.get(&function.digest)).ok_or_else(|| {
            DataFusionError::from(Fault::Node(format!(
                "it does not have the plugin of the function `{}`",
                function.name
            )))
        })?;
        let made = Arc::new(plugin.bind(&function.name, self.bounds.clone()).map_err(fault)?);
        bound.insert(key, made.clone());
        Ok(made)
    }
}
