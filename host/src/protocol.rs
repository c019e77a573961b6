//! Protocol plugins: components of the world in `wit/protocol/protocol.wit`.
//!
//! A component passes [`Protocols::load`] and becomes a [`Protocol`]; [`Protocol::start`] makes an [`Instance`] of it, with
//! memory of its own, which lives on a thread of the embedder's and is called there: [`Instance::infer`] and
//! [`Instance::parse`]. Every call has a bound of processor time; all that comes back is checked. Whatever goes wrong is a
//! [`Fault`] and final: an instance that failed once is of no more use.
//!
//! There is no pool and nothing async here: a parser keeps its state between calls, and its thread has nothing else to do.

mod bindings;
mod check;
mod instance;

use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use self::bindings::ProtocolPre;
use self::instance::State;
use crate::admission;
use crate::engine::{self, Ticker};
use crate::error::Error;
use crate::manifest::{Manifest, protocol::Protocol as Declared};

pub use self::bindings::{Direction, Event, Happening, Verdict};
pub use self::instance::{Fault, Instance, Limits, Messages};

/// Compiles protocol plugins.
#[derive(Clone)]
pub struct Protocols(Arc<Inner>);

pub(crate) struct Inner {
    engine: Engine,
    linker: Linker<State>,
    ticker: Ticker,
}

/// A protocol plugin that is compiled and linked.
pub struct Protocol {
    shared: Arc<Inner>,
    linked: ProtocolPre<State>,
    manifest: Arc<Manifest>,
    digest: String,
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protocol")
            .field("name", &self.manifest.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Protocols {
    /// Starts the clock that bounds calls.
    pub fn new() -> Result<Self, Error> {
        let engine = engine::resident()?;
        let mut linker = Linker::new(&engine);
        bindings::Protocol::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)
            .map_err(|e| Error::Internal(format!("cannot offer the world: {e:#}")))?;
        Ok(Self(Arc::new(Inner { ticker: Ticker::spawn(engine.clone())?, engine, linker })))
    }

    /// Admits, compiles and links a component. Takes some 50 ms for a parser in Rust.
    pub fn load(&self, bytes: &[u8]) -> Result<Protocol, Error> {
        let inspection = admission::inspect(bytes)?;
        let manifest = inspection.manifest;
        if manifest.protocol.is_none() {
            return Err(Error::Invalid {
                message: format!("`{}` is no protocol plugin", manifest.name),
                hint: Some("its plugin.toml needs kind = \"protocol\"".into()),
                position: None,
            });
        }
        let component = Component::new(&self.0.engine, bytes).map_err(|e| Error::Invalid {
            message: format!("the component does not compile: {e:#}"),
            hint: Some("rebuild it with current tools".into()),
            position: None,
        })?;
        let unfit = |e: wasmtime::Error| Error::Invalid {
            message: format!("the component does not fit the world {}: {e:#}", crate::manifest::PROTOCOL_WORLD),
            hint: Some("it was built for another version of the contract; rebuild it with this version's SDK".into()),
            position: None,
        };
        let linked = self.0.linker.instantiate_pre(&component).map_err(unfit)?;
        let linked = ProtocolPre::new(linked).map_err(unfit)?;
        Ok(Protocol { shared: Arc::clone(&self.0), linked, manifest: Arc::new(manifest), digest: inspection.digest })
    }
}

impl Protocol {
    /// What it says about itself.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// What it looks at, and its table.
    pub fn declared(&self) -> &Declared {
        self.manifest.protocol.as_ref().expect("checked when it was loaded")
    }

    /// `sha256:<hex>`
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// An instance with memory of its own.
    pub fn start(&self, limits: Limits) -> Result<Instance, Fault> {
        Instance::new(&self.shared, &self.linked, &self.manifest, limits)
    }
}
