//! Commands that need no running Pyxis, or bring their own part of one: `px doctor`, `px plugin new`, `build` and `test`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tests::{Need, Pyxis, Result, needs, programs};

fn px(args: &[&str]) -> Command {
    let mut command = Command::new(programs::px());
    command.args(args).env("PYXIS_LIB_DIR", programs::lib()).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn doctor_tells_each_lack_with_what_mends_it() -> Result {
    needs!(Need::Replay);
    let output = px(&["doctor", "-o", "json"]).output()?;
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let checks = document["checks"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    for name in ["installation", "scripts", "Vizier", "privileges", "plugin toolchain"] {
        assert!(names.contains(&name), "{name} is not looked at: {names:?}");
    }
    let failures: Vec<&Value> = checks.iter().filter(|check| check["level"] == "failure").collect();
    assert_eq!(output.status.code(), Some(if failures.is_empty() { 0 } else { 1 }), "{document}");
    for check in &checks {
        assert!(!check["found"].as_str().unwrap_or_default().is_empty(), "{check}");
        // One command that mends it.
        assert!(check["level"] == "ok" || !check["fix"].as_str().unwrap_or_default().is_empty(), "{check}");
    }
    // On a machine on which px up works, nothing fails.
    if tests::needs::met("doctor, live", &[Need::Live]) {
        assert!(failures.is_empty(), "{failures:?}");
    }

    let people = said(&px(&["doctor"]).output()?);
    assert!(names.iter().all(|name| people.contains(name)), "{people}");

    let output = px(&["doctor", "-o", "json"]).env("PYXIS_LIB_DIR", "/no/such/folder").output()?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let lack = document["checks"].as_array().into_iter().flatten().find(|check| check["name"] == "installation");
    let lack = lack.cloned().unwrap_or_default();
    assert!(lack["level"] == "failure" && lack["fix"] == "unset PYXIS_LIB_DIR", "{lack}");
    Ok(())
}

#[test]
fn a_new_plugin_builds_and_gives_rows() -> Result {
    needs!(Need::Replay, Need::Program("cargo"));
    let pyxis = Pyxis::replay(&programs::capture())?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("slow_posts");
    let path = script.to_str().expect("a plain path");
    let ended_well = |args: &[&str]| -> Result<Output> {
        let output = pyxis.px(args)?;
        assert!(output.status.success(), "px {args:?}: {}", said(&output));
        Ok(output)
    };
    ended_well(&["plugin", "new", "slow_posts", "--dir", path])?;
    for file in ["plugin.toml", "src/lib.rs"] {
        assert!(script.join(file).is_file(), "{file} is not made");
    }
    let built = ended_well(&["plugin", "build", path])?;
    let component = String::from_utf8(built.stdout)?.trim().to_owned();
    assert!(fs::read(&component)?.starts_with(b"\0asm"), "{component}");
    // The same source, the same bytes.
    let before = fs::read(&component)?;
    ended_well(&["plugin", "build", path])?;
    assert!(fs::read(&component)? == before, "a second build gives another component");

    let tested = ended_well(&["plugin", "test", path, "--since", "1h", "--allow-partial", "-o", "json"])?;
    let document: Value = serde_json::from_slice(&tested.stdout)?;
    let rows =
        document["tables"].as_object().into_iter().flatten().filter_map(|(_, rows)| rows.as_array()).map(Vec::len);
    assert!(rows.sum::<usize>() > 0, "{document}");
    // And what it cost, to people.
    let tested = ended_well(&["plugin", "test", path, "--since", "1h", "--allow-partial"])?;
    assert!(said(&tested).contains("guest"), "what it cost is not told: {}", said(&tested));
    // What was built runs by itself.
    ended_well(&["run", &component, "--since", "1h", "--allow-partial"])?;
    Ok(())
}

#[test]
fn mistakes_in_a_plugin_are_told_by_what_they_are() -> Result {
    needs!(Need::Replay, Need::Program("cargo"));
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).to_str().expect("a plain path").to_owned();
    let refused = |args: &[&str], code: i32, words: &[&str]| -> Result {
        let output = px(args).output()?;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "px {args:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)) && !said.contains("panicked"), "px {args:?}: {said}");
        Ok(())
    };
    fs::create_dir(at("empty"))?;
    refused(&["plugin", "build", &at("empty")], 2, &["px plugin new"])?;
    refused(&["plugin", "new", "x", "--dir", &at("x"), "--lang", "cobol"], 2, &["cobol"])?;
    assert!(!Path::new(&at("x")).exists());

    let output = px(&["plugin", "new", "broken", "--dir", &at("broken")]).output()?;
    assert!(output.status.success(), "{}", said(&output));
    // What is there is not overwritten.
    let output = px(&["plugin", "new", "broken", "--dir", &at("broken")]).output()?;
    assert!(!output.status.success(), "{}", said(&output));
    let source = Path::new(&at("broken")).join("src/lib.rs");
    let text = fs::read_to_string(&source)?;
    fs::write(&source, format!("{text}\nfn broken() -> Nonsense {{ todo!() }}\n"))?;
    refused(&["plugin", "build", &at("broken")], 1, &["Nonsense", "does not compile"])?;
    fs::write(&source, text)?;
    let manifest = Path::new(&at("broken")).join("plugin.toml");
    fs::write(&manifest, format!("{}\nnonsense = 1\n", fs::read_to_string(&manifest)?))?;
    refused(&["plugin", "build", &at("broken")], 1, &["nonsense"])?;
    Ok(())
}
