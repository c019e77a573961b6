//! Function plugins: the bundled ones, and those that are installed. Compiled here, and sent to the agents by the engine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use host::Runtime;
use host::error::Error;
use host_manifest::Kind;
use plugins_artifact::Artifact;
use vizier_api::COMPONENT_BYTES_MAX;
use vizier_engine::{Engine, FunctionComponent};

use crate::plugins::distribution::Distribution;
use crate::scripts::components_in;

/// The functions of this Vizier.
pub struct Functions {
    runtime: Runtime,
    engine: Engine,
    bundled: Vec<FunctionComponent>,
    /// The installed ones that were enabled last.
    installed: Mutex<Vec<Arc<Artifact>>>,
}

impl Functions {
    /// Makes the functions of the plugins in `dir` known. What cannot be used is told in the log, and is not there.
    pub async fn load(dir: Option<&Path>, runtime: Runtime, engine: Engine) -> Arc<Self> {
        let (dir, compiler) = (dir.map(Path::to_owned), runtime.clone());
        let compiled =
            tokio::task::spawn_blocking(move || dir.map_or_else(Vec::new, |dir| compile(&dir, &compiler))).await;
        let bundled = compiled.unwrap_or_else(|error| {
            tracing::error!(%error, "compiling function plugins ended badly");
            Vec::new()
        });
        for (plugin, reason) in engine.set_functions(bundled.clone()) {
            tracing::warn!(plugin, reason, "a function plugin cannot be used");
        }
        Arc::new(Self { runtime, engine, bundled, installed: Mutex::default() })
    }

    fn component(&self, artifact: &Artifact) -> Result<FunctionComponent, Error> {
        let plugin = self.runtime.load_function(artifact.component())?;
        Ok(FunctionComponent { plugin, component: artifact.component().to_vec().into() })
    }
}

impl Distribution for Functions {
    fn admit(&self, plugin: &Artifact) -> Result<(), Error> {
        let manifest = plugin.plugin();
        let invalid = |message, hint: &str| Err(Error::Invalid { message, hint: Some(hint.into()), position: None });
        if manifest.kind != Kind::Function {
            return invalid(
                format!(
                    "this vizier runs scripts and functions, and `{}` is a {}",
                    manifest.name,
                    manifest.kind.name()
                ),
                "use a newer release of Pyxis",
            );
        }
        self.component(plugin)?;
        let installed = self.installed.lock().expect("no panic while it is held");
        // What it replaces has these names, and gives them up.
        let own = installed.iter().map(|other| other.plugin()).find(|other| other.name == manifest.name);
        let taken = self.engine.functions();
        let clash = manifest.exports.iter().map(|export| &export.name).find(|name| {
            taken.contains(*name) && !own.is_some_and(|own| own.exports.iter().any(|export| export.name == **name))
        });
        match clash {
            Some(name) => invalid(format!("its function `{name}` has a name that is taken"), "give it another name"),
            None => Ok(()),
        }
    }

    fn enabled(&self, plugins: Vec<Arc<Artifact>>) -> Vec<(String, String)> {
        let (mut components, mut problems) = (self.bundled.clone(), Vec::new());
        for artifact in &plugins {
            match self.component(artifact) {
                Ok(component) => components.push(component),
                Err(error) => problems.push((artifact.plugin().name.clone(), error.to_string())),
            }
        }
        *self.installed.lock().expect("no panic while it is held") = plugins;
        problems.extend(self.engine.set_functions(components));
        problems
    }
}

fn compile(dir: &Path, runtime: &Runtime) -> Vec<FunctionComponent> {
    // That the folder cannot be read is told where scripts are looked for.
    let paths = components_in(dir).unwrap_or_default();
    paths.into_iter().filter_map(|path| component(path, runtime)).collect()
}

fn component(path: PathBuf, runtime: &Runtime) -> Option<FunctionComponent> {
    let bytes = std::fs::metadata(&path).ok()?.len();
    if bytes > COMPONENT_BYTES_MAX as u64 {
        return None;
    }
    let component = std::fs::read(&path).ok()?;
    if host::admission::inspect(&component).ok()?.manifest.kind != Kind::Function {
        return None;
    }
    match runtime.load_function(&component) {
        Ok(plugin) => Some(FunctionComponent { plugin, component: component.into() }),
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "a function plugin cannot be used");
            None
        }
    }
}
