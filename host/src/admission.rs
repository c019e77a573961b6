//! What may become a script: checked on the bytes, before anything is compiled.

use host_manifest::{Kind, Manifest, section};
use sha2::{Digest, Sha256};
use wasmparser::{
    ComponentExternalKind, ComponentTypeRef, Encoding, Parser, Payload, TypeBounds, Validator, WasmFeatures,
};

use crate::error::Error;

/// Largest component. Python components, the largest there are, have 18 MiB.
pub const COMPONENT_BYTES_MAX: usize = 32 << 20;

/// Components and modules in one another. Go's, with its adapter, are three deep; checking takes time by the square of it.
const NESTING_MAX: usize = 64;

/// Functions of a component and bytes of one function's code. Where there is a compiler process ([`crate::compiler`]) its limits
/// bound what compiling takes, and these only spare it the work; an embedder without one has these alone. Python has 20,000
/// functions; the longest, an interpreter's loop, 120 KiB.
const FUNCTIONS_MAX: usize = 100_000;
const FUNCTION_BYTES_MAX: usize = 1 << 20;

/// Debug information of a component. It is read when the guest traps, for each frame anew, in the host; line tables of a Rust
/// script with its standard library take 1 MiB, and a frame then some milliseconds.
const DEBUG_BYTES_MAX: usize = 4 << 20;

/// Where our interfaces live.
const NAMESPACE: &str = "pyxis:";
/// Version of the contract. A newer minor one may have what we have not.
const VERSION: (u64, u64) = (0, 1);
/// What the worlds offer and ask for.
struct World {
    /// What a component may import; nothing else.
    interfaces: &'static [&'static str],
    /// What it must export: all of these.
    exports: &'static [(&'static str, ComponentExternalKind)],
    /// How an author gets that.
    exporting: &'static str,
}

const SCRIPT: World = World {
    interfaces: &[
        "pyxis:common/types",
        "pyxis:common/log",
        "pyxis:script/tables",
        "pyxis:script/batches",
        "pyxis:script/output",
        "pyxis:script/params",
        "pyxis:script/clock",
    ],
    exports: &[("run", ComponentExternalKind::Func)],
    exporting: "a Rust script calls `pyxis_sdk::script!(run)`; other languages export `run` of the world pyxis:script/script",
};
const FUNCTION: World = World {
    interfaces: &["pyxis:common/types", "pyxis:common/log", "pyxis:function/arguments"],
    exports: &[
        ("pyxis:function/scalars", ComponentExternalKind::Instance),
        ("pyxis:function/aggregates", ComponentExternalKind::Instance),
        ("pyxis:function/tables", ComponentExternalKind::Instance),
    ],
    exporting: "a Rust plugin calls `pyxis_sdk::functions!{ … }`; other languages export the interfaces of pyxis:function/function",
};
const PROTOCOL: World = World {
    interfaces: &["pyxis:common/types", "pyxis:common/log"],
    exports: &[("pyxis:protocol/parser", ComponentExternalKind::Instance)],
    exporting: "a Rust protocol calls `pyxis_sdk::protocol!(Type)`; other languages export the interface pyxis:protocol/parser",
};

fn world(kind: Kind) -> &'static World {
    match kind {
        Kind::Script => &SCRIPT,
        Kind::Function => &FUNCTION,
        Kind::Protocol => &PROTOCOL,
    }
}

/// WebAssembly that guests may use: what the compilers of the languages we support emit by default, and nothing that is young
/// (GC, exceptions, threads, memory64) or nondeterministic (relaxed SIMD).
const FEATURES: WasmFeatures = WasmFeatures::WASM1
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::COMPONENT_MODEL);

/// What a component says about itself, without running it.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `sha256:<hex>` of the bytes.
    pub digest: String,
    /// Size.
    pub bytes: usize,
    /// Its manifest.
    pub manifest: Manifest,
    /// Names of what it imports.
    pub imports: Vec<String>,
    /// Names of what it exports.
    pub exports: Vec<String>,
}

/// `sha256:<hex>` of the bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// Checks all that can be checked without compiling. The types of imports and exports are checked when the component is linked.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, Error> {
    is_component(bytes)?;
    if nested(bytes) > NESTING_MAX {
        return Err(refuse(
            format!("the component is not valid: components in components, more than {NESTING_MAX} deep"),
            "rebuild it with the tools of your language; none nests so deep",
        ));
    }
    let mut validator = Validator::new_with_features(FEATURES);
    validator.validate_all(bytes).map_err(|e| {
        refuse(
            format!("the component is not valid: {}", e.message()),
            "rebuild it; the file may be damaged, or use WebAssembly features that are not allowed here",
        )
    })?;
    let found = walk(bytes).map_err(|e| refuse(format!("the component is not valid: {e}"), "rebuild it"))?;
    if found.functions > FUNCTIONS_MAX {
        return Err(refuse(
            format!("the component has {} functions, at most {FUNCTIONS_MAX} are allowed", found.functions),
            "split the plugin",
        ));
    }
    if found.function_bytes > FUNCTION_BYTES_MAX {
        return Err(refuse(
            format!(
                "the component has a function of {} bytes of code, at most {FUNCTION_BYTES_MAX} are allowed",
                found.function_bytes
            ),
            "large tables belong into data, not code",
        ));
    }
    if found.debug_bytes > DEBUG_BYTES_MAX {
        return Err(refuse(
            format!(
                "the component has {} bytes of debug information, at most {DEBUG_BYTES_MAX} are allowed",
                found.debug_bytes
            ),
            "build it with line tables only, as `px plugin build --debug` does, or without",
        ));
    }
    // A manifest that cannot be read is told below; imports come first.
    let kind =
        found.manifest.as_deref().and_then(|json| Manifest::from_json(json).ok()).map_or(Kind::Script, |m| m.kind);
    let (world, world_name) = (world(kind), kind.world());
    if let Some(import) = found.imports.iter().find(|name| !allowed(name, world)) {
        let hint = if import.starts_with("wasi:") {
            "plugins have no WASI: build for wasm32-unknown-unknown, as `px plugin build` does".to_owned()
        } else if import.starts_with(NAMESPACE) {
            "it was built for another version of the contract; rebuild it with this version's SDK".to_owned()
        } else {
            format!("it can import {} and nothing else", world.interfaces.join(", "))
        };
        return Err(refuse(
            format!("the component imports `{import}`, which the world {world_name} does not have"),
            &hint,
        ));
    }
    let has = |(name, external): &(&str, _)| {
        found.exports.iter().any(|(has, kind)| has.split('@').next() == Some(*name) && kind == external)
    };
    if let Some((name, _)) = world.exports.iter().find(|export| !has(export)) {
        let has = found.exports.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(refuse(
            format!(
                "the component does not export `{name}`, so it is no {} (it exports {})",
                kind.name(),
                if has.is_empty() { "nothing" } else { &has }
            ),
            world.exporting,
        ));
    }
    let manifest = match found.manifest {
        Some(json) => Manifest::from_json(&json).map_err(|e| Error::Invalid {
            message: format!("the component's manifest: {}", e.message),
            hint: e.hint,
            position: None,
        })?,
        None => {
            return Err(refuse(
                "the component has no manifest".into(),
                "build it with `px plugin build`, which puts plugin.toml in",
            ));
        }
    };
    Ok(Inspection {
        digest: digest(bytes),
        bytes: bytes.len(),
        manifest,
        imports: found.imports,
        exports: found.exports.into_iter().map(|(name, _)| name).collect(),
    })
}

fn refuse(message: String, hint: &str) -> Error {
    Error::Invalid { message, hint: Some(hint.into()), position: None }
}

fn is_component(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        return Err(refuse(
            format!("the component has {} bytes, at most {COMPONENT_BYTES_MAX} are allowed", bytes.len()),
            "strip debug information (strip = \"debuginfo\")",
        ));
    }
    if Parser::is_component(bytes) {
        return Ok(());
    }
    let (what, hint) = if Parser::is_core_wasm(bytes) {
        ("a core WebAssembly module", "make a component of it: `px plugin build`, or `wasm-tools component new`")
    } else if bytes.is_empty() {
        ("an empty file", "give a component, as `px plugin build` writes it")
    } else if bytes.starts_with(b"\0asm") {
        ("WebAssembly of an unknown version", "rebuild it with current tools")
    } else if bytes.starts_with(b"\x7fELF") {
        ("a program for this machine", "compile for wasm32-unknown-unknown, as `px plugin build` does")
    } else if bytes[..bytes.len().min(512)].is_ascii() && std::str::from_utf8(bytes).is_ok() {
        ("a text", "give a component; a Rust plugin's folder is built with `px plugin build`, SQL is run with `px sql`")
    } else {
        ("neither WebAssembly nor text", "give a component, as `px plugin build` writes it")
    };
    Err(refuse(format!("this is not a component but {what}"), hint))
}

#[derive(Default)]
struct Found {
    imports: Vec<String>,
    exports: Vec<(String, ComponentExternalKind)>,
    manifest: Option<Vec<u8>>,
    functions: usize,
    function_bytes: usize,
    debug_bytes: usize,
}

/// How deep components and modules lie in one another, as far as it matters.
fn nested(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(Payload::Version { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(_) => {}
            // What is wrong is told by the validator.
            Err(_) => break,
        }
        deepest = deepest.max(depth);
        if deepest > NESTING_MAX {
            break;
        }
    }
    deepest
}

fn walk(bytes: &[u8]) -> Result<Found, wasmparser::BinaryReaderError> {
    let mut found = Found::default();
    // Sections of nested components and modules come in between those of the outermost one.
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding: Encoding::Component | Encoding::Module, .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    let import = import?;
                    // A name for a type that an imported interface has. It gives nothing; whether it is the right type is
                    // checked when the component is linked.
                    if matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        continue;
                    }
                    found.imports.push(import.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    let export = export?;
                    found.exports.push((export.name.name.to_owned(), export.kind));
                }
            }
            Payload::CustomSection(custom) if depth == 1 && custom.name() == section::NAME => {
                found.manifest = Some(custom.data().to_vec());
            }
            Payload::CustomSection(custom) if custom.name().starts_with(".debug_") => {
                found.debug_bytes = found.debug_bytes.saturating_add(custom.data().len());
            }
            Payload::CodeSectionEntry(body) => {
                found.functions += 1;
                found.function_bytes = found.function_bytes.max(body.range().len());
            }
            _ => {}
        }
    }
    Ok(found)
}

fn allowed(import: &str, world: &World) -> bool {
    let Some((interface, version)) = import.split_once('@') else {
        return false;
    };
    let mut numbers = version.splitn(3, '.').map(|n| n.parse::<u64>().ok());
    world.interfaces.contains(&interface)
        && numbers.next() == Some(Some(VERSION.0))
        && numbers.next() == Some(Some(VERSION.1))
}
