//! Where plugins go that are no scripts: functions and protocols run beside the tables, on the PEMs. The store hands them over
//! here and knows nothing more of it.

use std::sync::Arc;

use host::error::Error;
use plugins_artifact::Artifact;

/// Gets plugins that are no scripts to where they run.
pub trait Distribution: Send + Sync + 'static {
    /// Whether this plugin can be used: asked before it is stored, on a thread that may be blocked for long. What it refuses is
    /// not installed, and its error goes to whoever wanted it.
    fn admit(&self, plugin: &Artifact) -> Result<(), Error>;

    /// All that are enabled now, by name: told at the start and after every change, in place of what was told before. Returns
    /// at once; the rest is reconciled in the background.
    fn enabled(&self, plugins: Vec<Arc<Artifact>>);
}

/// A Vizier that has scripts only.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScriptsOnly;

impl Distribution for ScriptsOnly {
    fn admit(&self, plugin: &Artifact) -> Result<(), Error> {
        Err(Error::Invalid {
            message: format!("this vizier runs scripts only, and {} is none", plugin.plugin().name),
            hint: Some("use a newer release of Pyxis".into()),
            position: None,
        })
    }

    fn enabled(&self, _plugins: Vec<Arc<Artifact>>) {}
}
