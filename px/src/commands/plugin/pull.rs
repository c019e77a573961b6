//! `px plugin pull`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Global;
use crate::commands::listing::print;
use crate::error::Result;
use crate::exit::Exit;
use crate::registry::{Registry, RegistryArgs};

use super::pack;
use super::subject::Plugin;

/// Get a plugin, with its signatures, from an OCI registry into a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px plugin pull registry.example.com/team/slow_posts           the newest version, into slow_posts.oci
  px plugin pull registry.example.com/team/slow_posts:0.1.0 --out plugins.oci")]
pub struct Pull {
    /// HOST/NAME for the newest version, HOST/NAME:TAG or HOST/NAME@DIGEST
    #[arg(value_name = "REFERENCE")]
    reference: String,

    /// The layout folder; others may be in it already [default: NAME.oci]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,

    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(command: Pull, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let (artifact, signatures) = Registry::at(&command.reference, &command.registry)?.pull().await?;
    let out = command.out.unwrap_or_else(|| PathBuf::from(format!("{}.oci", artifact.plugin().name)));
    let plugin = Plugin { artifact, signatures };
    let reference = pack::write(&plugin, &out)?;
    terminal.note(&terminal.err.dim(plugin.artifact.digest().as_str()));
    print(&format!("{reference}\n"))?;
    Ok(Exit::Ok)
}
