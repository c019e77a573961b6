//! The documents of OCI images, as far as they are needed here. Keys that are not known are left alone, as the specification
//! asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;

/// An image manifest.
pub const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An index.
pub const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The config of something that has none.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The content of an [`EMPTY`] blob.
pub const EMPTY_BYTES: &[u8] = b"{}";
/// Config of a WebAssembly artifact.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// A component.
pub const WASM: &str = "application/wasm";

/// Says in an index what a manifest is called.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Most entries of an index; a registry accepts an index of 4 MiB, which is some ten thousand.
const MANIFESTS_MAX: usize = 10_000;
/// Most layers of a manifest. A plugin has one; more are read only to say so.
const LAYERS_MAX: usize = 128;

/// What and how much a blob is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Type of the content.
    pub media_type: String,
    /// Of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// In an index, what the manifest is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Further facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Whether these are the bytes. `what` is what they are called in the error.
    pub fn check(&self, what: &str, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() as u64 != self.size {
            return Err(Error::invalid(format!("{what} has {} bytes, and {} were announced", bytes.len(), self.size))
                .hint("it was damaged or tampered with: get it again from where it was published"));
        }
        let found = Digest::of(bytes);
        if found != self.digest {
            return Err(Error::invalid(format!("{what} has the digest {found}, and {} was announced", self.digest))
                .hint("it was damaged or tampered with: get it again from where it was published"));
        }
        Ok(())
    }
}

/// An image manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// 2.
    pub schema_version: u32,
    /// [`IMAGE_MANIFEST`], or left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it is, where its config does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Config.
    pub config: Descriptor,
    /// Content.
    pub layers: Vec<Descriptor>,
    /// The manifest it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Further facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl ImageManifest {
    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|e| Error::invalid(format!("the image manifest is malformed: {e}")))?;
        if manifest.schema_version != 2 {
            return Err(Error::invalid(format!(
                "the image manifest is of schema version {}, and 2 is known",
                manifest.schema_version
            )));
        }
        if let Some(other) = manifest.media_type.as_deref().filter(|t| *t != IMAGE_MANIFEST) {
            return Err(Error::invalid(format!("this is no image manifest but `{}`", shown(other)))
                .hint("name one artifact by its tag or digest, not an index of several"));
        }
        if manifest.layers.len() > LAYERS_MAX {
            return Err(Error::invalid(format!("the image manifest has {} layers", manifest.layers.len())));
        }
        Ok(manifest)
    }

    /// As bytes; the same for the same manifest.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }
}

/// An index: the manifests of a layout, or those that refer to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// [`IMAGE_INDEX`], or left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

impl Default for Index {
    fn default() -> Self {
        Self { schema_version: 2, media_type: Some(IMAGE_INDEX.to_owned()), manifests: Vec::new() }
    }
}

impl Index {
    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let index: Self =
            serde_json::from_slice(bytes).map_err(|e| Error::invalid(format!("the index is malformed: {e}")))?;
        if index.schema_version != 2 {
            return Err(Error::invalid(format!("the index is of schema version {}, not 2", index.schema_version)));
        }
        if index.manifests.len() > MANIFESTS_MAX {
            return Err(Error::invalid(format!("the index has {} entries", index.manifests.len())));
        }
        Ok(index)
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }
}

/// Text from outside, short and without what would disturb a terminal.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(100).collect::<String>().escape_debug().to_string()
}
