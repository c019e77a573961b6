//! What bindgen makes of `wit/script/script.wit`.

// Calls that ask the embedder for something are async: they leave the guest's stack (see `crate::run::Offload`). Those that only
// touch what is at hand stay on it.
wasmtime::component::bindgen!({
    path: ["../wit/common", "../wit/script"],
    world: "pyxis:script/script",
    imports: {
        "pyxis:script/tables.list-tables": async | trappable,
        "pyxis:script/tables.table": async | trappable,
        "pyxis:script/tables.sql": async | trappable,
        "pyxis:script/tables.inline": async | trappable,
        "pyxis:script/tables.[method]frame.columns": trappable,
        "pyxis:script/tables.[drop]frame": trappable,
        "pyxis:script/tables": async | trappable,
        "pyxis:script/batches.collect": async | trappable,
        "pyxis:script/batches.[method]batch-stream.next": async | trappable,
        "pyxis:script/output": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "pyxis:script/tables.frame": crate::state::GuestFrame,
        "pyxis:script/batches.batch-stream": crate::state::GuestStream,
        "pyxis:script/batches.batch": crate::state::GuestBatch,
    },
});
