//! What serde cannot say well: unknown keys with the nearest known one, and what must hold between keys.

use serde_json::Value;

use crate::manifest::{Error, Kind, Manifest};
use crate::{function, protocol};

/// Most arguments, tables, functions, outputs, views, and columns of a view. The bundled scripts use up to 8; a person
/// reads no more than a screen of them.
const LIST_MAX: usize = 64;

const MANIFEST: &[&str] = &[
    "name",
    "version",
    "kind",
    "world",
    "description",
    "license",
    "args",
    "tables",
    "functions",
    "outputs",
    "views",
    "exports",
    "protocol",
    "follow",
    "budget",
];
const ARG: &[&str] = &["name", "type", "default", "required", "help", "choices"];
const OUTPUT: &[&str] = &["name", "description"];
const VIEW: &[&str] = &["table", "title", "widget", "columns", "sort"];
const COLUMN: &[&str] = &["name", "title", "format", "width"];
const SORT: &[&str] = &["column", "descending"];
const BUDGET: &[&str] = &["guest_cpu_ms", "memory_bytes", "rows_scanned", "output_rows", "output_bytes", "wall_ms"];

/// The candidate most like `name`, if any is like it at all.
pub fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_lowercase();
    candidates
        .iter()
        .map(|c| (strsim::damerau_levenshtein(&lower, &c.to_lowercase()), *c))
        .filter(|(distance, c)| {
            *distance <= (name.len().max(c.len()) / 3).max(1) || c.starts_with(&lower) && lower.len() > 2
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

pub(crate) fn did_you_mean(name: &str, candidates: &[&str]) -> Option<String> {
    nearest(name, candidates).map(|c| format!("did you mean `{c}`?"))
}

pub(crate) fn keys(manifest: &Value) -> Result<(), Error> {
    object(manifest, "", MANIFEST)?;
    each(manifest, "args", |v, path| object(v, path, ARG))?;
    each(manifest, "outputs", |v, path| object(v, path, OUTPUT))?;
    each(manifest, "views", view)?;
    function::keys(manifest)?;
    manifest.get("protocol").map_or(Ok(()), protocol::keys)?;
    match manifest.get("budget") {
        Some(budget) => object(budget, "budget", BUDGET),
        None => Ok(()),
    }
}

pub(crate) fn view_keys(value: &Value) -> Result<(), Error> {
    view(value, "view")
}

fn view(value: &Value, path: &str) -> Result<(), Error> {
    object(value, path, VIEW)?;
    each(value, "columns", |v, at| object(v, &format!("{path}.{at}"), COLUMN))?;
    match value.get("sort") {
        Some(sort) => object(sort, &format!("{path}.sort"), SORT),
        None => Ok(()),
    }
}

pub(crate) fn each(value: &Value, key: &str, check: impl Fn(&Value, &str) -> Result<(), Error>) -> Result<(), Error> {
    let Some(list) = value.get(key).and_then(Value::as_array) else { return Ok(()) };
    list.iter().enumerate().try_for_each(|(i, v)| check(v, &format!("{key}[{i}]")))
}

pub(crate) fn object(value: &Value, path: &str, known: &[&str]) -> Result<(), Error> {
    // Values of the wrong type are serde's to refuse.
    let Some(map) = value.as_object() else { return Ok(()) };
    let Some(unknown) = map.keys().find(|k| !known.contains(&k.as_str())) else { return Ok(()) };
    let at = if path.is_empty() { unknown.clone() } else { format!("{path}.{unknown}") };
    let hint = did_you_mean(unknown, known).unwrap_or_else(|| format!("known keys are {}", known.join(", ")));
    Err(Error::new(format!("plugin.toml: unknown key `{at}`")).hint(hint).at(at))
}

pub(crate) fn meaning(manifest: &Manifest) -> Result<(), Error> {
    let fault = |key: &str, message: String| Err(Error::new(format!("plugin.toml: {message}")).at(key));
    if !is_name(&manifest.name) {
        return fault(
            "name",
            format!("name `{}` must be 1 to 64 lower case letters, digits, `_` or `-`", manifest.name),
        );
    }
    if manifest.world != manifest.kind.world() {
        return Err(Error::new(format!("plugin.toml: world `{}` is not one this build knows", manifest.world))
            .hint(format!("write world = \"{}\" or leave it out", manifest.kind.world()))
            .at("world"));
    }
    match (manifest.kind, manifest.exports.is_empty()) {
        (Kind::Function, _) => function::meaning(&manifest.exports)?,
        (_, false) => {
            return Err(Error::new("plugin.toml: [[exports]] is for plugins of kind function")
                .hint("write kind = \"function\", or leave the functions out"));
        }
        (_, true) => {}
    }
    match (manifest.kind, &manifest.protocol) {
        (Kind::Protocol, Some(protocol)) => protocol::meaning(protocol)?,
        (Kind::Protocol, None) => {
            return Err(Error::new("plugin.toml: a plugin of kind protocol has no [protocol]")
                .hint("say which ports or beginnings it looks at, and what its table holds"));
        }
        (_, Some(_)) => {
            return Err(Error::new("plugin.toml: [protocol] is for plugins of kind protocol")
                .hint("write kind = \"protocol\", or leave the table out"));
        }
        (_, None) => {}
    }
    if manifest.description.trim().is_empty() {
        return fault("description", "description is empty; say in one sentence what the plugin shows".into());
    }
    let lists = [
        ("args", manifest.args.len()),
        ("tables", manifest.tables.len()),
        ("functions", manifest.functions.len()),
        ("outputs", manifest.outputs.len()),
        ("views", manifest.views.len()),
        ("views.columns", manifest.views.iter().map(|v| v.columns.len()).max().unwrap_or(0)),
    ];
    for (what, len) in lists {
        if len > LIST_MAX {
            return fault(what, format!("{what} has {len} entries, at most {LIST_MAX} are allowed"));
        }
    }
    for (i, arg) in manifest.args.iter().enumerate() {
        if !is_name(&arg.name) {
            return fault(
                &format!("args[{i}].name"),
                format!("args[{i}].name `{}` must be lower case letters, digits, `_` or `-`", arg.name),
            );
        }
        if manifest.args[..i].iter().any(|a| a.name == arg.name) {
            return fault(&format!("args[{i}].name"), format!("args[{i}].name `{}` is taken", arg.name));
        }
        if arg.required && arg.default.is_some() {
            return fault(
                &format!("args[{i}].required"),
                format!("argument `{}` is required and has a default; keep one of the two", arg.name),
            );
        }
        arg.default_value().map_err(|e| {
            Error { message: format!("plugin.toml: args[{i}]: {}", e.message), ..e }.at(format!("args[{i}].default"))
        })?;
    }
    for (i, output) in manifest.outputs.iter().enumerate() {
        if manifest.outputs[..i].iter().any(|o| o.name == output.name) {
            return fault(&format!("outputs[{i}].name"), format!("outputs[{i}].name `{}` is taken", output.name));
        }
    }
    let outputs: Vec<&str> = manifest.outputs.iter().map(|o| o.name.as_str()).collect();
    for (i, view) in manifest.views.iter().enumerate() {
        if !outputs.is_empty() && !outputs.contains(&view.table.as_str()) {
            let error = Error::new(format!("plugin.toml: views[{i}].table `{}` is no output", view.table))
                .at(format!("views[{i}].table"));
            return Err(match did_you_mean(&view.table, &outputs) {
                Some(hint) => error.hint(hint),
                None => error.hint(format!("outputs are {}", outputs.join(", "))),
            });
        }
    }
    Ok(())
}

pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}
