//! A plugin as it is passed on: one OCI artifact that holds the component and its manifest, views included, laid out as the
//! CNCF's guidance for WebAssembly has it, so that any OCI registry stores it and other WebAssembly tools read it.
//!
//! ```text
//! image manifest   application/vnd.oci.image.manifest.v1+json     its digest is the artifact's
//! ├─ config        application/vnd.wasm.config.v0+json            what it imports and exports; plugin.toml as JSON
//! └─ layer         application/wasm                               the component
//! referrer         application/vnd.dev.sigstore.bundle.v0.3+json  a signature of the artifact, any number of them
//! ```
//!
//! An [`Artifact`] is made from a component ([`Artifact::pack`]) or from what somebody gave ([`Artifact::from_parts`]), and
//! either way all of it fits together. The same component always gives the same bytes. It is written to and read from a
//! [`Layout`], a folder on disk; registries are the caller's (nothing here has a network). A [`SigningKey`] signs it, offline;
//! [`Bundle::verify`] says whose signature it is.
//!
//! Whatever is read here may come from anywhere: sizes are bounded before anything is read, digests are checked before they
//! name a file and again after its content was read, and each refusal says what is wrong.
#![forbid(unsafe_code)]

mod artifact;
mod bundle;
mod digest;
mod error;
mod key;
mod layout;
pub mod oci;
mod outline;
mod pem;
mod version;

pub use artifact::{Artifact, COMPONENT_BYTES_MAX, CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
pub use bundle::{BUNDLE_BYTES_MAX, Bundle, SIGNATURES_MAX, Signer, signers};
pub use digest::Digest;
pub use error::{Error, Kind};
pub use key::{PublicKey, SigningKey};
pub use layout::Layout;
pub use outline::Outline;
pub use version::Version;
