//! Core module in, script component out.

use host_manifest::{Manifest, section};
use wit_parser::{Resolve, WorldId};

use crate::error::Error;

/// The contract, as the guest's bindings have it too: each package after those it uses.
const WIT: [(&str, &str); 2] = [
    ("common.wit", include_str!("../../../wit/common/common.wit")),
    ("script.wit", include_str!("../../../wit/script/script.wit")),
];

/// Turns a core module with embedded component types (as wit-bindgen leaves them) into a component of the script world,
/// checks that it asks for nothing else, and puts the manifest in.
pub fn componentize(module: &[u8], manifest: &Manifest) -> Result<Vec<u8>, Error> {
    let world = |what: &str, e: &dyn std::fmt::Display| Error::World(format!("{what}: {e}"));
    let mut encoder = wit_component::ComponentEncoder::default().validate(true).module(module).map_err(|e| {
        world("the module has no component types; does the crate call pyxis_sdk::script!?", &format!("{e:#}"))
    })?;
    let component = encoder.encode().map_err(|e| world("the module is no component", &format!("{e:#}")))?;
    let (resolve, script) = contract()?;
    wit_component::targets(&resolve, script, &component).map_err(|e| {
        let why = format!("{e:#}");
        if why.contains("missing export named `run`") {
            return Error::World(
                "the crate has no script: call pyxis_sdk::script!(run) with the function to run".into(),
            );
        }
        world(&format!("the component does not fit the world {}", host_manifest::WORLD), &why)
    })?;
    Ok(section::append(&component, &manifest.to_json()))
}

fn contract() -> Result<(Resolve, WorldId), Error> {
    let broken = |e: &dyn std::fmt::Display| Error::World(format!("this build's own wit/ is broken: {e:#}"));
    let mut resolve = Resolve::default();
    let mut packages = Vec::new();
    for (name, text) in WIT {
        packages.push(resolve.push_str(name, text).map_err(|e| broken(&e))?);
    }
    let script = resolve.select_world(&packages[1..], Some("script")).map_err(|e| broken(&e))?;
    Ok((resolve, script))
}
