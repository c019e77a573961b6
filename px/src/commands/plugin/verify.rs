//! `px plugin verify`.

use std::path::PathBuf;

use clap::Args;
use plugins_artifact::{PublicKey, signers};

use crate::cli::Global;
use crate::commands::listing::print;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::registry::{RegistryArgs, refused};

use super::subject::Subject;

/// Check that a plugin is whole and signed with one of these keys
#[derive(Debug, Args)]
#[command(after_help = "\
Ends with 0 if at least one of the keys signed it, with 4 if none did, with 1 if it is not whole.

Examples:
  px plugin verify oci:slow_posts.oci --key plugins.pub
  px plugin verify registry.example.com/team/slow_posts:0.1.0 --key a.pub --key b.pub")]
pub struct Verify {
    /// oci:DIR[:TAG] or HOST/NAME[:TAG]
    #[arg(value_name = "PLUGIN", value_hint = clap::ValueHint::AnyPath)]
    plugin: String,

    /// A public key that is trusted (Ed25519, ECDSA P-256); may be given several times
    #[arg(long, value_name = "FILE", required = true, value_hint = clap::ValueHint::FilePath)]
    key: Vec<PathBuf>,

    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(command: Verify, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let trusted = command.key.iter().map(|key| PublicKey::from_file(key)).collect::<std::result::Result<Vec<_>, _>>();
    let trusted = trusted.map_err(refused)?;
    let subject = Subject::find(&command.plugin)?;
    if matches!(subject, Subject::Source(_) | Subject::Component(_)) {
        return Err(Error::usage(format!("{} is not packed, and so not signed", command.plugin))
            .hint("verify what px plugin pack, push and sign made"));
    }
    let plugin = subject.get(&command.registry, &terminal).await?;
    let signed = signers(plugin.artifact.digest(), &plugin.signatures, &trusted).map_err(|e| {
        let error = refused(e);
        let what = plugin.artifact.plugin();
        Error { message: format!("{} {}: {}", what.name, what.version, error.message), ..error }
    })?;
    let what = plugin.artifact.plugin();
    for signer in signed {
        print(&format!(
            "{} {} {} is signed by {} ({})\n",
            what.name,
            what.version,
            plugin.artifact.digest(),
            signer.key,
            signer.algorithm
        ))?;
    }
    Ok(Exit::Ok)
}
