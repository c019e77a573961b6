//! A recording gives the same tables each time, and the one that ships shows the shop.

use anyhow::ensure;
use tests::server::Shop;
use tests::{Fleet, Need, Pyxis, Result, needs, programs};

/// Tables that a recording fills; the others are about the agent that replays it.
const RECORDED: &[&str] =
    &["http_events", "conn_stats", "process_stats", "network_stats", "proc_exit_events", "processes"];

/// Every row of every recorded table, as text.
fn everything(fleet: &Fleet) -> Result<String> {
    let mut text = String::new();
    for table in RECORDED {
        let rows = fleet.rows(&format!("SELECT * FROM {table}"))?;
        text += &format!("{table}: {} rows\n", rows.len());
        for row in rows {
            text += &format!("{row}\n");
        }
    }
    Ok(text)
}

fn services(text: &str) -> Vec<&'static str> {
    ["shop-frontend", "shop-catalog", "shop-checkout"].into_iter().filter(|service| text.contains(service)).collect()
}

#[test]
fn the_same_recording_gives_the_same_rows() -> Result {
    needs!(Need::Fleet);
    let capture = programs::capture();
    ensure!(capture.is_file(), "{} is missing: cargo xtask capture makes it", capture.display());
    let first = everything(&Fleet::start(&capture, 1)?)?;
    let second = everything(&Fleet::start(&capture, 1)?)?;
    assert!(first.lines().count() > 100, "the capture is nearly empty:\n{first}");
    let differing = first.lines().zip(second.lines()).find(|(a, b)| a != b);
    assert!(first == second, "first difference: {differing:#?}");
    Ok(())
}

#[test]
fn the_capture_that_ships_is_small_and_shows_the_shop() -> Result {
    needs!(Need::Replay);
    let capture = programs::capture();
    let bytes = capture.metadata()?.len();
    assert!(bytes < 1 << 20, "{} has {bytes} bytes", capture.display());
    let pyxis = Pyxis::replay(&capture)?;
    let text = pyxis.text(&["run", "service_stats", "--since", "10m", "--allow-partial", "-o", "json"])?;
    assert_eq!(services(&text).len(), 3, "{text}");
    Ok(())
}

#[test]
fn a_user_without_any_privilege_can_replay() -> Result {
    // Root only to become nobody.
    needs!(Need::Live, Need::Program("setpriv"));
    let folder = tempfile::Builder::new().prefix("pyxis-nobody-").tempdir_in("/tmp")?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let file = folder.path().join("demo.pxr");
    std::fs::copy(programs::capture(), &file)?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let pyxis = Pyxis::replay_as_nobody(&file)?;
    let text = pyxis.text(&["run", "service_stats", "--since", "10m", "--allow-partial", "-o", "json"])?;
    assert_eq!(services(&text).len(), 3, "{text}");
    Ok(())
}

#[test]
fn a_new_recording_is_replayed_without_a_helper() -> Result {
    needs!(Need::Live);
    let folder = tempfile::Builder::new().prefix("pyxis-record-").tempdir_in("/tmp")?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let file = folder.path().join("shop.pxr");
    let recorded = {
        let _shop = Shop::open(60)?;
        let mut record = std::process::Command::new(programs::px());
        record.arg("record").arg(&file).args(["--for", "4s"]).env("PYXIS_LIB_DIR", programs::lib());
        record.env("PX_RUNTIME_DIR", folder.path().join("run")).output()?
    };
    ensure!(recorded.status.success(), "px record: {}", String::from_utf8_lossy(&recorded.stderr));
    let pyxis = Pyxis::replay(&file)?;
    assert!(pyxis.role("helper").is_none(), "a replay needs no helper");
    let rows = pyxis.number("SELECT count(*) FROM http_events")?;
    assert!(rows > 100, "{rows} rows from four seconds of the shop");
    let text = pyxis.text(&["run", "service_stats", "--since", "10m", "--allow-partial", "-o", "json"])?;
    assert_eq!(services(&text).len(), 3, "{text}");
    Ok(())
}
