//! Who may use whom.

use std::collections::BTreeSet;

use super::graph::GRAPH;

/// A row of the table in ARCHITECTURE.md.
struct Rule {
    name: &'static str,
    /// Our crates it may be made of, directly or not.
    may: &'static [&'static str],
    /// What must not be anywhere in it.
    never: &'static [&'static str],
    /// What it must not ask for itself, though something it uses stands on it.
    never_directly: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule { name: "ebpf-abi", may: &[], never: &["tokio", "arrow"], never_directly: &[] },
    Rule { name: "pem-tables", may: &[], never: &["tokio", "tonic", "kube", "aya", "datafusion"], never_directly: &[] },
    Rule { name: "host-manifest", may: &[], never: &["tokio", "wasmtime", "arrow"], never_directly: &[] },
    Rule { name: "host", may: &["host-manifest"], never: &["tonic", "kube", "aya", "datafusion"], never_directly: &[] },
    Rule { name: "vizier-api", may: &[], never: &["kube", "aya", "wasmtime", "datafusion"], never_directly: &[] },
    Rule {
        name: "vizier-engine",
        may: &["pem-tables", "host", "host-manifest"],
        never: &["kube", "aya"],
        // tonic's router stands on axum.
        never_directly: &["axum"],
    },
    Rule {
        name: "pem",
        may: &["ebpf-abi", "pem-tables", "vizier-engine", "vizier-api", "host", "host-manifest"],
        never: &["kube"],
        never_directly: &["axum", "wasmtime"],
    },
    Rule {
        name: "vizier",
        may: &["vizier-engine", "vizier-api", "pem-tables", "host", "host-manifest", "plugins-artifact"],
        // Plugins come to it from clients; it fetches nothing.
        never: &["aya", "aya-obj", "hyper-rustls"],
        never_directly: &["wasmtime"],
    },
    Rule {
        name: "plugins-build",
        may: &["host-manifest"],
        never: &["tokio", "wasmtime", "arrow"],
        never_directly: &[],
    },
    Rule {
        name: "plugins-artifact",
        may: &["host-manifest"],
        // Vizier reads what anybody sends with it: no network, no runtime.
        never: &["tokio", "wasmtime", "arrow", "hyper", "rustls"],
        never_directly: &[],
    },
    Rule {
        name: "px",
        may: &[
            "ebpf-abi",
            "host",
            "host-manifest",
            "pem",
            "pem-tables",
            "plugins-artifact",
            "plugins-build",
            "vizier",
            "vizier-api",
            "vizier-engine",
        ],
        never: &[],
        never_directly: &["wasmtime", "aya"],
    },
    // Drives programs from outside.
    Rule { name: "tests", may: &[], never: &["tokio", "arrow"], never_directly: &[] },
    Rule { name: "tests-shop", may: &[], never: &["tokio", "serde"], never_directly: &[] },
    // The first thing a stranger compiles.
    Rule {
        name: "xtask",
        may: &["plugins-build", "host-manifest"],
        never: &["tokio", "wasmtime", "arrow"],
        never_directly: &[],
    },
    // Third-party crates and nothing else.
    Rule { name: "xtask-deps", may: &[], never: &[], never_directly: &[] },
];

#[test]
fn every_crate_has_a_rule_and_every_rule_a_crate() {
    let crates: BTreeSet<&str> = GRAPH.members().iter().map(|package| package.name.as_str()).collect();
    let rules: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(crates, rules, "add the crate to this table and to ARCHITECTURE.md, with what it may use");
}

#[test]
fn our_crates_use_only_those_they_may() {
    for rule in RULES {
        let closure = GRAPH.closure(rule.name);
        let wrong: Vec<_> = closure.ours.iter().filter(|name| !rule.may.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{} must not be made of {wrong:?}", rule.name);
    }
}

#[test]
fn no_crate_contains_what_it_must_never() {
    for rule in RULES {
        let (closure, direct) = (GRAPH.closure(rule.name), GRAPH.direct(rule.name));
        let inside: Vec<_> = rule.never.iter().filter(|name| closure.others.contains(**name)).collect();
        assert!(inside.is_empty(), "{0} has {inside:?} in its tree: cargo tree -p {0} -i NAME shows how", rule.name);
        let asked: Vec<_> = rule.never_directly.iter().filter(|name| direct.contains(**name)).collect();
        assert!(asked.is_empty(), "{} must not depend on {asked:?} itself", rule.name);
    }
}

/// Whatever is built is built beside `xtask-deps`, so that Cargo chooses the same features each time and compiles the
/// heavy crates once. That holds while it names all of them.
#[test]
fn xtask_deps_names_every_third_party_dependency() {
    let ours: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    let names = |package: &cargo_metadata::Package| {
        let all = package.dependencies.iter().map(|dep| dep.name.clone());
        all.filter(|name| !ours.contains(name.as_str())).collect::<BTreeSet<String>>()
    };
    let listed = names(GRAPH.member("xtask-deps"));
    for package in GRAPH.members() {
        let missing: Vec<String> = names(package).difference(&listed).cloned().collect();
        assert!(missing.is_empty(), "xtask/deps/Cargo.toml lacks {missing:?}, which {} asks for", package.name);
    }
}

#[test]
fn packages_are_named_by_their_path() {
    for package in GRAPH.members() {
        let folder = package.manifest_path.parent().expect("a manifest lies in a folder");
        let path = folder.strip_prefix(super::graph::root()).expect("members lie in the workspace");
        assert_eq!(package.name.as_str(), path.as_str().replace('/', "-"));
    }
}
