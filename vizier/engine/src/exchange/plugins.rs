//! How plugins come to agents: Vizier says which ones it wants them to have, an agent answers which of these it lacks, and
//! gets those. What an agent does with one is a matter of its kind, see [`PluginHandler`].
//!
//! Vizier sends what there is when an agent connects and when the set changes; a query that needs some waits until its agents
//! have been asked. A plugin that an agent cannot load is a named gap of the queries that need it, and of nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow_flight::Action;
use prost::Message;
use tonic::transport::Channel;

use super::client;
use super::wire::{PLUGIN, PLUGINS, PluginAnswer, PluginOffer, PluginRef, PluginSet, PluginsWanted, decode};
use crate::error::message_of;
use crate::functions::plugin::{AgentFunctions, KIND};

/// Plugins an agent takes: each is compiled code in its memory, 0.2 MiB for one in Rust.
pub const PLUGINS_MAX: usize = 64;

/// A plugin that agents are to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// `sha256:<hex>` of the component.
    pub digest: String,
    /// Kind, as its manifest has it: says which handler of the agent gets it.
    pub kind: String,
    /// Name, for messages.
    pub name: String,
    /// The component.
    pub component: bytes::Bytes,
}

/// What an agent does with plugins of one kind.
pub trait PluginHandler: Send + Sync + 'static {
    /// Admits, compiles and keeps the component, which has the digest. Called once for each digest until it is unloaded, off the async
    /// workers; may take seconds. An error is the reason that queries name for the gap.
    fn load(&self, digest: &str, component: &[u8]) -> Result<(), String>;

    /// Vizier does not want it any more. What still uses it may go on.
    fn unload(&self, digest: &str);
}

/// An agent's plugins. Outlives the link: what was loaded need not come again.
#[derive(Default)]
pub struct AgentPlugins {
    handlers: BTreeMap<&'static str, Arc<dyn PluginHandler>>,
    functions: Option<Arc<AgentFunctions>>,
    held: Mutex<BTreeMap<String, Held>>,
}

struct Held {
    kind: String,
    /// Loaded, or why not: the same bytes fail the same way again.
    loaded: Result<(), String>,
}

impl std::fmt::Debug for AgentPlugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentPlugins").field("kinds", &self.handlers.keys()).finish_non_exhaustive()
    }
}

impl AgentPlugins {
    /// Takes plugins of this kind too. A kind without a handler is refused by name.
    pub fn with(mut self, kind: &'static str, handler: Arc<dyn PluginHandler>) -> Self {
        self.handlers.insert(kind, handler);
        self
    }

    /// Takes function plugins, for fragments to call; `runtime` compiles and limits them.
    pub fn with_functions(mut self, runtime: host::Runtime) -> Self {
        let functions = Arc::new(AgentFunctions::new(runtime));
        self.functions = Some(functions.clone());
        self.with(KIND, functions)
    }

    pub(super) fn functions(&self) -> Option<Arc<AgentFunctions>> {
        self.functions.clone()
    }

    /// Drops what is not in the set; gives the digests that are to be sent.
    pub(super) fn want(&self, set: &PluginSet) -> PluginsWanted {
        let mut held = self.lock();
        held.retain(|digest, plugin| {
            let wanted = set.plugins.iter().any(|p| p.digest == *digest);
            if !wanted && let Some(handler) = self.handlers.get(plugin.kind.as_str()) {
                handler.unload(digest);
            }
            wanted
        });
        let digests = set.plugins.iter().filter(|p| !held.contains_key(&p.digest)).map(|p| p.digest.clone()).collect();
        let failed = held.iter().filter_map(|(digest, plugin)| Some((digest.clone(), plugin.loaded.clone().err()?)));
        PluginsWanted { digests, failed: failed.collect() }
    }

    /// Takes one that was asked for. May take seconds.
    pub(super) fn take(&self, offer: &PluginOffer) -> Result<(), String> {
        let digest = host::admission::digest(&offer.component);
        if digest != offer.digest {
            return Err(format!("its bytes are {digest} and not {} as was said", offer.digest));
        }
        if let Some(plugin) = self.lock().get(&digest) {
            return plugin.loaded.clone();
        }
        if self.lock().len() >= PLUGINS_MAX {
            return Err(format!("the agent has {PLUGINS_MAX} plugins, the most it takes"));
        }
        let loaded = match self.handlers.get(offer.kind.as_str()) {
            Some(handler) => handler.load(&digest, &offer.component),
            None => Err(format!("this agent has no use for plugins of kind `{}`", offer.kind)),
        };
        match &loaded {
            Ok(()) => tracing::info!(plugin = offer.name, %digest, "plugin loaded"),
            Err(reason) => tracing::warn!(plugin = offer.name, %digest, %reason, "plugin not loaded"),
        }
        self.lock().insert(digest, Held { kind: offer.kind.clone(), loaded: loaded.clone() });
        loaded
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Held>> {
        self.held.lock().expect("no panic while it is held")
    }
}

/// The plugins Vizier wants agents to have, at one moment.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Later sets have higher numbers; a query that was planned before must not bring an old one back.
    pub generation: u64,
    pub plugins: Vec<Plugin>,
}

/// What was sent over one link.
#[derive(Debug, Default)]
pub(crate) struct Shipped {
    // Held while sending, so that a plugin crosses once however many queries wait for it.
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    generation: Option<u64>,
    /// Those the agent could not load, with the reason.
    failed: BTreeMap<String, String>,
}

impl Shipped {
    /// Makes the agent have the set, as far as it can.
    pub async fn ship(&self, channel: &Channel, wanted: &Wanted) -> Result<(), String> {
        self.needed(channel, wanted, &[]).await
    }

    /// The same; an error if the agent then lacks one of `digests`.
    pub async fn needed(&self, channel: &Channel, wanted: &Wanted, digests: &[String]) -> Result<(), String> {
        let mut state = self.state.lock().await;
        if state.generation.is_none_or(|known| known < wanted.generation) {
            state.failed = send(channel, wanted).await?;
            state.generation = Some(wanted.generation);
        }
        let Some((digest, reason)) = digests.iter().find_map(|d| Some((d, state.failed.get(d)?))) else {
            return Ok(());
        };
        let name = wanted.plugins.iter().find(|p| p.digest == *digest).map_or(digest.as_str(), |p| p.name.as_str());
        Err(format!("it cannot load the plugin `{name}`: {reason}"))
    }
}

async fn send(channel: &Channel, wanted: &Wanted) -> Result<BTreeMap<String, String>, String> {
    let of = |p: &Plugin| PluginRef { digest: p.digest.clone(), kind: p.kind.clone(), name: p.name.clone() };
    let set = PluginSet { plugins: wanted.plugins.iter().map(of).collect() };
    let answer: PluginsWanted = call(channel, PLUGINS, set.encode_to_vec()).await?;
    let mut failed = answer.failed;
    for digest in answer.digests {
        let Some(plugin) = wanted.plugins.iter().find(|p| p.digest == digest) else { continue };
        let offer = PluginOffer {
            digest: digest.clone(),
            kind: plugin.kind.clone(),
            name: plugin.name.clone(),
            component: plugin.component.clone(),
        };
        let answer: PluginAnswer = call(channel, PLUGIN, offer.encode_to_vec()).await?;
        if let Some(reason) = answer.refused {
            failed.insert(digest, reason);
        }
    }
    Ok(failed)
}

async fn call<M: Message + Default>(channel: &Channel, action: &str, body: Vec<u8>) -> Result<M, String> {
    let answer = client(channel.clone()).do_action(Action::new(action, body)).await;
    let mut answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
    let message = answer.message().await.map_err(|status| status.message().to_owned())?;
    let message = message.ok_or("it did not answer")?;
    decode(&message.body, "what an agent says of plugins").map_err(|e| message_of(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Keeps(Mutex<Vec<String>>);

    impl PluginHandler for Keeps {
        fn load(&self, _: &str, component: &[u8]) -> Result<(), String> {
            let text = String::from_utf8_lossy(component).into_owned();
            if text == "bad" {
                return Err("it is bad".into());
            }
            self.0.lock().unwrap().push(text);
            Ok(())
        }
        fn unload(&self, digest: &str) {
            self.0.lock().unwrap().retain(|text| host::admission::digest(text.as_bytes()) != digest);
        }
    }

    fn offer(text: &str, kind: &str) -> PluginOffer {
        let digest = host::admission::digest(text.as_bytes());
        PluginOffer { digest, kind: kind.into(), name: text.into(), component: text.as_bytes().to_vec().into() }
    }

    fn set(offers: &[&PluginOffer]) -> PluginSet {
        let of = |o: &&PluginOffer| PluginRef { digest: o.digest.clone(), kind: o.kind.clone(), name: o.name.clone() };
        PluginSet { plugins: offers.iter().map(of).collect() }
    }

    #[test]
    fn what_is_wanted_is_asked_for_once_and_dropped_when_it_is_not() {
        let keeps = Arc::new(Keeps::default());
        let plugins = AgentPlugins::default().with("function", keeps.clone());
        let (good, bad, other) = (offer("good", "function"), offer("bad", "function"), offer("other", "protocol"));
        let all = set(&[&good, &bad, &other]);
        assert_eq!(plugins.want(&all).digests.len(), 3);
        plugins.take(&good).unwrap();
        assert_eq!(plugins.take(&bad).unwrap_err(), "it is bad");
        assert!(plugins.take(&other).unwrap_err().contains("kind `protocol`"));
        let again = plugins.want(&all);
        assert_eq!((again.digests.len(), again.failed.len()), (0, 2), "what failed is not sent again");
        assert_eq!(*keeps.0.lock().unwrap(), ["good"]);
        let forged = PluginOffer { component: b"else".to_vec().into(), ..offer("new", "function") };
        assert!(plugins.take(&forged).unwrap_err().contains("as was said"));
        assert_eq!(plugins.want(&set(&[])).failed.len(), 0);
        assert!(keeps.0.lock().unwrap().is_empty());
        assert_eq!(plugins.want(&all).digests.len(), 3);
    }
}
