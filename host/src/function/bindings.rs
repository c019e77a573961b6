//! What bindgen makes of `wit/function/function.wit`. Types and log are the script world's, so that columns are converted in
//! one place.

wasmtime::component::bindgen!({
    path: ["../wit/common", "../wit/function"],
    world: "pyxis:function/function",
    imports: { default: trappable },
    with: {
        "pyxis:common/types": crate::bindings::pyxis::common::types,
        "pyxis:common/log": crate::bindings::pyxis::common::log,
    },
});
