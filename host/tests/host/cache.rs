//! Compiled code on disk is used only if nobody else could have touched it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::{Config, Runtime, Script};

use crate::support::{Engine, Output, guest};

fn load(dir: &Path) -> Arc<Script> {
    // A runtime of its own each time, as after a restart.
    let config = Config { cache_dir: Some(dir.to_owned()), runs_max: 2, threads: 1, ..Config::default() };
    Runtime::new(config).unwrap().load(&guest("probe")).unwrap()
}

fn code(dir: &Path) -> PathBuf {
    let mut found =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|x| x == "cwasm"));
    found.next().expect("a compiled file")
}

fn filled() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("aot");
    assert!(!load(&cache).cached());
    (dir, cache)
}

#[tokio::test]
async fn code_is_found_again_and_runs() {
    let (_dir, cache) = filled();
    let script = load(&cache);
    assert!(script.cached());
    let mut request = host::RunRequest::new(Engine::new(), Arc::new(Output::default()));
    request.args = [("what".into(), "plan".into())].into();
    script.run(request).await.result.unwrap();
}

#[test]
fn folder_and_files_are_this_users_alone() {
    let (_dir, cache) = filled();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cache), 0o700);
    assert_eq!(mode(&code(&cache)), 0o600);
    assert_eq!(mode(&cache.join("key")), 0o600);
}

#[test]
fn changed_code_is_refused_and_replaced() {
    for change in [0usize, 8, 40, 5_000] {
        let (_dir, cache) = filled();
        let path = code(&cache);
        let mut bytes = fs::read(&path).unwrap();
        bytes[change] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(!load(&cache).cached(), "byte {change}");
        assert!(load(&cache).cached(), "byte {change}: not replaced");
    }
}

#[test]
fn a_file_cut_short_is_refused() {
    for len in [0usize, 20, 1_000] {
        let (_dir, cache) = filled();
        let path = code(&cache);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..len]).unwrap();
        assert!(!load(&cache).cached(), "{len}");
    }
}

#[test]
fn code_of_another_key_is_refused() {
    let (_a, cache) = filled();
    let (_b, other) = filled();
    fs::copy(code(&other), code(&cache)).unwrap();
    fs::set_permissions(code(&cache), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!load(&cache).cached());
}

#[test]
fn code_that_others_may_write_is_refused() {
    let (_dir, cache) = filled();
    fs::set_permissions(code(&cache), fs::Permissions::from_mode(0o620)).unwrap();
    assert!(!load(&cache).cached());
}

#[test]
fn a_link_is_refused() {
    let (dir, cache) = filled();
    let path = code(&cache);
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(!load(&cache).cached());
}

#[test]
fn a_folder_that_others_may_enter_is_not_used() {
    let (_dir, cache) = filled();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!load(&cache).cached());
}
