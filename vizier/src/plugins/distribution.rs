//! Where plugins go that are no scripts: functions and protocols run beside the tables, on the PEMs. The store hands them over
//! here and knows nothing more of it.

use std::sync::Arc;

use host::error::Error;
use plugins_artifact::Artifact;

/// Gets plugins that are no scripts to where they run. Its calls come one at a time, from threads of the runtime that may be
/// blocked for long.
pub trait Distribution: Send + Sync + 'static {
    /// Whether this plugin can be used: asked before it is stored. What it refuses is not installed, and its error goes to
    /// whoever wanted it.
    fn admit(&self, plugin: &Artifact) -> Result<(), Error>;

    /// All that are enabled now, by name: told at the start and after every change, in place of what was told before. Gives
    /// those that cannot be used, and why.
    fn enabled(&self, plugins: Vec<Arc<Artifact>>) -> Vec<(String, String)>;
}
