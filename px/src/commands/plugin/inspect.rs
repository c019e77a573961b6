//! `px plugin inspect`: what a plugin is and wants, before anybody runs it.

use clap::Args;
use host_manifest::Manifest;
use serde_json::json;

use crate::cli::Global;
use crate::commands::listing::{ListFormat, print};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::human::bytes_text;
use crate::output::text;
use crate::registry::RegistryArgs;
use crate::style::Style;

use super::subject::{Plugin, Subject};

/// Show what a plugin imports, reads, takes and wants to use, and who signed it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px plugin inspect                                     the plugin in this folder
  px plugin inspect slow_posts.wasm -o json
  px plugin inspect registry.example.com/team/slow_posts:0.1.0")]
pub struct Inspect {
    /// Folder of a plugin, component, oci:DIR[:TAG], or HOST/NAME[:TAG]
    #[arg(value_name = "PLUGIN", default_value = ".", value_hint = clap::ValueHint::AnyPath)]
    plugin: String,

    /// Output format: table, json, ndjson
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    pub output: ListFormat,

    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(command: Inspect, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let plugin = Subject::find(&command.plugin)?.get(&command.registry, &terminal).await?;
    match command.output {
        ListFormat::Table => print(&described(&plugin, terminal.out))?,
        ListFormat::Json => print(&format!("{:#}\n", document(&plugin)))?,
        ListFormat::Ndjson => print(&format!("{}\n", document(&plugin)))?,
    }
    Ok(Exit::Ok)
}

/// Whoever made the plugin wrote this.
fn sanitize(theirs: &str) -> String {
    text::sanitize(theirs).into_owned()
}

fn described(plugin: &Plugin, style: Style) -> String {
    let artifact = &plugin.artifact;
    let manifest = artifact.plugin();
    let mut lines: Vec<(&str, String)> = vec![
        ("name", style.bold(&sanitize(&manifest.name))),
        ("version", sanitize(&manifest.version)),
        ("about", sanitize(&manifest.description)),
        ("world", sanitize(&manifest.world)),
        ("size", bytes_text(artifact.component().len() as u64)),
        ("artifact", artifact.digest().to_string()),
        ("component", artifact.component_descriptor().digest.to_string()),
    ];
    if let Some(license) = &manifest.license {
        lines.insert(3, ("license", sanitize(license)));
    }
    let mut list = |name: &'static str, items: Vec<String>, none: &str| {
        let mut items = items.into_iter().map(|item| sanitize(&item)).collect::<Vec<_>>().into_iter();
        lines.push((name, items.next().unwrap_or_else(|| style.dim(none))));
        lines.extend(items.map(|item| ("", item)));
    };
    list("imports", artifact.outline().imports.clone(), "nothing");
    list("exports", artifact.outline().exports.clone(), "nothing");
    list("reads", manifest.tables.clone(), "no table");
    list("functions", manifest.functions.clone(), "none beyond SQL's own");
    list("arguments", arguments(manifest), "none");
    list("shows", manifest.outputs.iter().map(|output| output.name.clone()).collect(), "whatever it decides");
    list("budgets", budgets(manifest), "the host's defaults");
    list("signed by", signatures(plugin), "nobody");
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().map(|(name, value)| format!("{}  {value}\n", style.dim(&format!("{name:width$}")))).collect()
}

fn arguments(manifest: &Manifest) -> Vec<String> {
    let argument = |arg: &host_manifest::Arg| {
        let rest = match &arg.default {
            Some(serde_json::Value::String(text)) => format!(" [default {text}]"),
            Some(other) => format!(" [default {other}]"),
            None if arg.required => " [required]".to_owned(),
            None => String::new(),
        };
        format!("--{} <{}>{rest}", arg.name, arg.arg_type.as_str())
    };
    manifest.args.iter().map(argument).collect()
}

fn budgets(manifest: &Manifest) -> Vec<String> {
    let asked = &manifest.budget;
    let named = [
        ("guest CPU", asked.guest_cpu_ms.map(|ms| format!("{ms} ms"))),
        ("memory", asked.memory_bytes.map(bytes_text)),
        ("rows scanned", asked.rows_scanned.map(|rows| rows.to_string())),
        ("output rows", asked.output_rows.map(|rows| rows.to_string())),
        ("output", asked.output_bytes.map(bytes_text)),
        ("time", asked.wall_ms.map(|ms| format!("{ms} ms"))),
    ];
    named.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?))).collect()
}

/// What signatures claim; whether they are good is for `px plugin verify`, which has keys.
fn signatures(plugin: &Plugin) -> Vec<String> {
    plugin.signatures.iter().map(|bundle| format!("{} (not verified: px plugin verify)", bundle.claims())).collect()
}

fn document(plugin: &Plugin) -> serde_json::Value {
    let artifact = &plugin.artifact;
    json!({
        "digest": artifact.digest().as_str(),
        "component": { "digest": artifact.component_descriptor().digest.as_str(), "bytes": artifact.component().len() },
        "imports": artifact.outline().imports,
        "exports": artifact.outline().exports,
        "manifest": artifact.plugin(),
        "signatures": plugin.signatures.iter().map(|bundle| json!({ "claims": bundle.claims() })).collect::<Vec<_>>(),
    })
}
