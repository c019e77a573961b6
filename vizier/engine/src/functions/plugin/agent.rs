//! An agent's function plugins.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use host::Runtime;
use host::function::FunctionPlugin;

use crate::exchange::PluginHandler;

/// Function plugins that Vizier sent, compiled.
pub(crate) struct AgentFunctions {
    runtime: Runtime,
    held: Mutex<BTreeMap<String, Arc<FunctionPlugin>>>,
}

impl std::fmt::Debug for AgentFunctions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentFunctions").finish_non_exhaustive()
    }
}

impl AgentFunctions {
    pub fn new(runtime: Runtime) -> Self {
        Self { runtime, held: Mutex::default() }
    }

    pub fn get(&self, digest: &str) -> Option<Arc<FunctionPlugin>> {
        self.lock().get(digest).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<FunctionPlugin>>> {
        self.held.lock().expect("no panic while it is held")
    }
}

impl PluginHandler for AgentFunctions {
    fn load(&self, digest: &str, component: &[u8]) -> Result<(), String> {
        let plugin = self.runtime.load_function(component).map_err(|e| e.to_string())?;
        self.lock().insert(digest.to_owned(), plugin);
        Ok(())
    }

    fn unload(&self, digest: &str) {
        self.lock().remove(digest);
    }
}
