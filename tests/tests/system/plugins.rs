//! Plugins as an author and an operator handle them: made, tried, installed, published, and never half there.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tests::{Need, Pyxis, Registry, Result, needs, programs};

/// How often Vizier is killed while a plugin is installed. Each time it is back later, and after ten deaths in a row it is given
/// up.
const KILLS: u32 = 6;

/// A folder with a plugin from the template. None, said aloud, where it cannot be built here.
fn plugin(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let dir = folder.join(name);
    px(folder, &["plugin", "new", name, "--dir", dir.to_str().context("a plain path")?])?;
    let built = px_output(folder, &["plugin", "build", dir.to_str().context("a plain path")?])?;
    let stderr = String::from_utf8_lossy(&built.stderr);
    if stderr.contains("no Rust toolchain") {
        eprintln!("SKIPPED: plugins of the template: no toolchain for WebAssembly (cargo xtask setup)");
        return Ok(None);
    }
    ensure!(built.status.success(), "{stderr}");
    Ok(Some(dir))
}

fn px_output(folder: &Path, args: &[&str]) -> Result<std::process::Output> {
    let mut command = Command::new(programs::px());
    command.env("PYXIS_LIB_DIR", programs::lib()).env("NO_COLOR", "1").env_remove("PX_VIZIER");
    command.env("PX_RUNTIME_DIR", folder.join("none")).env("XDG_RUNTIME_DIR", folder.join("none"));
    command.current_dir(folder).args(args).stdin(Stdio::null()).output().context("px does not start")
}

fn px(folder: &Path, args: &[&str]) -> Result<String> {
    let output = px_output(folder, args)?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "px {args:?}: {}\n{err}\n{out}", output.status);
    Ok(out.into_owned())
}

fn edit(file: &Path, from: &str, to: &str) -> Result {
    let text = fs::read_to_string(file)?;
    ensure!(text.contains(from), "{} has no `{from}`", file.display());
    Ok(fs::write(file, text.replace(from, to))?)
}

fn folder() -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("pyxis-plugins-").tempdir_in("/tmp")?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(folder)
}

#[test]
fn a_new_plugin_is_tried_on_a_recording_without_anything_running() -> Result {
    needs!(Need::Replay);
    let folder = folder()?;
    let Some(dir) = plugin(folder.path(), "hello")? else { return Ok(()) };
    let capture = programs::capture();
    let args = [
        "plugin",
        "test",
        dir.to_str().unwrap(),
        "--replay",
        capture.to_str().unwrap(),
        "-o",
        "csv",
        "--allow-partial",
    ];
    let (first, second) = (px(folder.path(), &args)?, px(folder.path(), &args)?);
    assert!(first.starts_with("path,requests,latency_avg\n") && first.lines().count() > 2, "{first}");
    assert_eq!(first, second, "a recording gives the same result each time");
    let mut with = args.to_vec();
    with.extend(["--", "--limit", "1"]);
    assert_eq!(px(folder.path(), &with)?.lines().count(), 2);
    // What it started is gone.
    let left = fs::read_dir("/tmp")?.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("px-stage-"));
    let own = left.filter(|entry| fs::metadata(entry.path().join("run/lock")).is_ok());
    assert_eq!(own.count(), 0);
    Ok(())
}

#[test]
fn dev_shows_what_a_save_changed() -> Result {
    needs!(Need::Replay);
    let folder = folder()?;
    let Some(dir) = plugin(folder.path(), "hello")? else { return Ok(()) };
    let mut command = Command::new(programs::px());
    command.env("PYXIS_LIB_DIR", programs::lib()).env("NO_COLOR", "1").env_remove("PX_VIZIER");
    command.args(["plugin", "dev"]).arg(&dir).arg("--replay").arg(programs::capture());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (send, lines) = std::sync::mpsc::channel();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    for stream in [Box::new(out) as Box<dyn std::io::Read + Send>, Box::new(err)] {
        let send = send.clone();
        thread::spawn(move || {
            BufReader::new(stream).lines().map_while(std::io::Result::ok).all(|l| send.send(l).is_ok())
        });
    }
    let mut seen = Vec::new();
    let mut until = |what: &str| -> Result {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(120) {
            let Ok(line) = lines.recv_timeout(Duration::from_secs(120)) else { break };
            seen.push(line);
            if seen.last().is_some_and(|line| line.contains(what)) {
                return Ok(());
            }
        }
        anyhow::bail!("no `{what}` in:\n{}", seen.join("\n"))
    };
    let ended = (|| {
        until("watching")?;
        edit(&dir.join("src/lib.rs"), ".limit(args.count(\"limit\")?)?", ".limit(1)?")?;
        until(" lines less, ")?;
        until("watching")?;
        edit(&dir.join("src/lib.rs"), "//! Requests", "//! All requests")?;
        until("the same result")?;
        until("watching")?;
        edit(&dir.join("src/lib.rs"), ".limit(1)?", ".limit(1?")?;
        until("does not compile")?;
        until("watching")?;
        edit(&dir.join("plugin.toml"), "tables = ", "tabels = ")?;
        edit(&dir.join("src/lib.rs"), ".limit(1?", ".limit(1)?")?;
        until("plugin.toml:7:1")
    })();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id())?), nix::sys::signal::Signal::SIGINT)?;
    let status = child.wait()?;
    ended?;
    assert_eq!(status.code(), Some(130));
    Ok(())
}

#[test]
fn an_installed_plugin_survives_vizier_and_the_whole_system() -> Result {
    needs!(Need::Replay);
    let folder = folder()?;
    let Some(dir) = plugin(folder.path(), "hello")? else { return Ok(()) };
    let (one, two) = versions(folder.path(), &dir)?;
    let pyxis = Pyxis::replay(&programs::capture())?;
    assert!(!pyxis.px(&["run", "hello"])?.status.success());
    pyxis.text(&["plugin", "install", one.to_str().unwrap()])?;
    let run = |pyxis: &Pyxis| pyxis.text(&["run", "hello", "--since", "1h", "--allow-partial", "-o", "csv"]);
    assert!(run(&pyxis)?.lines().count() > 2);
    assert!(pyxis.text(&["scripts"])?.contains("hello"));

    // Killed again and again while another version is installed: one of the two is there, whole.
    let mut versions = Vec::new();
    for n in 0..KILLS {
        let to = if n % 2 == 0 { &two } else { &one };
        let mut install = pyxis.command(&["plugin", "install", to.to_str().unwrap(), "--replace"]);
        let mut install = install.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        thread::sleep(Duration::from_millis(u64::from(n) * 8));
        pyxis.role("vizier").context("Vizier runs")?.kill();
        install.wait()?;
        let list = eventually(|| pyxis.text(&["plugin", "list", "-o", "json"]))?;
        let list: Value = serde_json::from_str(&list)?;
        let enabled: Vec<&Value> =
            list["plugins"].as_array().context("a list")?.iter().filter(|plugin| plugin["enabled"] == true).collect();
        assert_eq!(enabled.len(), 1, "{list}");
        assert_eq!(enabled[0]["problem"], "", "{list}");
        versions.push(enabled[0]["version"].as_str().unwrap_or_default().to_owned());
        pyxis.wait_for_agents(1)?;
        assert!(eventually(|| run(&pyxis))?.lines().count() > 1);
    }
    eprintln!("enabled after each kill: {versions:?}");
    assert!(versions.iter().all(|version| version == "0.1.0" || version == "0.2.0"), "{versions:?}");
    Ok(())
}

#[test]
fn unsigned_plugins_are_refused_where_a_key_is_trusted() -> Result {
    needs!(Need::Replay);
    let folder = folder()?;
    let Some(dir) = plugin(folder.path(), "hello")? else { return Ok(()) };
    let packed = px(folder.path(), &["plugin", "pack", dir.to_str().unwrap()])?.trim().to_owned();
    px(folder.path(), &["plugin", "keygen", "mine"])?;
    let key = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let capture = programs::capture();
    let pyxis = Pyxis::start(&["--replay", capture.to_str().unwrap(), "--trusted-key", &key("mine.pub")])?;
    let refused = pyxis.px(&["plugin", "install", &packed])?;
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("takes signed plugins only: it is not signed"), "{stderr}");
    assert!(stderr.contains("px plugin sign"), "{stderr}");
    px(folder.path(), &["plugin", "sign", &packed, "--key", &key("mine.key")])?;
    pyxis.text(&["plugin", "install", &packed])?;
    assert!(pyxis.text(&["run", "hello", "--since", "1h", "--allow-partial", "-o", "csv"])?.lines().count() > 1);
    Ok(())
}

#[test]
fn a_plugin_goes_from_its_author_through_a_registry_to_vizier() -> Result {
    needs!(Need::Replay);
    let folder = folder()?;
    let Some(registry) = Registry::start(folder.path())? else { return Ok(()) };
    let Some(dir) = plugin(folder.path(), "hello")? else { return Ok(()) };
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let own = |args: &[&str]| px(folder.path(), args).map(|out| out.trim().to_owned());
    // The author.
    let packed = own(&["plugin", "pack", dir.to_str().unwrap()])?;
    own(&["plugin", "keygen", "mine"])?;
    own(&["plugin", "sign", &packed, "--key", &at("mine.key")])?;
    let place = format!("{}/team/hello", registry.host());
    let pushed = own(&["plugin", "push", &packed, &place])?;
    assert_eq!(pushed, format!("{place}:0.1.0"));

    // Somebody else, who knows the author's key and nothing more.
    let capture = programs::capture();
    let pyxis = Pyxis::start(&["--replay", capture.to_str().unwrap(), "--trusted-key", &at("mine.pub")])?;
    let pulled = own(&["plugin", "pull", &place, "--out", &at("pulled.oci")])?;
    own(&["plugin", "verify", &pulled, "--key", &at("mine.pub")])?;
    pyxis.text(&["plugin", "install", &pushed])?;
    let rows = pyxis.text(&["run", "hello", "--since", "1h", "--allow-partial", "-o", "csv"])?;
    assert!(rows.starts_with("path,requests,latency_avg\n") && rows.lines().count() > 2, "{rows}");
    pyxis.text(&["plugin", "remove", "hello"])?;
    assert!(!pyxis.px(&["run", "hello"])?.status.success());

    // What was changed on its way is not taken, whoever signed what it was.
    let component = fs::read(dir.join("target/plugins/hello.wasm"))?;
    let mut bent = 0;
    for blob in fs::read_dir(at("pulled.oci/blobs/sha256"))?.flatten() {
        let mut bytes = fs::read(blob.path())?;
        if bytes == component {
            let last = bytes.len() / 2;
            bytes[last] ^= 1;
            fs::write(blob.path(), bytes)?;
            bent += 1;
        }
    }
    assert_eq!(bent, 1);
    let refused = pyxis.px(&["plugin", "install", &pulled])?;
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && stderr.contains("tampered"), "{stderr}");
    assert!(!pyxis.text(&["plugin", "list"])?.contains("hello"));
    Ok(())
}

/// The plugin built as 0.1.0 and as 0.2.0.
fn versions(folder: &Path, dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let build = |out: &str| -> Result<PathBuf> {
        let path = px(folder, &["plugin", "build", dir.to_str().context("a plain path")?, "--out", out])?;
        Ok(folder.join(path.trim()))
    };
    let one = build("one")?;
    edit(&dir.join("plugin.toml"), "version = \"0.1.0\"", "version = \"0.2.0\"")?;
    Ok((one, build("two")?))
}

/// Until it succeeds: a killed Vizier is started again after a moment.
fn eventually<T>(what: impl Fn() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match what() {
            Err(_) if began.elapsed() < Duration::from_secs(30) => thread::sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
}
