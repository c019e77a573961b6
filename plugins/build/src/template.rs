//! A new plugin from the template.

use std::path::{Path, PathBuf};

use host_manifest::Kind;

use crate::error::{Error, Tried};

const SCRIPT: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.in")),
    ("plugin.toml", include_str!("../../templates/rust/plugin.toml.in")),
    ("src/lib.rs", include_str!("../../templates/rust/lib.rs.in")),
    (".gitignore", "/target\n"),
];

const FUNCTION: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.in")),
    ("plugin.toml", include_str!("../../templates/function/plugin.toml.in")),
    ("src/lib.rs", include_str!("../../templates/function/lib.rs.in")),
    (".gitignore", "/target\n"),
];

/// Makes the folder `dir` with a script called `name`; see [`create_kind`].
pub fn create(dir: &Path, name: &str, sdk: &Path) -> Result<Vec<PathBuf>, Error> {
    create_kind(dir, name, sdk, Kind::Script)
}

/// Makes the folder `dir` with a plugin of that kind, called `name`, that builds against the SDK at `sdk` (see [`crate::sdk::locate`]). A
/// folder that is not empty is refused. Gives the files made.
pub fn create_kind(dir: &Path, name: &str, sdk: &Path, kind: Kind) -> Result<Vec<PathBuf>, Error> {
    let files = match kind {
        Kind::Script => SCRIPT,
        Kind::Function => FUNCTION,
        other => {
            let why =
                format!("there is no template for plugins of kind {} yet; plugins/ has some to copy", other.name());
            return Err(Error::NotAPlugin { dir: dir.to_owned(), why });
        }
    };
    let fits = !name.is_empty()
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if !fits {
        return Err(Error::NotAPlugin {
            dir: dir.to_owned(),
            why: format!(
                "`{name}` must start with a lower case letter and go on with lower case letters, digits, `_` or `-`"
            ),
        });
    }
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::NotAPlugin { dir: dir.to_owned(), why: "the folder is not empty; choose another".into() });
    }
    let lock = crate::sdk::lock(sdk);
    // TOML basic strings: a path may hold a quote or a backslash.
    let sdk = crate::toolchain::absolute(sdk).display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    let mut made = Vec::new();
    // Functions have names as SQL has them.
    let snake = name.replace('-', "_");
    for (file, text) in files {
        let path = dir.join(file);
        let parent = path.parent().expect("the file's name was joined to a folder");
        std::fs::create_dir_all(parent).tried(|| format!("cannot make {}", parent.display()))?;
        let text = text.replace("{{name}}", name).replace("{{snake}}", &snake).replace("{{sdk}}", &sdk);
        std::fs::write(&path, text).tried(|| format!("cannot write {}", path.display()))?;
        made.push(path);
    }
    if let Some(lock) = lock {
        let path = dir.join("Cargo.lock");
        std::fs::copy(&lock, &path).tried(|| format!("cannot write {}", path.display()))?;
        made.push(path);
    }
    Ok(made)
}
