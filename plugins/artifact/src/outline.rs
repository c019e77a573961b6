//! What can be seen of a component without compiling it: what it imports and exports, and the manifest inside.

use host_manifest::{Manifest, section};
use serde::{Deserialize, Serialize};
use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, TypeBounds};

use crate::artifact::COMPONENT_BYTES_MAX;
use crate::error::Error;

/// Most imports and exports together. A world of ours has a dozen.
const NAMES_MAX: usize = 1_000;

/// The outside of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// Names of what it imports, in its order.
    pub imports: Vec<String>,
    /// Names of what it exports, in its order.
    pub exports: Vec<String>,
}

/// Walks the outermost level. Whether the rest is valid is for the host to say, which compiles it.
pub(crate) fn read(component: &[u8]) -> Result<(Outline, Manifest), Error> {
    if component.len() > COMPONENT_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the component has {} bytes, at most {COMPONENT_BYTES_MAX} are allowed",
            component.len()
        ))
        .hint("strip debug information from it"));
    }
    if !Parser::is_component(component) {
        let what = if Parser::is_core_wasm(component) { "a core WebAssembly module" } else { "no WebAssembly" };
        return Err(Error::invalid(format!("this is {what}, not a component")).hint("px plugin build makes one"));
    }
    let mut outline = Outline::default();
    let mut manifest = None;
    let mut depth = 0usize;
    let malformed = |e: wasmparser::BinaryReaderError| {
        Error::invalid(format!("the component is malformed: {}", e.message())).hint("build it again")
    };
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding: Encoding::Component | Encoding::Module, .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    let import = import.map_err(malformed)?;
                    // A name for a type of an imported interface: it gives nothing.
                    if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        outline.imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    outline.exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::CustomSection(custom) if depth == 1 && custom.name() == section::NAME => {
                if manifest.replace(custom.data()).is_some() {
                    return Err(Error::invalid("the component has two manifests").hint("build it again"));
                }
            }
            _ => {}
        }
        if outline.imports.len() + outline.exports.len() > NAMES_MAX {
            return Err(Error::invalid(format!("the component imports and exports more than {NAMES_MAX} things")));
        }
    }
    let Some(json) = manifest else {
        return Err(Error::invalid("the component has no manifest")
            .hint("build it with px plugin build, which puts plugin.toml in"));
    };
    let manifest = Manifest::from_json(json).map_err(|e| {
        let error = Error::invalid(format!("the component's manifest: {}", e.message));
        match e.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })?;
    Ok((outline, manifest))
}
