//! `px plugin install`.

use clap::Args;
use vizier_api::InstallPluginRequest;
use vizier_api::install_plugin_response::Outcome;

use crate::cli::Global;
use crate::client::{self, connect};
use crate::commands::listing::print;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::text::sanitize;
use crate::registry::RegistryArgs;

use super::subject::Subject;

/// Install a plugin into Vizier, to be run by name
#[derive(Debug, Args)]
#[command(after_help = "\
The newest version is enabled, older ones are kept: px plugin remove NAME@VERSION goes back.

Examples:
  px plugin install                                             builds this folder's plugin
  px plugin install registry.example.com/team/slow_posts        the newest version there
  px plugin install oci:slow_posts.oci && px run slow_posts")]
pub struct Install {
    /// Folder of a plugin, component, oci:DIR[:TAG], or HOST/NAME[:TAG]
    #[arg(value_name = "PLUGIN", default_value = ".", value_hint = clap::ValueHint::AnyPath)]
    plugin: String,

    /// Enable it although a newer version is installed, or in place of other content of the same version
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(command: Install, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let plugin = Subject::find(&command.plugin)?.get(&command.registry, &terminal).await?;
    let mut client = connect(global.vizier.as_ref()).await?;
    let request = InstallPluginRequest {
        image: plugin.artifact.image().to_vec(),
        config: plugin.artifact.config().to_vec(),
        component: plugin.artifact.component().to_vec(),
        signatures: plugin.signatures.iter().map(|bundle| bundle.to_bytes().to_vec()).collect(),
        replace: command.replace,
    };
    let reply = client.install_plugin(request).await.map_err(client::status)?.into_inner();
    let outcome = reply.outcome();
    let installed = reply.plugin.ok_or_else(|| Error::internal("Vizier did not say what it installed"))?;
    let (name, version) = (sanitize(&installed.name), sanitize(&installed.version));
    let before = sanitize(&reply.previous_version);
    terminal.note(&match outcome {
        Outcome::Installed => format!("installed {name} {version}"),
        Outcome::Unchanged => format!("{name} {version} is installed already"),
        Outcome::Upgraded => {
            format!("installed {name} {version}; {before} is kept: px plugin remove {name}@{version} goes back")
        }
        Outcome::Downgraded => format!("installed {name} {version}, older than {before}, which is kept"),
        Outcome::Replaced => format!("installed {name} {version} in place of what had that version"),
    });
    if installed.kind == "script" {
        terminal.note(&format!("run it: {}", terminal.err.accent(&format!("px run {name}"))));
    }
    print(&format!("{name} {version} {}\n", sanitize(&installed.digest)))?;
    Ok(Exit::Ok)
}
