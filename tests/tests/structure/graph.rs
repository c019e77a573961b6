//! The workspace as Cargo resolves it: normal dependencies only, since those are what a program is made of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Read once; several tests ask.
pub static GRAPH: LazyLock<Graph> = LazyLock::new(Graph::read);

pub struct Graph {
    metadata: Metadata,
}

/// What a crate is made of, by name.
pub struct Closure {
    pub ours: BTreeSet<String>,
    pub others: BTreeSet<String>,
}

/// The clone.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").to_owned()
}

impl Graph {
    fn read() -> Self {
        let mut command = MetadataCommand::new();
        command.manifest_path(root().join("Cargo.toml")).no_deps();
        Self { metadata: command.exec().expect("cargo metadata reads the workspace") }
    }

    /// Our own packages.
    pub fn members(&self) -> Vec<&Package> {
        self.metadata.workspace_packages()
    }

    pub fn member(&self, name: &str) -> &Package {
        let found = self.members().into_iter().find(|package| package.name == name);
        found.unwrap_or_else(|| panic!("no crate {name} in the workspace"))
    }

    /// All that `name` is made of, itself left out. `cargo tree` knows which features are on; `cargo metadata` does not.
    pub fn closure(&self, name: &str) -> Closure {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .current_dir(root())
            .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
            // By id: crates.io has a `pem` too.
            .args(["--package", &self.member(name).id.repr])
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
        let mut closure = Closure { ours: BTreeSet::new(), others: BTreeSet::new() };
        // `name v1.2.3`, and the folder behind it for those of the workspace.
        for line in String::from_utf8_lossy(&output.stdout).lines().skip(1) {
            let Some(package) = line.split(' ').next().filter(|package| !package.is_empty()) else { continue };
            let set = if line.contains(" (/") { &mut closure.ours } else { &mut closure.others };
            set.insert(package.to_owned());
        }
        closure.ours.remove(name);
        closure
    }

    /// Names of the packages that `name` asks for itself.
    pub fn direct(&self, name: &str) -> BTreeSet<String> {
        let normal = self.member(name).dependencies.iter().filter(|dep| dep.kind == DependencyKind::Normal);
        normal.map(|dep| dep.name.clone()).collect()
    }
}
