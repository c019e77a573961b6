//! The arguments of a script: what comes after `--`.

use std::collections::HashMap;
use std::fmt::Write as _;

use host_manifest::{Arg, ArgType};
use vizier_api::{Argument, Script};

use crate::error::{Error, Result};
use crate::output::human::list;
use crate::output::text::sanitize;
use crate::style::Style;
use crate::suggest;

/// Whether the help of the script is asked for, instead of a run.
pub fn wants_help(raw: &[String]) -> bool {
    raw.iter().any(|arg| arg == "--help" || arg == "-h")
}

/// `--name value`, `--name=value`, or `--name` alone for true. With the script known, names are checked, `-` and `_` mean the
/// same, and a boolean takes no value unless one that reads as a boolean follows.
pub fn parse(raw: &[String], script: Option<&Script>) -> Result<HashMap<String, String>> {
    let mut args = HashMap::new();
    let mut rest = raw.iter().peekable();
    while let Some(word) = rest.next() {
        let Some(name) = word.strip_prefix("--").filter(|name| !name.is_empty()) else {
            return Err(Error::usage(format!("`{word}` is no argument of a script"))
                .hint("arguments are named: px run NAME -- --name value"));
        };
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let known = script.map(|script| find(name, script)).transpose()?;
        let boolean = known.is_some_and(|argument| argument.r#type == "boolean");
        let value = match inline {
            Some(value) => value,
            None => {
                let next = rest.next_if(|next| match boolean {
                    true => known.is_some_and(|argument| fits(argument, next)),
                    false => !next.starts_with("--"),
                });
                match next {
                    Some(value) => value.clone(),
                    None if boolean || known.is_none() => "true".to_owned(),
                    None => return Err(Error::usage(format!("--{name} needs a value")).hint_some(known.map(describe))),
                }
            }
        };
        if let Some(argument) = known {
            check(argument, &value)?;
        }
        let name = known.map_or(name, |argument| &argument.name);
        if args.insert(name.to_owned(), value).is_some() {
            return Err(Error::usage(format!("--{name} is given twice")));
        }
    }
    let absent = script.iter().flat_map(|script| &script.args);
    if let Some(argument) = absent.filter(|a| a.required).find(|a| !args.contains_key(&a.name)) {
        return Err(Error::usage(format!("the script needs --{}", argument.name)).hint(describe(argument)));
    }
    Ok(args)
}

fn find<'a>(name: &str, script: &'a Script) -> Result<&'a Argument> {
    let same = |argument: &&Argument| argument.name.replace('_', "-") == name.replace('_', "-");
    script.args.iter().find(same).ok_or_else(|| {
        let names: Vec<&str> = script.args.iter().map(|a| a.name.as_str()).collect();
        let hint = suggest::hint(name, names.iter().copied()).unwrap_or_else(|| match names.is_empty() {
            true => "it takes none".to_owned(),
            false => format!("it takes {}", list(&names)),
        });
        Error::usage(format!("{} has no argument --{name}", script.name)).hint(hint)
    })
}

/// What the type says can be told at once; what a value means is the script's to judge.
fn check(argument: &Argument, value: &str) -> Result<()> {
    if fits(argument, value) {
        return Ok(());
    }
    let choices: Vec<&str> = argument.choices.iter().map(String::as_str).collect();
    let hint = suggest::hint(value, choices.iter().copied()).unwrap_or_else(|| describe(argument));
    Err(Error::usage(format!("`{value}` does not fit --{}", argument.name)).hint(hint))
}

/// As Vizier will read it: by the manifest's rules.
fn fits(argument: &Argument, value: &str) -> bool {
    let types = [ArgType::String, ArgType::Int64, ArgType::Float64, ArgType::Boolean, ArgType::Duration];
    let Some(arg_type) = types.into_iter().find(|known| known.as_str() == argument.r#type) else {
        // A newer Vizier's; it judges.
        return true;
    };
    let arg = Arg {
        name: argument.name.clone(),
        arg_type,
        default: None,
        required: argument.required,
        help: String::new(),
        choices: argument.choices.clone(),
    };
    arg.parse(value).is_ok()
}

fn describe(argument: &Argument) -> String {
    let mut out = format!("--{} <{}>", argument.name.replace('_', "-"), argument.r#type);
    if !argument.choices.is_empty() {
        let _ = write!(out, ": one of {}", argument.choices.join(", "));
    }
    if !argument.help.is_empty() {
        let _ = write!(out, ": {}", argument.help);
    }
    out
}

/// Its author's words as they may be printed: anyone may send a script.
fn printable(script: &Script) -> Script {
    let clean = |text: &String| sanitize(text).into_owned();
    let argument = |argument: &Argument| Argument {
        name: clean(&argument.name),
        r#type: clean(&argument.r#type),
        default: clean(&argument.default),
        help: clean(&argument.help),
        choices: argument.choices.iter().map(clean).collect(),
        ..argument.clone()
    };
    Script {
        name: clean(&script.name),
        version: clean(&script.version),
        description: clean(&script.description),
        digest: clean(&script.digest),
        args: script.args.iter().map(argument).collect(),
        tables: script.tables.iter().map(clean).collect(),
        ..script.clone()
    }
}

/// The help of a script.
pub fn help(script: &Script, style: Style) -> String {
    let script = &printable(script);
    let mut out = String::new();
    let _ = writeln!(out, "{} {}  {}", style.bold(&script.name), script.version, style.dim(&script.digest));
    if !script.description.is_empty() {
        let _ = writeln!(out, "{}", script.description.trim());
    }
    let _ = writeln!(out, "\n{}\n  px run {} [OPTIONS] [-- ARGUMENTS]", style.bold("Usage"), script.name);
    if !script.args.is_empty() {
        let _ = writeln!(out, "\n{}", style.bold("Arguments"));
        let heads: Vec<String> =
            script.args.iter().map(|a| format!("--{} <{}>", a.name.replace('_', "-"), a.r#type)).collect();
        let wide = heads.iter().map(String::len).max().unwrap_or(0);
        for (argument, head) in script.args.iter().zip(&heads) {
            let mut facts = Vec::new();
            if argument.required {
                facts.push("required".to_owned());
            } else if !argument.default.is_empty() {
                facts.push(format!("default {}", argument.default));
            }
            if !argument.choices.is_empty() {
                facts.push(format!("one of {}", argument.choices.join(", ")));
            }
            let facts = if facts.is_empty() { String::new() } else { style.dim(&format!("  [{}]", facts.join("; "))) };
            let line = format!("  {}  {}{facts}", style.accent(&format!("{head:<wide$}")), argument.help.trim());
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    if !script.tables.is_empty() {
        let _ = writeln!(out, "\n{}\n  {}", style.bold("Reads"), script.tables.join(", "));
    }
    let _ = writeln!(out, "\n{}\n  px run {} --since 15m", style.bold("Examples"), script.name);
    if let Some(argument) = script.args.first() {
        let value = [&argument.default].into_iter().chain(&argument.choices).find(|v| !v.is_empty());
        let value = value.map_or("VALUE", |v| v.as_str());
        let _ = writeln!(out, "  px run {} --follow -- --{} {value}", script.name, argument.name.replace('_', "-"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script() -> Script {
        let argument =
            |name: &str, kind: &str| Argument { name: name.into(), r#type: kind.into(), ..Argument::default() };
        Script {
            name: "slow_requests".into(),
            args: vec![
                argument("min_latency", "duration"),
                argument("errors_only", "boolean"),
                Argument { choices: vec!["client".into(), "server".into()], ..argument("role", "string") },
                argument("top", "int64"),
            ],
            ..Script::default()
        }
    }

    fn parse_with(raw: &[&str], script: Option<&Script>) -> Result<Vec<(String, String)>> {
        let raw: Vec<String> = raw.iter().map(|s| (*s).to_owned()).collect();
        parse(&raw, script).map(|map| {
            let mut pairs: Vec<_> = map.into_iter().collect();
            pairs.sort();
            pairs
        })
    }

    #[test]
    fn names_types_and_flags() {
        let script = script();
        let args =
            parse_with(&["--min-latency", "10ms", "--errors_only", "--top=-5", "--role", "client"], Some(&script));
        let args = args.unwrap();
        let args: Vec<_> = args.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(args, [("errors_only", "true"), ("min_latency", "10ms"), ("role", "client"), ("top", "-5")]);
        assert_eq!(parse_with(&["--x", "1", "--flag"], None).unwrap().len(), 2);
    }

    #[test]
    fn values_are_read_as_manifests_read_them() {
        let script = script();
        for raw in [
            &["--top", "1_000"][..],
            &["--errors-only", "yes"],
            &["--errors-only", "0"],
            &["--min-latency", "-5m"],
            &["--min-latency=1h30m"],
        ] {
            let args = parse_with(raw, Some(&script));
            assert_eq!(args.unwrap().len(), 1, "{raw:?}");
        }
        // Vizier would refuse it.
        assert!(parse_with(&["--min-latency", "2w"], Some(&script)).is_err());
    }

    #[test]
    fn mistakes_say_what_fits() {
        let script = script();
        let hint = |raw: &[&str]| {
            let error = parse_with(raw, Some(&script)).unwrap_err();
            assert_eq!(error.exit().code(), 2);
            format!("{} / {}", error.message, error.hint.unwrap_or_default())
        };
        assert_eq!(
            hint(&["--min-latncy", "1"]),
            "slow_requests has no argument --min-latncy / did you mean min_latency?"
        );
        assert_eq!(hint(&["--role", "sever"]), "`sever` does not fit --role / did you mean server?");
        assert_eq!(hint(&["--top", "many"]), "`many` does not fit --top / --top <int64>");
        assert_eq!(hint(&["--top"]), "--top needs a value / --top <int64>");
        assert_eq!(hint(&["--top", "1", "--top", "2"]), "--top is given twice / ");
        assert!(hint(&["top=1"]).contains("arguments are named"));
    }

    #[test]
    fn help_of_a_script() {
        let mut script = script();
        script.version = "0.1.0".into();
        script.description = "Requests slower than a bound.".into();
        script.tables = vec!["http_events".into()];
        insta::assert_snapshot!(help(&script, Style::plain()), @r"
        slow_requests 0.1.0  
        Requests slower than a bound.

        Usage
          px run slow_requests [OPTIONS] [-- ARGUMENTS]

        Arguments
          --min-latency <duration>
          --errors-only <boolean>
          --role <string>             [one of client, server]
          --top <int64>

        Reads
          http_events

        Examples
          px run slow_requests --since 15m
          px run slow_requests --follow -- --min-latency VALUE
        ");
    }
}
