//! Bad input gets a message that says what to do, and an exit code that says whose mistake it was.

use std::fs;
use std::process::{Command, Output};

use tests::{Need, Pyxis, Result, needs, programs};

/// `px` ended with `code` and one of `words` in each group is in its message; and it did not crash.
fn says(output: &Output, code: i32, groups: &[&[&str]]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"), "{stderr}");
    for words in groups {
        assert!(words.iter().any(|word| stderr.contains(word)), "one of {words:?} is missing in: {stderr}");
    }
}

#[test]
fn wrong_names_get_the_nearest_right_one() -> Result {
    needs!(Need::Replay);
    let pyxis = Pyxis::replay(&programs::capture())?;
    let sql = |query: &str| pyxis.px(&["sql", query]);
    says(&sql("SELECT * FROM http_event")?, 1, &[&["http_events"]]);
    says(&sql("SELECT req_pth FROM http_events")?, 1, &[&["req_path"]]);
    says(&sql("SELECT (req_path FROM http_events")?, 1, &[&["expected", "Expected", "syntax"]]);
    says(&sql("DROP TABLE http_events")?, 1, &[&["SELECT", "read", "only", "not supported", "query"]]);
    says(&pyxis.px(&["run", "service_stat"])?, 1, &[&["service_stats"]]);
    says(&pyxis.px(&["tables", "http_event"])?, 1, &[&["http_events"]]);
    says(&pyxis.px(&["sql", "  "])?, 2, &[&["empty"]]);
    says(&pyxis.px(&["agent"])?, 2, &[&["agents"]]);
    Ok(())
}

#[test]
fn files_that_are_no_scripts_are_refused_by_what_they_are() -> Result {
    needs!(Need::Replay);
    let pyxis = Pyxis::replay(&programs::capture())?;
    let folder = tempfile::tempdir()?;
    let run = |name: &str, bytes: &[u8]| -> Result<Output> {
        let path = folder.path().join(name);
        fs::write(&path, bytes)?;
        pyxis.px(&["run", path.to_str().expect("a plain path")])
    };
    says(&run("text.wasm", b"hello")?, 1, &[&["not WebAssembly"], &["px plugin build"]]);
    // The smallest core module, and the smallest component.
    says(&run("module.wasm", b"\0asm\x01\0\0\0")?, 1, &[&["component"], &["px plugin build"]]);
    says(&run("empty.wasm", b"\0asm\x0d\0\x01\0")?, 1, &[&["world", "run", "export"]]);
    says(&run("cut.wasm", b"\0asm\x0d\0\x01\0\xff\xff\xff")?, 1, &[&["component", "valid", "unexpected"]]);
    says(&pyxis.px(&["run", "/no/such/file.wasm"])?, 1, &[&["/no/such/file.wasm"]]);
    Ok(())
}

#[test]
fn without_a_vizier_px_says_how_to_start_one() -> Result {
    needs!(Need::Replay);
    let folder = tempfile::tempdir()?;
    let px = |args: &[&str]| {
        let mut command = Command::new(programs::px());
        command.args(args).env("PX_RUNTIME_DIR", folder.path()).env("XDG_RUNTIME_DIR", folder.path());
        command.output()
    };
    if std::path::Path::new("/run/pyxis/vizier/vizier.sock").exists() {
        eprintln!("SKIPPED: without_a_vizier_px_says_how_to_start_one: a Pyxis runs on this machine");
        return Ok(());
    }
    for args in [&["run", "service_stats"][..], &["sql", "select 1"], &["agents"], &["tables"], &["scripts"]] {
        says(&px(args)?, 1, &[&["px up"]]);
    }
    says(&px(&["agents", "--vizier", "http://127.0.0.1:1"])?, 1, &[&["127.0.0.1:1"]]);
    says(&px(&["up", "--replay", "/no/such.pxr"])?, 1, &[&["/no/such.pxr"]]);
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_named() -> Result {
    needs!(Need::Replay);
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let port = taken.local_addr()?.port().to_string();
    let folder = tempfile::tempdir_in("/tmp")?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut command = Command::new(programs::px());
    command.args(["up", "--listen", &address, "--replay"]).arg(programs::capture());
    command.env("PX_RUNTIME_DIR", folder.path().join("run")).env("PX_DATA_DIR", folder.path().join("data"));
    says(&command.env("PYXIS_LIB_DIR", programs::lib()).output()?, 1, &[&[port.as_str()], &["in use", "taken"]]);
    Ok(())
}

#[test]
fn a_recording_that_is_none_or_damaged_is_refused() -> Result {
    needs!(Need::Replay);
    let folder = tempfile::tempdir_in("/tmp")?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut damaged = fs::read(programs::capture())?;
    // The end of a whole file is its count of inputs.
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    for (name, bytes, says_what) in [
        ("not.pxr", b"this is not a recording".to_vec(), "recording"),
        ("damaged.pxr", damaged, "its count of inputs is not what it holds"),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, bytes)?;
        // If it were taken for one, px up would stay up.
        let mut command = Command::new("timeout");
        command.arg("30").arg(programs::px());
        command.args(["up", "--replay"]).arg(&file).env("PYXIS_LIB_DIR", programs::lib());
        command.env("PX_RUNTIME_DIR", folder.path().join("run")).env("PX_DATA_DIR", folder.path().join("data"));
        says(&command.output()?, 1, &[&[name], &[says_what]]);
    }
    Ok(())
}

#[test]
fn every_output_format_is_well_formed() -> Result {
    needs!(Need::Replay);
    let pyxis = Pyxis::replay(&programs::capture())?;
    let query = "SELECT req_method, req_path, resp_status FROM http_events ORDER BY time_ LIMIT 7";
    let out = |format: &str| -> Result<Vec<u8>> {
        let output = pyxis.px(&["sql", query, "--since", "1h", "--allow-partial", "-o", format])?;
        anyhow::ensure!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    };
    assert_eq!(String::from_utf8(out("csv")?)?.lines().count(), 8);
    for line in String::from_utf8(out("ndjson")?)?.lines() {
        serde_json::from_str::<serde_json::Value>(line)?;
    }
    let document: serde_json::Value = serde_json::from_slice(&out("json")?)?;
    assert_eq!(document["tables"].as_object().map(serde_json::Map::len), Some(1));
    let parquet = out("parquet")?;
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    assert!(!out("arrow")?.is_empty());
    assert!(String::from_utf8(out("table")?)?.contains("req_path"));
    Ok(())
}
