//! What is not a script is refused before it is compiled, each with its own reason and what to do.

use host::error::Error;
use host::manifest::section;

use crate::support::{guest, runtime};

fn refused(bytes: &[u8]) -> (String, String) {
    match runtime().load(bytes) {
        Err(Error::Invalid { message, hint, .. }) => (message, hint.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

fn component(wat: &str) -> Vec<u8> {
    let manifest = r#"{"name":"t","version":"0.1.0","description":"a test"}"#;
    section::append(&wat::parse_str(wat).unwrap(), manifest)
}

#[test]
fn what_is_no_component_is_named() {
    for (bytes, says, hint) in [
        (wat::parse_str("(module)").unwrap(), "a core WebAssembly module", "px plugin build"),
        (b"select 1".to_vec(), "a text", "px sql"),
        (vec![], "an empty file", "px plugin build"),
        (b"\x7fELF\x02\x01\x01".to_vec(), "a program for this machine", "wasm32-unknown-unknown"),
        (vec![0xff; 100], "neither WebAssembly nor text", "px plugin build"),
    ] {
        let (message, told) = refused(&bytes);
        assert!(message.contains(says) && told.contains(hint), "{message} ({told})");
    }
}

#[test]
fn a_damaged_component_is_refused() {
    let mut bytes = guest("probe");
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    assert!(refused(&bytes).0.contains("not valid"), "{}", refused(&bytes).0);
}

#[test]
fn an_import_the_world_does_not_have_is_refused_by_name() {
    let wasi = component(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#);
    let (message, hint) = refused(&wasi);
    assert!(message.contains("imports `wasi:cli/environment@0.2.0`"), "{message}");
    assert!(hint.contains("no WASI"), "{hint}");
    let newer = component(r#"(component (import "pyxis:script/tables@0.2.0" (instance)))"#);
    assert!(refused(&newer).1.contains("another version of the contract"));
    let other = component(r#"(component (import "some:thing/else" (instance)))"#);
    assert!(refused(&other).0.contains("imports `some:thing/else`"));
}

#[test]
fn a_component_without_run_is_no_script() {
    let (message, hint) = refused(&component("(component)"));
    assert!(message.contains("does not export `run`") && message.contains("nothing"), "{message}");
    assert!(hint.contains("pyxis_sdk::script!"), "{hint}");
}

#[test]
fn a_run_of_another_type_does_not_fit() {
    let wat = r#"(component
        (core module $m (func (export "run") (result i32) i32.const 1))
        (core instance $i (instantiate $m))
        (func (export "run") (result u32) (canon lift (core func $i "run"))))"#;
    let (message, _) = refused(&component(wat));
    assert!(message.contains("does not fit the world pyxis:script@0.1.0"), "{message}");
}

#[test]
fn an_import_of_another_type_does_not_fit() {
    let wat = r#"(component
        (import "pyxis:script/clock@0.1.0" (instance (export "now" (func (result string)))))
        (core module $m (func (export "run")))
        (core instance $i (instantiate $m))
        (func (export "run") (canon lift (core func $i "run"))))"#;
    let (message, _) = refused(&component(wat));
    assert!(message.contains("does not fit the world"), "{message}");
}

#[test]
fn a_manifest_is_needed_and_read() {
    let wat = r#"(component
        (core module $m (func (export "run")))
        (core instance $i (instantiate $m))
        (func (export "run") (canon lift (core func $i "run"))))"#;
    let plain = wat::parse_str(wat).unwrap();
    assert!(refused(&plain).0.contains("has no manifest"));
    let odd = section::append(&plain, r#"{"name":"t","version":"1","description":"d","tabels":[]}"#);
    let (message, hint) = refused(&odd);
    assert!(message.contains("unknown key `tabels`") && hint.contains("`tables`"), "{message} ({hint})");
    let found = runtime().inspect(&guest("probe")).unwrap();
    assert_eq!(found.manifest.name, "probe");
    assert_eq!(found.exports, ["run"]);
    assert!(found.imports.iter().all(|i| i.starts_with("pyxis:")), "{:?}", found.imports);
    assert!(found.digest.starts_with("sha256:") && found.digest.len() == 71);
}

#[test]
fn what_is_too_large_is_refused() {
    let (message, _) = refused(&vec![0; (32 << 20) + 1]);
    assert!(message.contains("at most 33554432 are allowed"), "{message}");
}
