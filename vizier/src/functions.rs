//! The bundled function plugins: compiled before the first query, and sent to the agents by the engine.

use std::path::{Path, PathBuf};

use host::Runtime;
use host_manifest::Kind;
use vizier_api::COMPONENT_BYTES_MAX;
use vizier_engine::{Engine, FunctionComponent};

use crate::scripts::components_in;

/// Makes the functions of the plugins in `dir` known. What cannot be used is told in the log, and is not there.
pub async fn load(dir: Option<&Path>, runtime: &Runtime, engine: &Engine) {
    let Some(dir) = dir.map(Path::to_owned) else { return };
    let runtime = runtime.clone();
    let compiled = tokio::task::spawn_blocking(move || compile(&dir, &runtime)).await;
    let plugins = compiled.unwrap_or_else(|error| {
        tracing::error!(%error, "compiling function plugins ended badly");
        Vec::new()
    });
    for (plugin, reason) in engine.set_functions(plugins) {
        tracing::warn!(plugin, reason, "a function plugin cannot be used");
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
