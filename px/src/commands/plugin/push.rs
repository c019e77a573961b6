//! `px plugin push`.

use clap::Args;

use crate::cli::Global;
use crate::commands::listing::print;
use crate::error::Result;
use crate::exit::Exit;
use crate::registry::{Registry, RegistryArgs};

use super::subject::Subject;

/// Put a plugin, with its signatures, into an OCI registry
#[derive(Debug, Args)]
#[command(after_help = "\
Credentials are those of docker login and its like, or PX_REGISTRY_USER and PX_REGISTRY_PASSWORD.

Examples:
  px plugin push . registry.example.com/team/slow_posts         builds, packs; the tag is the version
  px plugin push oci:slow_posts.oci localhost:5000/slow_posts:try")]
pub struct Push {
    /// Folder of a plugin, component, oci:DIR[:TAG], or HOST/NAME[:TAG]
    #[arg(value_name = "PLUGIN", value_hint = clap::ValueHint::AnyPath)]
    plugin: String,

    /// Where to: HOST/NAME, or HOST/NAME:TAG
    #[arg(value_name = "REFERENCE")]
    reference: String,

    /// Move the tag although it is another artifact's
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(command: Push, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let registry = Registry::at(&command.reference, &command.registry)?;
    let plugin = Subject::find(&command.plugin)?.get(&command.registry, &terminal).await?;
    let pushed = registry.push(&plugin.artifact, &plugin.signatures, command.replace).await?;
    if pushed.same {
        terminal.note("the registry had it already");
    }
    terminal.note(&terminal.err.dim(plugin.artifact.digest().as_str()));
    print(&format!("{}\n", pushed.reference))?;
    Ok(Exit::Ok)
}
