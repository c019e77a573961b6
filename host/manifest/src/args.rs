//! Arguments: declared in the manifest, given as text, handed to the script typed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::did_you_mean;
use crate::manifest::{Error, Manifest};

/// An argument.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arg {
    /// Name, as in `-- --name value`.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub arg_type: ArgType,
    /// Value when none is given; written as the type is (durations as text: `"5m"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
    /// It must be given. Not together with `default`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// The only values allowed; empty = any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// Type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArgType {
    /// Text.
    String,
    /// Whole number.
    Int64,
    /// Number.
    Float64,
    /// `true` or `false`.
    Boolean,
    /// Length of time: `250ms`, `5m`, `1h30m`.
    Duration,
}

impl ArgType {
    /// The word used in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Boolean => "boolean",
            Self::Duration => "duration",
        }
    }
}

/// Value of an argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Not given, and no default.
    Null,
    /// Text.
    String(String),
    /// Whole number.
    Int64(i64),
    /// Number.
    Float64(f64),
    /// Truth.
    Boolean(bool),
    /// ns.
    DurationNs(i64),
}

impl Arg {
    /// Reads a value given as text.
    pub fn parse(&self, text: &str) -> Result<Value, Error> {
        if !self.choices.is_empty() && !self.choices.iter().any(|c| c == text) {
            return Err(Error::new(format!("argument `{}` is `{text}`, which is none of its choices", self.name))
                .hint(format!("choose one of {}", self.choices.join(", "))));
        }
        let wrong = |example: &str| {
            Error::new(format!("argument `{}` is `{text}`, which is no {}", self.name, self.arg_type.as_str()))
                .hint(format!("give {example}"))
        };
        Ok(match self.arg_type {
            ArgType::String => Value::String(text.into()),
            ArgType::Int64 => {
                let plain: String = text.chars().filter(|c| *c != '_').collect();
                Value::Int64(plain.parse().map_err(|_| wrong("a whole number, like 100"))?)
            }
            ArgType::Float64 => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Float64(number),
                _ => return Err(wrong("a number, like 0.5")),
            },
            ArgType::Boolean => match text {
                "true" | "yes" | "1" => Value::Boolean(true),
                "false" | "no" | "0" => Value::Boolean(false),
                _ => return Err(wrong("true or false")),
            },
            ArgType::Duration => Value::DurationNs(
                parse_duration(text).ok_or_else(|| wrong("a number and a unit, like 250ms, 5m or 1h30m"))?,
            ),
        })
    }

    /// The default's value, [`Value::Null`] when there is none.
    pub fn default_value(&self) -> Result<Value, Error> {
        let Some(default) = &self.default else { return Ok(Value::Null) };
        let text = match default {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        self.parse(&text).map_err(|e| Error { message: format!("default of {}", e.message), ..e })
    }
}

impl Manifest {
    /// Values for all declared arguments, in their order, from those given as text. All mistakes are told at once.
    pub fn arguments(&self, given: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>, Error> {
        let mut mistakes = Vec::new();
        let names: Vec<&str> = self.args.iter().map(|a| a.name.as_str()).collect();
        for name in given.keys().filter(|n| !names.contains(&n.as_str())) {
            let hint = match (did_you_mean(name, &names), names.is_empty()) {
                (_, true) => "it takes none".to_owned(),
                (Some(hint), _) => hint,
                (None, _) => format!("it takes {}", names.join(", ")),
            };
            mistakes.push(Error::new(format!("script `{}` has no argument `{name}`", self.name)).hint(hint));
        }
        let mut values = Vec::with_capacity(self.args.len());
        for arg in &self.args {
            let value =
                match given.get(&arg.name) {
                    Some(text) => arg.parse(text),
                    None if arg.required => Err(Error::new(format!("argument `{}` is required", arg.name))
                        .hint(format!("add -- --{} <{}>", arg.name, arg.arg_type.as_str()))),
                    None => arg.default_value(),
                };
            match value {
                Ok(value) => values.push((arg.name.clone(), value)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        match mistakes.len() {
            0 => Ok(values),
            1 => Err(mistakes.remove(0)),
            _ => Err(Error {
                message: mistakes.iter().map(|m| m.message.as_str()).collect::<Vec<_>>().join("; "),
                hint: Some(mistakes.iter().filter_map(|m| m.hint.as_deref()).collect::<Vec<_>>().join("; "))
                    .filter(|h| !h.is_empty()),
                ..Error::new("")
            }),
        }
    }
}

/// `250ms`, `5m`, `1h30m`, `1.5s`, `-5m` in ns; units ns, us, ms, s, m, h, d. None: not such a text, or beyond 292 years.
pub fn parse_duration(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..letters] {
                "ns" => 1e0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" | "min" => 60e9,
                "h" => 3600e9,
                "d" => 86400e9,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    // 2^63 ns; a float of that size converts with saturation, which would be a wrong value rather than a refusal.
    (total < 9.2e18).then_some(if negative { -(total as i64) } else { total as i64 })
}
