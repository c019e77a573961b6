//! What bindgen makes of `wit/protocol/protocol.wit`. Types of `pyxis:common` are those of the script world's bindings.

wasmtime::component::bindgen!({
    path: ["../wit/common", "../wit/protocol"],
    world: "pyxis:protocol/protocol",
    imports: { default: trappable },
    with: { "pyxis:common/types": crate::bindings::pyxis::common::types },
});

pub use exports::pyxis::protocol::parser::{Direction, Event, Happening, Messages, Verdict};
