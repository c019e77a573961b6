//! `px plugin sign`.

use std::path::PathBuf;

use clap::Args;
use plugins_artifact::{Bundle, Layout, SigningKey};

use crate::cli::Global;
use crate::commands::listing::print;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::registry::{Registry, RegistryArgs, refused};

use super::subject::Subject;

/// Sign a packed plugin with a key of yours
#[derive(Debug, Args)]
#[command(after_help = "\
The signature lies beside the artifact, as a Sigstore bundle. No service takes part.

Examples:
  px plugin keygen
  px plugin sign oci:slow_posts.oci --key plugins.key
  px plugin sign registry.example.com/team/slow_posts:0.1.0 --key plugins.key")]
pub struct Sign {
    /// oci:DIR[:TAG] or HOST/NAME[:TAG]
    #[arg(value_name = "PLUGIN", value_hint = clap::ValueHint::AnyPath)]
    plugin: String,

    /// The private key, as px plugin keygen or openssl genpkey makes it (Ed25519, ECDSA P-256)
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    key: PathBuf,

    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(command: Sign, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let subject = Subject::find(&command.plugin)?;
    if matches!(subject, Subject::Source(_) | Subject::Component(_)) {
        return Err(Error::usage(format!("{} is not packed, so there is no place for a signature", command.plugin))
            .hint(format!("px plugin sign $(px plugin pack {}) --key {}", command.plugin, command.key.display())));
    }
    let key = SigningKey::from_file(&command.key).map_err(refused)?;
    let artifact = subject.get(&command.registry, &terminal).await?.artifact;
    let bundle = Bundle::sign(&artifact, &key).map_err(refused)?;
    match &subject {
        Subject::Layout(dir, _) => {
            Layout::open(dir).and_then(|layout| layout.attach(&artifact, &bundle)).map_err(refused)?;
        }
        Subject::Registry(reference) => Registry::at(reference, &command.registry)?.sign(&artifact, &bundle).await?,
        Subject::Source(_) | Subject::Component(_) => unreachable!("refused above"),
    }
    let plugin = artifact.plugin();
    terminal.note(&format!("signed {} {} with {}", plugin.name, plugin.version, key.public().fingerprint()));
    print(&format!("{}\n", artifact.digest()))?;
    Ok(Exit::Ok)
}
