//! Core module in, component out.

use host_manifest::{Kind, Manifest, section};
use wit_parser::{Resolve, WorldId};

use crate::error::Error;

/// The contract, as the guest's bindings have it too: each package after those it uses.
const WIT: [(&str, &str); 4] = [
    ("common.wit", include_str!("../../../wit/common/common.wit")),
    ("script.wit", include_str!("../../../wit/script/script.wit")),
    ("function.wit", include_str!("../../../wit/function/function.wit")),
    ("protocol.wit", include_str!("../../../wit/protocol/protocol.wit")),
];

/// Turns a core module with embedded component types (as wit-bindgen leaves them) into a component of its manifest's world,
/// checks that it asks for nothing else, and puts the manifest in.
pub fn componentize(module: &[u8], manifest: &Manifest) -> Result<Vec<u8>, Error> {
    let world = |what: &str, e: &dyn std::fmt::Display| Error::World(format!("{what}: {e}"));
    let mut encoder = wit_component::ComponentEncoder::default().validate(true).module(module).map_err(|e| {
        world(
            "the module has no component types; does the crate call a macro of pyxis_sdk, such as script!?",
            &format!("{e:#}"),
        )
    })?;
    let component = encoder.encode().map_err(|e| world("the module is no component", &format!("{e:#}")))?;
    let (kind, name) = (manifest.kind, manifest.kind.name());
    let (resolve, contract) = contract(kind)?;
    wit_component::targets(&resolve, contract, &component).map_err(|e| {
        let why = format!("{e:#}");
        if why.contains("missing export") {
            let call = match kind {
                Kind::Script => "pyxis_sdk::script!(run) with the function to run",
                Kind::Function => "pyxis_sdk::functions! { … } with the functions that plugin.toml exports",
                Kind::Protocol => "pyxis_sdk::protocol!(Type) with the type that parses a connection",
            };
            return Error::World(format!("the crate has no {name}: call {call}"));
        }
        world(&format!("the component does not fit the world {}", kind.world()), &why)
    })?;
    Ok(section::append(&component, &manifest.to_json()))
}

fn contract(kind: Kind) -> Result<(Resolve, WorldId), Error> {
    let broken = |e: &dyn std::fmt::Display| Error::World(format!("this build's own wit/ is broken: {e:#}"));
    let mut resolve = Resolve::default();
    let mut packages = Vec::new();
    for (name, text) in WIT {
        packages.push(resolve.push_str(name, text).map_err(|e| broken(&e))?);
    }
    if kind != Kind::Script {
        // The SDK describes the script world in every crate, so these names of types are there; they give nothing.
        let text = format!(
            "package pyxis:guest;\nworld guest {{ include {}@0.1.0; use pyxis:common/types@0.1.0.{{error, scalar}}; }}",
            world_of(kind)
        );
        let guest = resolve.push_str("guest.wit", &text).map_err(|e| broken(&e))?;
        let world = resolve.select_world(&[guest], Some("guest")).map_err(|e| broken(&e))?;
        return Ok((resolve, world));
    }
    let world = resolve.select_world(&packages[1..], Some(world_of(kind))).map_err(|e| broken(&e))?;
    Ok((resolve, world))
}

/// With its package, since each package has a world of its own.
const fn world_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Script => "pyxis:script/script",
        Kind::Function => "pyxis:function/function",
        Kind::Protocol => "pyxis:protocol/protocol",
    }
}
