//! The scripts there are: installed and bundled ones by name, and those that clients have sent, by digest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use host::error::Error;
use host_manifest::{Kind, Manifest, nearest};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};
use vizier_api::COMPONENT_BYTES_MAX;

use crate::status::Refusal;

/// Components compiled at once: one that takes long must not keep the others waiting. The compilers run at low priority.
const COMPILING_MAX: usize = 2;

/// A compiled script and where it is from.
pub struct Loaded {
    /// Ready to run.
    pub script: Arc<host::Script>,
    /// `sha256:<hex>` of the component.
    pub digest: String,
    /// Where it is from.
    pub origin: Origin,
}

/// Where a script is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It came with Vizier.
    Bundled,
    /// A plugin that was installed.
    Installed,
    /// A client sent it to be run.
    Sent,
}

impl Loaded {
    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        self.script.manifest()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.manifest().name
    }
}

/// All scripts of one Vizier.
pub struct Scripts {
    runtime: host::Runtime,
    dir: Option<PathBuf>,
    bundled: OnceCell<Bundled>,
    /// By name; why it cannot be used, where it cannot.
    installed: Mutex<BTreeMap<String, Result<Arc<Loaded>, String>>>,
    /// By digest, the longest unused first.
    seen: Mutex<Vec<Arc<Loaded>>>,
    kept: usize,
    compiling: Arc<Semaphore>,
}

#[derive(Default)]
struct Bundled {
    scripts: BTreeMap<String, Arc<Loaded>>,
    /// Files that could not be loaded, by the name they would have had.
    broken: BTreeMap<String, String>,
}

impl Scripts {
    /// Scripts in `dir` (`*.wasm`), and at most `kept` that come from clients.
    pub fn new(runtime: host::Runtime, dir: Option<PathBuf>, kept: usize) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            dir,
            bundled: OnceCell::new(),
            installed: Mutex::default(),
            seen: Mutex::default(),
            kept: kept.max(1),
            compiling: Arc::new(Semaphore::new(COMPILING_MAX)),
        })
    }

    /// Compiles the bundled scripts, so that the first request does not wait for it.
    pub async fn warm(&self) {
        self.bundled().await;
    }

    /// Every script: those with names by name, then those that were sent. An installed one hides a bundled one of its name.
    pub async fn list(&self) -> Vec<Arc<Loaded>> {
        let mut named = self.bundled().await.scripts.clone();
        for (name, script) in self.installed().iter() {
            match script {
                Ok(script) => named.insert(name.clone(), script.clone()),
                Err(_) => named.remove(name),
            };
        }
        let mut sent: Vec<_> = self.lock().iter().filter(|s| s.origin == Origin::Sent).cloned().collect();
        sent.sort_by(|a, b| a.name().cmp(b.name()).then_with(|| a.digest.cmp(&b.digest)));
        named.into_values().chain(sent).collect()
    }

    /// An installed or bundled script.
    pub async fn by_name(&self, name: &str) -> Result<Arc<Loaded>, Refusal> {
        let bundled = self.bundled().await;
        if let Some(installed) = self.installed().get(name) {
            return installed.clone().map_err(|reason| Refusal {
                code: tonic::Code::FailedPrecondition,
                message: format!("the installed plugin `{name}` cannot be used: {reason}"),
                hint: format!("install another version, or remove it: px plugin remove {name}"),
            });
        }
        if let Some(script) = bundled.scripts.get(name) {
            return Ok(script.clone());
        }
        if let Some(reason) = bundled.broken.get(name) {
            let hint = "build the bundled scripts again: cargo xtask guests".to_owned();
            let message = format!("the bundled script `{name}` cannot be used: {reason}");
            return Err(Refusal { code: tonic::Code::FailedPrecondition, message, hint });
        }
        let installed = self.installed();
        let names: Vec<&str> = bundled.scripts.keys().chain(installed.keys()).map(String::as_str).collect();
        let hint = match (nearest(name, &names), names.is_empty()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, true) => "this vizier has no bundled scripts: build them with cargo xtask guests".to_owned(),
            (None, false) => format!("there are {}", names.join(", ")),
        };
        Err(Refusal::not_found(format!("no script is called `{name}`"), hint))
    }

    /// Whether a script of that name came with Vizier.
    pub async fn bundles(&self, name: &str) -> bool {
        let bundled = self.bundled().await;
        bundled.scripts.contains_key(name) || bundled.broken.contains_key(name)
    }

    /// Compiles the component of a plugin; [`Scripts::install`] then makes it known.
    pub async fn compile_plugin(&self, component: bytes::Bytes) -> Result<Arc<Loaded>, Error> {
        let digest = digest_of(&component);
        self.compile(component, digest, Origin::Installed).await
    }

    /// Makes a script, or why it cannot be used, known by its name, in place of what had the name.
    pub fn install(&self, name: &str, script: Result<Arc<Loaded>, String>) {
        self.installed().insert(name.to_owned(), script);
    }

    /// Forgets an installed script. Runs of it go on.
    pub fn uninstall(&self, name: &str) {
        self.installed().remove(name);
    }

    /// Why an installed script cannot be used, if it cannot.
    pub fn problem(&self, name: &str) -> Option<String> {
        self.installed().get(name)?.as_ref().err().cloned()
    }

    /// A script that was installed, bundled or sent before.
    pub async fn by_digest(&self, digest: &str) -> Result<Arc<Loaded>, Refusal> {
        if let Some(script) = self.recall(digest) {
            return Ok(script);
        }
        let bundled = self.bundled().await.scripts.values().find(|s| s.digest == digest).cloned();
        let installed = || self.installed().values().flatten().find(|s| s.digest == digest).cloned();
        let unknown = || Refusal::not_found(format!("no script with digest {digest} is known here"), "send its bytes");
        bundled.or_else(installed).ok_or_else(unknown)
    }

    /// A script as bytes, compiled unless it is known.
    pub async fn by_bytes(&self, component: bytes::Bytes) -> Result<Arc<Loaded>, Refusal> {
        let digest = digest_of(&component);
        if let Ok(known) = self.by_digest(&digest).await {
            return Ok(known);
        }
        let loaded = self.compile(component, digest, Origin::Sent).await?;
        let mut seen = self.lock();
        if seen.len() >= self.kept {
            seen.remove(0);
        }
        seen.push(loaded.clone());
        Ok(loaded)
    }

    async fn compile(&self, component: bytes::Bytes, digest: String, origin: Origin) -> Result<Arc<Loaded>, Error> {
        let permit = self.compiling.clone().acquire_owned().await;
        let runtime = self.runtime.clone();
        let compile = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let script = runtime.load(&component)?;
            Ok(Arc::new(Loaded { script, digest, origin }))
        });
        compile.await.map_err(|e| Error::Internal(format!("compiling ended badly: {e}")))?
    }

    fn recall(&self, digest: &str) -> Option<Arc<Loaded>> {
        let mut seen = self.lock();
        let at = seen.iter().position(|s| s.digest == digest)?;
        let script = seen.remove(at);
        seen.push(script.clone());
        Some(script)
    }

    async fn bundled(&self) -> &Bundled {
        self.bundled
            .get_or_init(|| async {
                match &self.dir {
                    Some(dir) => self.load_dir(dir).await,
                    None => Bundled::default(),
                }
            })
            .await
    }

    async fn load_dir(&self, dir: &Path) -> Bundled {
        let mut bundled = Bundled::default();
        let paths = match components_in(dir) {
            Ok(paths) => paths,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "there are no bundled scripts: the folder cannot be read");
                return bundled;
            }
        };
        for path in paths {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if kind_in(&path).is_some_and(|kind| kind != Kind::Script) {
                continue;
            }
            match self.load_file(&path).await {
                Ok(script) => {
                    bundled.scripts.insert(script.name().to_owned(), script);
                }
                Err(reason) => {
                    tracing::warn!(file = %path.display(), %reason, "a bundled script cannot be used");
                    bundled.broken.insert(stem, reason);
                }
            }
        }
        tracing::info!(scripts = bundled.scripts.len(), "bundled scripts are ready");
        bundled
    }

    async fn load_file(&self, path: &Path) -> Result<Arc<Loaded>, String> {
        let bytes = tokio::fs::metadata(path).await.map_err(|e| e.to_string())?.len();
        if bytes > COMPONENT_BYTES_MAX as u64 {
            return Err(format!("it has {bytes} bytes, at most {COMPONENT_BYTES_MAX} are taken"));
        }
        let component = tokio::fs::read(path).await.map_err(|e| e.to_string())?;
        let digest = digest_of(&component);
        self.compile(component.into(), digest, Origin::Bundled).await.map_err(|e| e.to_string())
    }

    fn installed(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Result<Arc<Loaded>, String>>> {
        self.installed.lock().expect("no panic while it is held")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Loaded>>> {
        self.seen.lock().expect("no panic while it is held")
    }
}

/// `sha256:<hex>`
pub fn digest_of(component: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(component) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Kind of the plugin in the file, if it is one.
fn kind_in(path: &Path) -> Option<Kind> {
    let component = std::fs::read(path).ok()?;
    Some(host::admission::inspect(&component).ok()?.manifest.kind)
}

pub(crate) fn components_in(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "wasm"))
        .collect();
    paths.sort();
    Ok(paths)
}
