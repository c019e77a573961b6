use host_manifest::{Manifest, section};
use plugins_artifact::SigningKey;
use redb::ReadableTableMetadata;

use super::*;

fn artifact(name: &str, version: &str) -> Artifact {
    let manifest =
        Manifest::from_toml(&format!("name = \"{name}\"\nversion = \"{version}\"\ndescription = \"x\"\n")).unwrap();
    let bare = wat::parse_str("(component)").unwrap();
    Artifact::pack(section::append(&bare, &manifest.to_json())).unwrap()
}

fn versions_of(store: &Store) -> Vec<(String, bool)> {
    store.list().unwrap().into_iter().map(|entry| (entry.record.version, entry.enabled)).collect()
}

fn blobs(store: &Store) -> u64 {
    store.database.begin_read().unwrap().open_table(BLOBS).unwrap().len().unwrap()
}

#[test]
fn what_was_put_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (artifact, key) = (artifact("a", "0.1.0"), SigningKey::generate().unwrap());
    let bundle = Bundle::sign(&artifact, &key).unwrap();
    {
        let store = Store::open(dir.path()).unwrap();
        store.put(&artifact, std::slice::from_ref(&bundle), 7).unwrap();
        assert!(Store::open(dir.path()).is_err(), "one at a time");
    }
    let store = Store::open(dir.path()).unwrap();
    let entry = store.list().unwrap().remove(0);
    assert_eq!((entry.name.as_str(), entry.enabled, entry.record.installed_time_ns), ("a", true, 7));
    assert_eq!(store.artifact(&entry.record).unwrap(), (artifact, vec![bundle]));
}

#[test]
fn old_versions_go_and_their_blobs_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for minor in 0..10 {
        store.put(&artifact("a", &format!("0.{minor}.0")), &[], 0).unwrap();
    }
    store.put(&artifact("ab", "1.0.0"), &[], 0).unwrap();
    let names: Vec<String> =
        store.list().unwrap().into_iter().map(|e| format!("{} {}", e.name, e.record.version)).collect();
    assert_eq!(names, ["a 0.9.0", "a 0.8.0", "a 0.7.0", "a 0.6.0", "ab 1.0.0"]);
    assert_eq!(blobs(&store), 5 * 3);
    // Going back keeps what one came from.
    store.put(&artifact("a", "0.7.0"), &[], 0).unwrap();
    let gone = store.remove("a", Some("0.9.0")).unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(
        versions_of(&store)[..3],
        [("0.8.0".into(), false), ("0.7.0".into(), true), ("0.6.0".into(), false)],
        "another than the enabled one went"
    );
    store.remove("a", Some("0.7.0")).unwrap();
    assert_eq!(versions_of(&store)[0], ("0.8.0".into(), true), "the newest that is left");
    assert!(store.remove("none", None).unwrap().is_empty());
    store.remove("a", None).unwrap();
    store.remove("ab", None).unwrap();
    assert_eq!((store.list().unwrap().len(), blobs(&store)), (0, 0));
}

#[test]
fn a_bound_that_is_passed_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for n in 0..PLUGINS_MAX {
        store.put(&artifact(&format!("p{n}"), "0.1.0"), &[], 0).unwrap();
    }
    let before = blobs(&store);
    assert!(matches!(store.put(&artifact("more", "0.1.0"), &[], 0), Err(Error::Full(_))));
    assert_eq!((store.list().unwrap().len(), blobs(&store)), (PLUGINS_MAX, before));
    store.put(&artifact("p0", "0.2.0"), &[], 0).unwrap();
}
