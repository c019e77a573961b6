//! What the lock file and the product's tree hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::graph::{GRAPH, root};

/// Two of one of these do not understand each other's types, or double what has to be trusted.
const ONCE: &[&str] = &[
    "arrow",
    "arrow-array",
    "arrow-flight",
    "arrow-ipc",
    "arrow-schema",
    "aya",
    "datafusion",
    "hyper",
    "parquet",
    "prost",
    "rustls",
    "tokio",
    "tonic",
    "wasm-encoder",
    "wasmparser",
    "wasmtime",
    "wit-component",
    "wit-parser",
];

/// One TLS and one set of ciphers: rustls on aws-lc.
const NOT_IN_PX: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls", "libssh2-sys", "libgit2-sys"];

#[test]
fn one_version_each_of_what_crosses_crates() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is in the tree");
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let lines: Vec<&str> = lock.lines().collect();
    for pair in lines.windows(2) {
        if let (Some(name), Some(version)) = (value(pair[0], "name"), value(pair[1], "version")) {
            versions.entry(name).or_default().insert(version);
        }
    }
    assert!(versions.contains_key("arrow"), "the lock file was not understood");
    let twice: Vec<_> = ONCE.iter().filter(|name| versions.get(**name).is_some_and(|found| found.len() > 1)).collect();
    assert!(twice.is_empty(), "more than one version of {twice:?}: cargo tree -d shows who asks for which");
}

#[test]
fn px_holds_one_tls_only() {
    let closure = GRAPH.closure("px").others;
    assert!(closure.contains("rustls"), "the tree of px was not understood");
    let found: Vec<_> = NOT_IN_PX.iter().filter(|name| closure.contains(**name)).collect();
    assert!(found.is_empty(), "px holds {found:?}: cargo tree -p px -e normal -i NAME shows why");
}

fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')
}
