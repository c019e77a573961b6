//! Installed plugins: taken from clients as artifacts, checked, stored, and made known to whatever runs them.
//!
//! One version of a plugin is enabled, normally the newest; up to [`store::VERSIONS_MAX`] are kept, and removing the enabled
//! one goes back to the newest before it. Everything is checked before anything is stored, what is stored is stored in one
//! transaction, and what runs follows from what is stored.

pub mod distribution;
mod policy;
pub mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use host_manifest::{Kind, nearest};
use plugins_artifact::{Artifact, Bundle, SIGNATURES_MAX};
use tokio::sync::{Mutex, OnceCell};
use tonic::Code;
use vizier_api::install_plugin_response::Outcome;
use vizier_api::{InstallPluginRequest, InstallPluginResponse, Plugin, RemovePluginRequest, RemovePluginResponse};

use crate::scripts::Scripts;
use crate::server::now_ns;
use crate::status::Refusal;

use distribution::Distribution;
pub use policy::Policy;
use store::{Entry, Store};

// Both sides must mean the same, and neither may know the other.
const _: () = assert!(plugins_artifact::COMPONENT_BYTES_MAX == vizier_api::COMPONENT_BYTES_MAX);
const _: () = assert!(
    plugins_artifact::MANIFEST_BYTES_MAX
        + plugins_artifact::CONFIG_BYTES_MAX
        + SIGNATURES_MAX * plugins_artifact::BUNDLE_BYTES_MAX
        < vizier_api::REQUEST_BYTES_MAX - vizier_api::COMPONENT_BYTES_MAX
);

/// The plugins of one Vizier.
pub struct Plugins {
    /// Or why there is none.
    store: Result<Arc<Store>, String>,
    policy: Policy,
    scripts: Arc<Scripts>,
    distribution: Arc<dyn Distribution>,
    /// Why enabled plugins that are no scripts cannot be used, by name.
    problems: std::sync::Mutex<BTreeMap<String, String>>,
    /// Done once what is enabled is known to whatever runs it.
    restored: OnceCell<()>,
    /// One change at a time: each looks first and acts then.
    changing: Mutex<()>,
}

impl Plugins {
    /// The plugins in the folder `state`. A store that cannot be opened takes nothing else with it.
    pub fn open(
        state: Option<&Path>,
        policy: Policy,
        scripts: Arc<Scripts>,
        distribution: Arc<dyn Distribution>,
    ) -> Arc<Self> {
        let store = match state {
            None => Err("it was started without a folder for them".to_owned()),
            Some(dir) => Store::open(dir).map(Arc::new).map_err(|error| {
                tracing::error!(dir = %dir.display(), %error, "there are no installed plugins");
                error.to_string()
            }),
        };
        let (restored, changing) = (OnceCell::new(), Mutex::new(()));
        let problems = std::sync::Mutex::default();
        Arc::new(Self { store, policy, scripts, distribution, problems, restored, changing })
    }

    /// Makes what is enabled known to whatever runs it. Everything that needs it waits here, and the first does it.
    pub async fn restore(&self) {
        self.restored
            .get_or_init(|| async {
                let Ok(store) = &self.store else { return };
                let entries = match blocking(store, Store::list).await {
                    Ok(entries) => entries,
                    Err(refusal) => {
                        tracing::error!(reason = %refusal, "installed plugins cannot be listed");
                        return;
                    }
                };
                let enabled: Vec<Entry> = entries.into_iter().filter(|entry| entry.enabled).collect();
                for entry in enabled.iter().filter(|entry| entry.record.kind == "script") {
                    self.enable(store, entry).await;
                }
                self.distribute(store, &enabled).await;
                tracing::info!(plugins = enabled.len(), "installed plugins are ready");
            })
            .await;
    }

    /// Installs a plugin, whole or not at all.
    pub async fn install(&self, request: InstallPluginRequest) -> Result<InstallPluginResponse, Refusal> {
        self.restore().await;
        let store = self.store()?;
        let _one = self.changing.lock().await;
        let replace = request.replace;
        let (artifact, signatures) = tokio::task::spawn_blocking(move || read(request)).await.map_err(internal)??;
        let artifact = Arc::new(artifact);
        self.policy.check(artifact.digest(), &signatures).map_err(|e| {
            let hint = e.hint.unwrap_or_default();
            Refusal {
                code: Code::PermissionDenied,
                message: format!("this vizier takes signed plugins only: {}", e.message),
                hint: format!("{hint}\npx up --trusted-key says whose signatures count"),
            }
        })?;
        let plugin = artifact.plugin();
        if self.scripts.bundles(&plugin.name).await {
            return Err(Refusal {
                code: Code::AlreadyExists,
                message: format!("a script that comes with Pyxis is called `{}`", plugin.name),
                hint: "give the plugin another name in its plugin.toml".into(),
            });
        }
        let entries = blocking(store, Store::list).await?;
        let there = entries.iter().find(|entry| entry.name == plugin.name && entry.enabled);
        let outcome = decide(&artifact, there, &entries, replace)?;
        if outcome == Outcome::Unchanged && self.problem(&plugin.name).is_none() {
            return self.answer(store, &artifact, outcome, String::new()).await;
        }
        // All that can fail for the plugin's own sake does so before it is stored.
        let script = if plugin.kind == Kind::Script {
            Some(self.scripts.compile_plugin(artifact.component().to_vec().into()).await?)
        } else {
            let (distribution, artifact) = (self.distribution.clone(), artifact.clone());
            tokio::task::spawn_blocking(move || distribution.admit(&artifact)).await.map_err(internal)??;
            None
        };
        let stored = artifact.clone();
        blocking(store, move |store| store.put(&stored, &signatures, now_ns())).await?;
        match script {
            Some(script) => self.scripts.install(&plugin.name, Ok(script)),
            // A plugin may change its kind from version to version.
            None => self.scripts.uninstall(&plugin.name),
        }
        self.redistribute(store).await?;
        let previous = there.map(|entry| entry.record.version.clone()).unwrap_or_default();
        tracing::info!(plugin = %plugin.name, version = %plugin.version, digest = %artifact.digest(), "a plugin was installed");
        self.answer(store, &artifact, outcome, previous).await
    }

    /// Removes a plugin or one version of it.
    pub async fn remove(&self, request: RemovePluginRequest) -> Result<RemovePluginResponse, Refusal> {
        self.restore().await;
        let store = self.store()?;
        let _one = self.changing.lock().await;
        let RemovePluginRequest { name, version } = request;
        let entries = blocking(store, Store::list).await?;
        let of_name: Vec<&Entry> = entries.iter().filter(|entry| entry.name == name).collect();
        if of_name.is_empty() {
            let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
            let hint = match nearest(&name, &names) {
                _ if self.scripts.bundles(&name).await => "it comes with Pyxis and cannot be removed".to_owned(),
                Some(near) => format!("did you mean `{near}`?"),
                None => "px plugin list shows what is installed".to_owned(),
            };
            return Err(Refusal::not_found(format!("no plugin `{name}` is installed"), hint));
        }
        if !version.is_empty() && !of_name.iter().any(|entry| entry.record.version == version) {
            let there: Vec<&str> = of_name.iter().map(|entry| entry.record.version.as_str()).collect();
            let message = format!("version {version} of `{name}` is not installed");
            return Err(Refusal::not_found(message, format!("installed are {}", there.join(", "))));
        }
        let (wanted, only) = (name.clone(), Some(version).filter(|version| !version.is_empty()));
        let gone = blocking(store, move |store| store.remove(&wanted, only.as_deref())).await?;
        let entries = blocking(store, Store::list).await?;
        let enabled = entries.iter().find(|entry| entry.name == name && entry.enabled);
        match enabled {
            None => self.scripts.uninstall(&name),
            Some(entry) if entry.record.kind == "script" => self.enable(store, entry).await,
            Some(_) => self.scripts.uninstall(&name),
        }
        self.redistribute(store).await?;
        tracing::info!(plugin = %name, versions = gone.len(), "a plugin was removed");
        Ok(RemovePluginResponse {
            versions: gone.into_iter().map(|entry| entry.record.version).collect(),
            enabled_version: enabled.map(|entry| entry.record.version.clone()).unwrap_or_default(),
        })
    }

    /// All versions, or those of one plugin.
    pub async fn list(&self, name: &str) -> Result<Vec<Plugin>, Refusal> {
        self.restore().await;
        let store = self.store()?;
        let entries = blocking(store, Store::list).await?;
        if !name.is_empty() && !entries.iter().any(|entry| entry.name == name) {
            return Err(Refusal::not_found(format!("no plugin `{name}` is installed"), "px plugin list shows what is"));
        }
        let mut plugins = Vec::new();
        for entry in entries.into_iter().filter(|entry| name.is_empty() || entry.name == name) {
            plugins.push(self.described(store, entry).await?);
        }
        Ok(plugins)
    }

    async fn answer(
        &self,
        store: &Arc<Store>,
        artifact: &Artifact,
        outcome: Outcome,
        previous_version: String,
    ) -> Result<InstallPluginResponse, Refusal> {
        let entries = blocking(store, Store::list).await?;
        let entry = entries.into_iter().find(|entry| entry.record.image == *artifact.digest());
        let entry = entry.ok_or_else(|| internal("the plugin is not where it was put"))?;
        let plugin = Some(self.described(store, entry).await?);
        Ok(InstallPluginResponse { outcome: outcome.into(), plugin, previous_version })
    }

    async fn described(&self, store: &Arc<Store>, entry: Entry) -> Result<Plugin, Refusal> {
        let Entry { name, enabled, record } = entry;
        let (policy, wanted) = (self.policy.clone(), record.clone());
        // Without trusted keys nobody's signature says anything.
        let signers = match policy.trusted.is_empty() {
            true => Vec::new(),
            false => {
                let checked = blocking(store, move |store| {
                    let (artifact, signatures) = store.artifact(&wanted)?;
                    Ok(policy.check(artifact.digest(), &signatures).unwrap_or_default())
                });
                checked.await.unwrap_or_default().into_iter().map(|signer| signer.key).collect()
            }
        };
        Ok(Plugin {
            problem: enabled.then(|| self.problem(&name)).flatten().unwrap_or_default(),
            name,
            version: record.version,
            kind: record.kind,
            description: record.description,
            digest: record.image.to_string(),
            component_digest: record.component.to_string(),
            bytes: record.component_bytes,
            installed_time_ns: record.installed_time_ns,
            enabled,
            signers,
        })
    }

    /// Makes a stored script known by its name, or why it cannot be used.
    async fn enable(&self, store: &Arc<Store>, entry: &Entry) {
        let script = match self.trusted(store, entry).await {
            Ok(artifact) => {
                let compiled = self.scripts.compile_plugin(artifact.component().to_vec().into()).await;
                compiled.map_err(|e| e.to_string())
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = &script {
            tracing::warn!(plugin = %entry.name, version = %entry.record.version, %reason, "a plugin cannot be used");
        }
        self.scripts.install(&entry.name, script);
    }

    async fn trusted(&self, store: &Arc<Store>, entry: &Entry) -> Result<Artifact, String> {
        let record = entry.record.clone();
        let (artifact, signatures) =
            blocking(store, move |store| store.artifact(&record)).await.map_err(|refusal| refusal.message)?;
        self.policy.check(artifact.digest(), &signatures).map_err(|e| e.message)?;
        Ok(artifact)
    }

    async fn redistribute(&self, store: &Arc<Store>) -> Result<(), Refusal> {
        let entries = blocking(store, Store::list).await?;
        let enabled: Vec<Entry> = entries.into_iter().filter(|entry| entry.enabled).collect();
        self.distribute(store, &enabled).await;
        Ok(())
    }

    /// Tells the whole set of enabled plugins that are no scripts.
    async fn distribute(&self, store: &Arc<Store>, enabled: &[Entry]) {
        let (mut plugins, mut problems) = (Vec::new(), BTreeMap::new());
        for entry in enabled.iter().filter(|entry| entry.record.kind != "script") {
            match self.trusted(store, entry).await {
                Ok(artifact) => plugins.push(Arc::new(artifact)),
                Err(reason) => drop(problems.insert(entry.name.clone(), reason)),
            }
        }
        let distribution = self.distribution.clone();
        match tokio::task::spawn_blocking(move || distribution.enabled(plugins)).await {
            Ok(unusable) => problems.extend(unusable),
            Err(error) => tracing::error!(%error, "handing plugins on ended badly"),
        }
        for (plugin, reason) in &problems {
            tracing::warn!(plugin, reason, "a plugin cannot be used");
        }
        *self.problems.lock().expect("no panic while it is held") = problems;
    }

    /// Why an enabled plugin cannot be used, if it cannot.
    fn problem(&self, name: &str) -> Option<String> {
        let distributed = || self.problems.lock().expect("no panic while it is held").get(name).cloned();
        self.scripts.problem(name).or_else(distributed)
    }

    fn store(&self) -> Result<&Arc<Store>, Refusal> {
        self.store.as_ref().map_err(|reason| Refusal {
            code: Code::FailedPrecondition,
            message: format!("this vizier keeps no plugins: {reason}"),
            hint: "px up --data-dir names the folder they are kept in".into(),
        })
    }
}

fn read(request: InstallPluginRequest) -> Result<(Artifact, Vec<Bundle>), Refusal> {
    if request.signatures.len() > SIGNATURES_MAX {
        let message =
            format!("{} signatures came with the plugin, at most {SIGNATURES_MAX} are taken", request.signatures.len());
        return Err(Refusal::invalid(message, "send those that matter"));
    }
    let artifact = Artifact::from_parts(request.image, request.config, request.component)?;
    let signatures = request.signatures.into_iter().map(Bundle::parse);
    Ok((artifact, signatures.collect::<Result<_, _>>()?))
}

/// What installing `artifact` over what is `there` means, or why it is refused.
fn decide(artifact: &Artifact, there: Option<&Entry>, all: &[Entry], replace: bool) -> Result<Outcome, Refusal> {
    let name = &artifact.plugin().name;
    let new = artifact.version();
    let taken = |message: String, hint: String| Err(Refusal { code: Code::AlreadyExists, message, hint });
    let same = all.iter().find(|entry| entry.name == *name && entry.version().as_ref() == Some(new));
    if let Some(same) = same.filter(|same| same.record.image != *artifact.digest() && !replace) {
        return taken(
            format!("version {new} of `{name}` is installed already, with other content ({})", same.record.image),
            "raise the version in plugin.toml, or put this in its place with --replace".into(),
        );
    }
    let Some(there) = there else { return Ok(Outcome::Installed) };
    if there.record.image == *artifact.digest() {
        return Ok(Outcome::Unchanged);
    }
    let old = there.version();
    match old.as_ref() {
        Some(old) if new < old && !replace => taken(
            format!("version {new} of `{name}` is older than {old}, which is enabled"),
            format!("go back with px plugin remove {name}@{old}, or install the older one over it with --replace"),
        ),
        Some(old) if new < old => Ok(Outcome::Downgraded),
        Some(old) if new == old => Ok(Outcome::Replaced),
        _ => Ok(Outcome::Upgraded),
    }
}

/// The store's work is a disk's: off the threads that serve.
async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, store::Error> + Send + 'static,
) -> Result<T, Refusal> {
    let store = store.clone();
    Ok(tokio::task::spawn_blocking(move || work(&store)).await.map_err(internal)??)
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    host::error::Error::Internal(error.to_string()).into()
}

impl From<plugins_artifact::Error> for Refusal {
    fn from(error: plugins_artifact::Error) -> Self {
        let code = match error.kind {
            plugins_artifact::Kind::Untrusted => Code::PermissionDenied,
            _ => Code::InvalidArgument,
        };
        Self { code, message: error.message, hint: error.hint.unwrap_or_default() }
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Full(message) => Self {
                code: Code::ResourceExhausted,
                message,
                hint: "remove what is not needed: px plugin list, px plugin remove NAME".into(),
            },
            other => internal(other),
        }
    }
}
