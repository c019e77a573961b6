//! `px plugin keygen`: a pair of keys to sign plugins with.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use plugins_artifact::SigningKey;

use crate::cli::Global;
use crate::commands::listing::print;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::registry::refused;

/// Make a pair of keys: NAME.key, which signs and stays with you, and NAME.pub, which others check with
#[derive(Debug, Args)]
#[command(after_help = "\
The keys are Ed25519, as PEM. NAME.key is not encrypted: keep it where only you can read.

Examples:
  px plugin keygen                        plugins.key and plugins.pub
  px plugin keygen ~/.config/pyxis/team
  px up --trusted-key plugins.pub         takes only plugins that are signed with it")]
pub struct Keygen {
    /// Where the keys go, without ending
    #[arg(value_name = "NAME", default_value = "plugins", value_hint = clap::ValueHint::FilePath)]
    name: PathBuf,
}

pub fn run(command: &Keygen, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let key = SigningKey::generate().map_err(refused)?;
    let with = |ending: &str| {
        let mut name = command.name.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let (private, public) = (with(".key"), with(".pub"));
    // The public one first: what fails then has left no key behind.
    write(&public, key.public().to_pem().as_bytes(), 0o644)?;
    if let Err(error) = write(&private, key.to_pem().as_bytes(), 0o600) {
        let _ = std::fs::remove_file(&public);
        return Err(error);
    }
    terminal.note(&format!("{} signs; keep it to yourself", private.display()));
    terminal.note(&format!("{} is for those who check", public.display()));
    print(&format!("{}\n", key.public().fingerprint()))?;
    Ok(Exit::Ok)
}

/// A new file. One that is there is never written over: it may be the only copy of a key.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::usage(format!("{} is there already", path.display())).hint("choose another name, or remove it")
        }
        _ => Error::io(format!("write {}", path.display()), &e),
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| Error::io(format!("write {}", path.display()), &e))
}
