//! What lies where.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::graph::{GRAPH, root};

/// Everything at the top that is no dot-file. `target` is Cargo's.
const TOP_LEVEL: &[&str] = &[
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "docs",
    "ebpf",
    "host",
    "pem",
    "plugins",
    "px",
    "rustfmt.toml",
    "tests",
    "vizier",
    "wit",
    "xtask",
];

/// From here on a file is said to be long, and from there on it fails: by then it holds more than one noun.
const LONG_LINES: usize = 600;
const LINES_MAX: usize = 1_000;

#[test]
fn the_top_level_is_the_list() {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root()).expect("the root is readable").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && name != "target" {
            found.insert(name);
        }
    }
    let listed: BTreeSet<String> = TOP_LEVEL.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, listed, "a part has a crate inside its folder; nothing new goes to the top");
}

#[test]
fn every_crate_takes_the_workspace_s_lints() {
    for package in GRAPH.members() {
        let text = fs::read_to_string(&package.manifest_path).expect("readable");
        assert!(text.contains("[lints]\nworkspace = true"), "{} lacks [lints] workspace = true", package.manifest_path);
    }
}

#[test]
fn versions_of_dependencies_are_named_once() {
    for package in GRAPH.members() {
        let text = fs::read_to_string(&package.manifest_path).expect("readable");
        let section = text.split("\n[").filter(|section| section.contains("dependencies]"));
        for line in section.flat_map(str::lines).filter(|line| line.contains(" = ") && !line.starts_with('#')) {
            let named = line.contains("workspace = true") || line.contains("path = ");
            assert!(named, "{}: `{line}` belongs to [workspace.dependencies]", package.manifest_path);
        }
    }
}

#[test]
fn files_are_short_enough_to_hold_one_noun() {
    let mut long = Vec::new();
    for path in rust() {
        let lines = fs::read_to_string(&path).expect("readable").lines().count();
        if lines > LONG_LINES {
            eprintln!("{lines} lines: {}", path.display());
        }
        if lines > LINES_MAX {
            long.push(path);
        }
    }
    assert!(long.is_empty(), "over {LINES_MAX} lines, cut along the nouns: {long:?}");
}

#[test]
fn commands_in_the_documents_exist() {
    let chores = fs::read_to_string(root().join("xtask/src/main.rs")).expect("readable");
    let body =
        chores.split("enum Command {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the enum of chores");
    let variants = body.lines().map(str::trim).filter(|line| line.starts_with(char::is_uppercase));
    let known: BTreeSet<String> = variants
        .map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_lowercase())
        .collect();
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(document)).expect("readable");
        let named = text
            .split("cargo xtask ")
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default());
        for name in named.filter(|name| !name.is_empty()) {
            assert!(known.contains(name), "{document} names `cargo xtask {name}`, which does not exist");
        }
    }
}

/// Every Rust file of ours.
pub fn rust() -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    assert!(found.len() > 20, "the tree was not found");
    found
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
