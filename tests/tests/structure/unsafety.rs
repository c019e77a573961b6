//! Where `unsafe` may be: the kernel programs, `pem::probes`, and one audited call in `host`.

use std::fs;
use std::path::{Path, PathBuf};

use super::files;
use super::graph::{GRAPH, root};

/// Crates whose roots cannot forbid it, because one module of theirs is allowed it.
const ALLOWED_SOMEWHERE: &[&str] = &["ebpf-abi", "host", "pem"];

#[test]
fn crate_roots_forbid_unsafe_code() {
    for package in GRAPH.members() {
        for target in &package.targets {
            let program = target.is_lib() || target.is_bin() || target.is_proc_macro();
            if !program || ALLOWED_SOMEWHERE.contains(&package.name.as_str()) && target.is_lib() {
                continue;
            }
            let text = fs::read_to_string(&target.src_path).expect("Cargo names files that exist");
            assert!(text.contains("#![forbid(unsafe_code)]"), "{} lacks #![forbid(unsafe_code)]", target.src_path);
        }
    }
}

#[test]
fn pem_denies_unsafe_code_but_in_probes() {
    let text = fs::read_to_string(root().join("pem/src/lib.rs")).expect("pem has a lib.rs");
    assert!(text.contains("#![deny(unsafe_code)]"), "pem/src/lib.rs lacks #![deny(unsafe_code)]");
}

#[test]
fn unsafe_is_where_it_may_be() {
    let may = |path: &Path| {
        // A guest that forges handles has to say so to its own compiler; it runs in the sandbox.
        ["ebpf", "pem/src/probes", "pem/src/probes.rs", "pem/tests/probes", "host/tests/guests/evil"]
            .iter()
            .any(|allowed| path.starts_with(allowed))
    };
    let mut elsewhere: Vec<(PathBuf, usize)> = Vec::new();
    for path in files::rust() {
        let relative = path.strip_prefix(root()).expect("below the root").to_owned();
        let text = fs::read_to_string(&path).expect("readable");
        let count = text.lines().filter(|line| opens_it(line)).count();
        if count > 0 && !may(&relative) {
            elsewhere.push((relative, count));
        }
    }
    let host: Vec<_> = elsewhere.iter().filter(|(path, _)| path.starts_with("host/src")).collect();
    let blocks: usize = host.iter().map(|(_, count)| count).sum();
    assert!(blocks <= 1, "host has one audited unsafe block, loading our own AOT files; found {host:?}");
    elsewhere.retain(|(path, _)| !path.starts_with("host/src"));
    assert!(elsewhere.is_empty(), "unsafe code outside its places: {elsewhere:?}");
}

/// Good enough for rustfmt's output: the keyword where it opens a block or an item, outside comments. Put together here so
/// that this file does not find itself.
fn opens_it(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    [" {", " fn", " impl", " extern", " trait", "("].iter().any(|next| code.contains(&format!("{}{next}", "unsafe")))
}
