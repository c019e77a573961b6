//! From a component of 1 MB to its first result: sent to be run, installed and run by name, and through a registry.
//!
//! `cargo xtask bench push [-- --rounds N]`. Needs the compiler for scripts; the way through a registry needs Debian's
//! `docker-registry` too. Each round uses a component that Vizier has never seen: compiling it is part of the time.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::json;
use tests::needs::met;
use tests::{Need, Pyxis, Registry, Result, programs};

/// Functions of the generated plugin: so many make 1 MB.
const FUNCTIONS: usize = 2_600;

fn main() -> Result<()> {
    let rounds = rounds()?;
    if !met("bench push", &[Need::Replay]) {
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("pyxis-push-").tempdir_in("/tmp")?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let pyxis = Pyxis::replay(&programs::capture())?;
    let registry = Registry::start(folder.path())?;
    let dir = folder.path().join("big");
    pyxis.text(&["plugin", "new", "big", "--dir", text(&dir)?])?;
    let mut times: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut bytes = 0;
    let mut version = 0;
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for way in ["run FILE", "install FILE, run NAME", "push to a registry, install from it, run NAME"] {
            if way.starts_with("push") && registry.is_none() {
                continue;
            }
            version += 1;
            let component = build(&pyxis, &dir, version)?;
            bytes = fs::metadata(&component)?.len();
            let file = text(&component)?;
            let began = Instant::now();
            match (way, &registry) {
                ("run FILE", _) => run(&pyxis, file)?,
                (_, Some(registry)) if way.starts_with("push") => {
                    let place = format!("{}/big", registry.host());
                    pyxis.text(&["plugin", "push", file, &place])?;
                    pyxis.text(&["plugin", "install", &place])?;
                    run(&pyxis, "big")?;
                }
                _ => {
                    pyxis.text(&["plugin", "install", file])?;
                    run(&pyxis, "big")?;
                }
            }
            let took = began.elapsed().as_secs_f64() * 1e3;
            match times.iter_mut().find(|(name, _)| *name == way) {
                Some((_, all)) => all.push(took),
                None => times.push((way, vec![took])),
            }
        }
    }
    println!("component of {bytes} bytes, to its first result, {rounds} rounds, ms");
    println!("{:<48} {:>8} {:>8}", "way", "median", "worst");
    for (way, all) in &mut times {
        all.sort_by(f64::total_cmp);
        println!("{way:<48} {:>8.0} {:>8.0}", all[all.len() / 2], all[all.len() - 1]);
    }
    if let Some(path) = std::env::var_os("PYXIS_BENCH_JSON") {
        let ways: Vec<_> = times.iter().map(|(way, all)| json!({ "way": way, "ms": all })).collect();
        fs::write(path, json!({ "bytes": bytes, "ways": ways }).to_string())?;
    }
    Ok(())
}

fn rounds() -> Result<usize> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().position(|arg| arg == "--rounds") {
        Some(at) => args.get(at + 1).context("--rounds N")?.parse().context("--rounds N"),
        None => Ok(5),
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a plain path")
}

fn run(pyxis: &Pyxis, what: &str) -> Result {
    let out = pyxis.text(&["run", what, "--since", "1h", "--allow-partial", "-o", "csv"])?;
    ensure!(out.lines().count() > 1, "{what} gave no row: {out}");
    Ok(())
}

/// The plugin of the template with much code in it, none of it like the rest, and all of it reachable.
fn build(pyxis: &Pyxis, dir: &Path, version: u32) -> Result<PathBuf> {
    let template = fs::read_to_string(dir.join("src/lib.rs"))?;
    let script = template.split("\n// generated").next().unwrap_or_default();
    let script = script
        .replace("    table(\"http_events\")?", "    generated(args.count(\"limit\")?);\n    table(\"http_events\")?");
    let script = if script.matches("generated(").count() > 1 {
        script.replacen("    generated(args.count(\"limit\")?);\n", "", 1)
    } else {
        script
    };
    let mut code = format!(
        "{script}\n// generated\nfn generated(n: impl TryInto<u64>) {{\n    let n = n.try_into().unwrap_or(0) + {version};\n    let mut x = n;\n"
    );
    for f in 0..FUNCTIONS {
        writeln!(code, "    if n > {} {{ x ^= f{f}(x); }}", f + 1_000)?;
    }
    code.push_str("    std::hint::black_box(x);\n}\n");
    for f in 0..FUNCTIONS {
        writeln!(code, "#[inline(never)]\nfn f{f}(mut x: u64) -> u64 {{")?;
        for step in 0..12 {
            let k = (f as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(step * 5) | 1;
            writeln!(
                code,
                "    x = x.wrapping_mul({k}).rotate_left({}) ^ (x >> {}) ^ {};",
                step + 3,
                step + 7,
                k >> 9
            )?;
            writeln!(
                code,
                "    if x & {} == {step} {{ x = x.wrapping_add({}); }}",
                (1u64 << (step % 5 + 2)) - 1,
                k >> 3
            )?;
        }
        code.push_str("    x\n}\n");
    }
    fs::write(dir.join("src/lib.rs"), code)?;
    let manifest = fs::read_to_string(dir.join("plugin.toml"))?;
    let lines = manifest.lines().map(|line| match line.starts_with("version = ") {
        true => format!("version = \"0.{version}.0\""),
        false => line.to_owned(),
    });
    fs::write(dir.join("plugin.toml"), lines.collect::<Vec<_>>().join("\n") + "\n")?;
    Ok(PathBuf::from(pyxis.text(&["plugin", "build", text(dir)?])?.trim()))
}
