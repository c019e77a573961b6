//! One plugin, whole: image manifest, config and component, which fit together.

use std::collections::BTreeMap;

use host_manifest::Manifest;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{self, Descriptor, ImageManifest, shown};
use crate::outline::{self, Outline};
use crate::version::Version;

/// Largest component; what Vizier takes. Python components, the largest there are, have 18 MiB.
pub const COMPONENT_BYTES_MAX: usize = 32 << 20;
/// Largest config: a manifest (64 KiB at most), and the names of what is imported and exported.
pub const CONFIG_BYTES_MAX: usize = 256 << 10;
/// Largest image manifest. Ours have 1 KiB; other tools add annotations.
pub const MANIFEST_BYTES_MAX: usize = 64 << 10;

/// The config wants a time. The same source shall give the same bytes whenever it is packed, so it is always this one.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A plugin that can be passed on.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    image: Vec<u8>,
    config: Vec<u8>,
    component: Vec<u8>,
    descriptor: Descriptor,
    layers: [Descriptor; 2],
    plugin: Manifest,
    version: Version,
    outline: Outline,
}

/// The config of a WebAssembly artifact, as the CNCF's guidance has it, with our manifest beside.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    created: String,
    architecture: String,
    os: String,
    #[serde(default)]
    layer_digests: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    component: Option<Component>,
    #[serde(rename = "pyxis.manifest", default, skip_serializing_if = "Option::is_none")]
    plugin: Option<Manifest>,
}

#[derive(Serialize, Deserialize)]
struct Component {
    #[serde(default)]
    exports: Vec<String>,
    #[serde(default)]
    imports: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl Artifact {
    /// The artifact of a component that has its manifest inside.
    pub fn pack(component: Vec<u8>) -> Result<Self, Error> {
        let (outline, plugin) = outline::read(&component)?;
        let layer = Descriptor::of(oci::WASM, &component);
        let config = Config {
            created: CREATED.to_owned(),
            architecture: "wasm".to_owned(),
            // It uses no WASI at all; this is the word for "a component".
            os: "wasip2".to_owned(),
            layer_digests: vec![layer.digest.to_string()],
            component: Some(Component {
                exports: outline.exports.clone(),
                imports: outline.imports.clone(),
                target: Some(plugin.world.clone()),
            }),
            plugin: Some(plugin.clone()),
        };
        let config = serde_json::to_vec(&config).expect("strings and numbers always serialise");
        let mut annotations = BTreeMap::from([
            ("org.opencontainers.image.title".to_owned(), plugin.name.clone()),
            ("org.opencontainers.image.version".to_owned(), plugin.version.clone()),
            ("org.opencontainers.image.description".to_owned(), plugin.description.clone()),
        ]);
        if let Some(license) = &plugin.license {
            annotations.insert("org.opencontainers.image.licenses".to_owned(), license.clone());
        }
        let image = ImageManifest {
            schema_version: 2,
            media_type: Some(oci::IMAGE_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::of(oci::WASM_CONFIG, &config),
            layers: vec![layer],
            subject: None,
            annotations,
        };
        Self::from_parts(image.to_bytes(), config, component)
    }

    /// What somebody gave, if it is a plugin and its parts fit together.
    pub fn from_parts(image: Vec<u8>, config: Vec<u8>, component: Vec<u8>) -> Result<Self, Error> {
        bounded("the image manifest", image.len(), MANIFEST_BYTES_MAX)?;
        bounded("the config", config.len(), CONFIG_BYTES_MAX)?;
        let layers = Self::layers_of(&ImageManifest::parse(&image)?)?;
        layers[0].check("the config", &config)?;
        layers[1].check("the component", &component)?;
        let (outline, plugin) = outline::read(&component)?;
        let stated: Config =
            serde_json::from_slice(&config).map_err(|e| Error::invalid(format!("the config is malformed: {e}")))?;
        if stated.architecture != "wasm" {
            return Err(Error::invalid(format!("it is for `{}`, not for wasm", shown(&stated.architecture))));
        }
        // What is shown before it is installed must be what is installed.
        if stated.plugin.is_some_and(|stated| stated != plugin) {
            return Err(Error::invalid("the manifest in the config is not the one in the component")
                .hint("it was tampered with, or made by hand: pack it again with px plugin pack"));
        }
        let version = Version::parse(&plugin.version)?;
        Ok(Self {
            descriptor: Descriptor::of(oci::IMAGE_MANIFEST, &image),
            layers,
            image,
            config,
            component,
            plugin,
            version,
            outline,
        })
    }

    /// Config and component of an image manifest, if it is that of a plugin: what to fetch, and how much at most.
    pub fn layers_of(image: &ImageManifest) -> Result<[Descriptor; 2], Error> {
        let no_plugin = |why: String| {
            Error::invalid(format!("this is no plugin: {why}")).hint("px plugin push makes artifacts that are")
        };
        if let Some(kind) = &image.artifact_type {
            return Err(no_plugin(format!("it is a `{}`", shown(kind))));
        }
        if image.config.media_type != oci::WASM_CONFIG {
            return Err(no_plugin(format!("its config is `{}`", shown(&image.config.media_type))));
        }
        let [layer] = &image.layers[..] else {
            return Err(no_plugin(format!("it has {} layers, not one", image.layers.len())));
        };
        if layer.media_type != oci::WASM {
            return Err(no_plugin(format!("its layer is `{}`", shown(&layer.media_type))));
        }
        let size = |descriptor: &Descriptor| usize::try_from(descriptor.size).unwrap_or(usize::MAX);
        bounded("the config", size(&image.config), CONFIG_BYTES_MAX)?;
        bounded("the component", size(layer), COMPONENT_BYTES_MAX)?;
        Ok([image.config.clone(), layer.clone()])
    }

    /// Digest of the image manifest, and so of everything.
    pub fn digest(&self) -> &Digest {
        &self.descriptor.digest
    }

    /// Of the image manifest.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Of the config.
    pub fn config_descriptor(&self) -> &Descriptor {
        &self.layers[0]
    }

    /// Of the component.
    pub fn component_descriptor(&self) -> &Descriptor {
        &self.layers[1]
    }

    /// The image manifest.
    pub fn image(&self) -> &[u8] {
        &self.image
    }

    /// The config.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The component.
    pub fn component(&self) -> &[u8] {
        &self.component
    }

    /// What `plugin.toml` said.
    pub fn plugin(&self) -> &Manifest {
        &self.plugin
    }

    /// The plugin's version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What the component imports and exports.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }
}

fn bounded(what: &str, bytes: usize, max: usize) -> Result<(), Error> {
    if bytes > max {
        return Err(Error::invalid(format!("{what} has {bytes} bytes, at most {max} are allowed")));
    }
    Ok(())
}
