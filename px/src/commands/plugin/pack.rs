//! `px plugin pack`: a plugin as one OCI artifact in a folder.

use std::path::PathBuf;

use clap::Args;
use plugins_artifact::Layout;

use crate::cli::Global;
use crate::commands::listing::print;
use crate::error::Result;
use crate::exit::Exit;
use crate::registry::{RegistryArgs, refused};

use super::subject::{Plugin, Subject};

/// Pack a plugin into one OCI artifact: component, manifest and views
#[derive(Debug, Args)]
#[command(after_help = "\
The same component always gives the same artifact, with the same digest.

Examples:
  px plugin pack                          build this folder's plugin: target/plugins/NAME.oci
  px plugin pack slow_posts.wasm --out slow_posts.oci
  px plugin push $(px plugin pack) registry.example.com/team/slow_posts")]
pub struct Pack {
    /// Folder of a plugin, or a component
    #[arg(value_name = "PLUGIN", default_value = ".", value_hint = clap::ValueHint::AnyPath)]
    plugin: String,

    /// The layout folder; others may be in it already [default: target/plugins/NAME.oci in the plugin's folder]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
}

pub async fn run(command: Pack, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let subject = Subject::find(&command.plugin)?;
    let plugin = subject.get(&RegistryArgs { plain_http: false }, &terminal).await?;
    let name = format!("{}.oci", plugin.artifact.plugin().name);
    let out = command.out.unwrap_or_else(|| match &subject {
        Subject::Source(dir) => dir.join("target/plugins").join(name),
        Subject::Component(file) => file.with_file_name(name),
        Subject::Layout(..) | Subject::Registry(_) => PathBuf::from(name),
    });
    let reference = write(&plugin, &out)?;
    terminal.note(&terminal.err.dim(plugin.artifact.digest().as_str()));
    print(&format!("{reference}\n"))?;
    Ok(Exit::Ok)
}

/// Writes a plugin with its signatures into a layout, under its version, and gives the word that names it there.
pub fn write(plugin: &Plugin, out: &std::path::Path) -> Result<String> {
    let layout = Layout::create(out).map_err(refused)?;
    let version = &plugin.artifact.plugin().version;
    layout.write(&plugin.artifact, version).map_err(refused)?;
    for bundle in &plugin.signatures {
        layout.attach(&plugin.artifact, bundle).map_err(refused)?;
    }
    Ok(format!("oci:{}:{version}", out.display()))
}
