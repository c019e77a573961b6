//! Fuzzes manifests: real ones with pieces changed, as TOML and as JSON. What is read is the same after it was written and read
//! again, and arguments are taken or refused without a panic.
//!
//! `cargo run -p host-manifest --example fuzz_manifest -- --seconds N [--seed S]`

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::Path;

use host_manifest::{Manifest, View};

#[path = "../../tests/hostile/mutate.rs"]
#[allow(dead_code, reason = "the other targets use more of it")]
mod mutate;
#[path = "../../examples/fuzz/options.rs"]
mod options;

use mutate::Random;

/// Pieces that the reader knows, in places where they do not belong.
const TOKENS: &[&str] = &[
    "[[args]]\n",
    "[[views]]\n",
    "[[outputs]]\n",
    "[budget]\n",
    "name = ",
    "type = \"int64\"\n",
    "default = ",
    "\"5m\"",
    "1e999",
    "-9223372036854775809",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"\\u0000\"",
    "choices = [1]\n",
    "required = true\n",
    "\n",
    "'''",
    "{\"a\":",
    "null",
    "}",
    "]",
    ",",
    "\"views\":[{}]",
    "follow = \"tail\"\n",
    "world = \"x\"\n",
    "kind = \"script\"\n",
    "\u{202e}",
    "é",
];

fn corpus() -> Vec<String> {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let mut texts =
        vec![String::new(), "{}".to_owned(), "name = \"x\"\nversion = \"1.0.0\"\ndescription = \"d\"\n".to_owned()];
    for entry in std::fs::read_dir(plugins).into_iter().flatten().flatten() {
        if let Ok(text) = std::fs::read_to_string(entry.path().join("plugin.toml")) {
            texts.extend(Manifest::from_toml(&text).map(|manifest| manifest.to_json()));
            texts.push(text);
        }
    }
    texts
}

fn changed(text: &str, random: &mut Random) -> String {
    let mut text = text.to_owned();
    for _ in 0..1 + random.below(4) {
        let mut at = random.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let mut end = (at + random.below(20)).min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let end = end.max(at);
        match random.below(3) {
            0 => text.insert_str(at, TOKENS[random.below(TOKENS.len())]),
            1 => text.replace_range(at..end, TOKENS[random.below(TOKENS.len())]),
            _ => text.replace_range(at..end, ""),
        }
    }
    text
}

/// What is wrong, if anything.
fn check(text: &str) -> Option<String> {
    let _ = View::from_json(text);
    for manifest in [Manifest::from_toml(text), Manifest::from_json(text.as_bytes())] {
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(e) if e.message.is_empty() => return Some("refused without a reason".into()),
            Err(_) => continue,
        };
        match Manifest::from_json(manifest.to_json().as_bytes()) {
            Ok(again) if again == manifest => {}
            Ok(_) => return Some("another one after it was written and read again".into()),
            Err(e) => return Some(format!("not read again: {e}")),
        }
        let given: BTreeMap<String, String> = manifest.args.iter().map(|arg| (arg.name.clone(), "1".into())).collect();
        for given in [BTreeMap::new(), given] {
            if let Ok(values) = manifest.arguments(&given)
                && values.len() != manifest.args.len()
            {
                return Some("arguments are missing".into());
            }
        }
    }
    None
}

fn main() {
    let options = options::Options::parse("manifest");
    let corpus = corpus();
    let (mut tried, mut good) = (0u64, 0u64);
    for seed in options.seeds() {
        let mut random = Random::new(seed);
        let text = changed(&corpus[random.below(corpus.len())], &mut random);
        tried += 1;
        good += u64::from(Manifest::from_toml(&text).is_ok() || Manifest::from_json(text.as_bytes()).is_ok());
        match catch_unwind(|| check(&text)) {
            Ok(None) => {}
            Ok(Some(why)) => options::broken("manifest", seed, text.as_bytes(), &why),
            Err(_) => options::broken("manifest", seed, text.as_bytes(), "it panicked"),
        }
    }
    println!("{tried} texts, {good} good; seed {}", options.seed);
    assert!(tried > good && good > 0);
}
