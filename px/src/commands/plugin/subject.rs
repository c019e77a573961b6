//! What the commands after `px plugin build` work on: a plugin in one of its forms, named by one word.

use std::path::{Path, PathBuf};

use plugins_artifact::{Artifact, Bundle, COMPONENT_BYTES_MAX, Layout};

use crate::error::{Code, Error, Result};
use crate::registry::{Registry, RegistryArgs, refused};
use crate::style::Terminal;

/// Marks a layout folder, as other OCI tools write it: `oci:DIR` or `oci:DIR:TAG`.
const LAYOUT: &str = "oci:";

/// A plugin, as it was named.
#[derive(Debug, PartialEq, Eq)]
pub enum Subject {
    /// A folder with `plugin.toml`: built first.
    Source(PathBuf),
    /// A component.
    Component(PathBuf),
    /// In a layout, with its tag or digest.
    Layout(PathBuf, Option<String>),
    /// In a registry.
    Registry(String),
}

/// A plugin, here.
pub struct Plugin {
    pub artifact: Artifact,
    pub signatures: Vec<Bundle>,
}

impl Subject {
    pub fn find(word: &str) -> Result<Subject> {
        if let Some(place) = word.strip_prefix(LAYOUT) {
            let whole = Path::new(place);
            return Ok(match place.split_once('@').or_else(|| place.rsplit_once(':')) {
                Some((dir, tag)) if !whole.is_dir() => Subject::Layout(dir.into(), Some(tag.into())),
                _ => Subject::Layout(whole.into(), None),
            });
        }
        let path = Path::new(word);
        if path.is_file() {
            return Ok(Subject::Component(path.into()));
        }
        if path.is_dir() {
            if Layout::is_at(path) {
                return Ok(Subject::Layout(path.into(), None));
            }
            if path.join("plugin.toml").is_file() {
                return Ok(Subject::Source(path.into()));
            }
            return Err(Error::usage(format!("{word} holds no plugin: neither a plugin.toml nor an oci-layout"))
                .hint("px plugin new NAME makes a plugin, px plugin pack a layout"));
        }
        let file = word.starts_with(['/', '.', '~']) || path.extension().is_some_and(|e| e == "wasm");
        if file || !word.contains('/') {
            return Err(Error::new(Code::NotFound, format!("there is no {word}")).hint(
                "name a folder with a plugin.toml, a component (.wasm), a layout (oci:DIR) or a place in a registry \
                 (HOST/NAME:TAG)",
            ));
        }
        Ok(Subject::Registry(word.into()))
    }

    /// Gets it: builds, reads or pulls.
    pub async fn get(&self, args: &RegistryArgs, terminal: &Terminal) -> Result<Plugin> {
        match self {
            Subject::Source(dir) => {
                let built = super::build(dir, None, false, terminal)?;
                component(&built.path)
            }
            Subject::Component(path) => component(path),
            Subject::Layout(dir, reference) => {
                let layout = Layout::open(dir).map_err(refused)?;
                let artifact = layout.read(reference.as_deref()).map_err(refused)?;
                let signatures = layout.signatures(artifact.digest()).map_err(refused)?;
                Ok(Plugin { artifact, signatures })
            }
            Subject::Registry(reference) => {
                let (artifact, signatures) = Registry::at(reference, args)?.pull().await?;
                Ok(Plugin { artifact, signatures })
            }
        }
    }
}

fn component(path: &Path) -> Result<Plugin> {
    let io = |e| Error::io(format!("read {}", path.display()), &e);
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > COMPONENT_BYTES_MAX as u64 {
        let most = crate::output::human::bytes_text(COMPONENT_BYTES_MAX as u64);
        return Err(Error::new(
            Code::Invalid,
            format!("{} is larger than {most}, the most a component may be", path.display()),
        ));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let artifact = Artifact::pack(bytes).map_err(|e| {
        let error = refused(e);
        Error { message: format!("{}: {}", path.display(), error.message), ..error }
    })?;
    Ok(Plugin { artifact, signatures: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_names_any_form() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let word = |name: &str| at(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(at("source")).unwrap();
        std::fs::create_dir_all(at("empty")).unwrap();
        std::fs::write(at("source/plugin.toml"), "").unwrap();
        std::fs::write(at("a.wasm"), "").unwrap();
        Layout::create(&at("layout")).unwrap();
        let find = |word: &str| Subject::find(word).unwrap();
        assert_eq!(find(&word("source")), Subject::Source(at("source")));
        assert_eq!(find(&word("a.wasm")), Subject::Component(at("a.wasm")));
        assert_eq!(find(&word("layout")), Subject::Layout(at("layout"), None));
        let layout = |tag: &str| format!("oci:{}{tag}", word("layout"));
        assert_eq!(find(&layout("")), Subject::Layout(at("layout"), None));
        assert_eq!(find(&layout(":0.1.0")), Subject::Layout(at("layout"), Some("0.1.0".into())));
        assert_eq!(find(&layout("@sha256:12")), Subject::Layout(at("layout"), Some("sha256:12".into())));
        assert_eq!(find("localhost:5000/a:1"), Subject::Registry("localhost:5000/a:1".into()));
        for wrong in [&word("empty"), &word("none"), "none.wasm", "none", "./a/b"] {
            assert!(Subject::find(wrong).is_err(), "{wrong}");
        }
    }
}
