//! From a template to a component, with every toolchain this machine has.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use plugins_build::{Error, Toolchain, build_guest, template};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn say(line: &str) {
    eprintln!("{line}");
}

fn toolchain() -> &'static Toolchain {
    static FOUND: OnceLock<Toolchain> = OnceLock::new();
    FOUND.get_or_init(|| Toolchain::find(&root().join("target/guests"), &say).expect("a toolchain for guests"))
}

fn new_plugin(dir: &Path, name: &str) {
    template::create(dir, name, &root().join("plugins/sdk-rust")).unwrap();
}

#[test]
fn a_new_plugin_builds_and_carries_its_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("mine");
    new_plugin(&plugin, "mine");
    let built = build_guest(&plugin, &dir.path().join("out"), toolchain(), &say).unwrap();
    assert_eq!(built.manifest.name, "mine");
    assert!(built.path.ends_with("out/mine.wasm"));
    let bytes = std::fs::read(&built.path).unwrap();
    assert_eq!(bytes.len(), built.bytes);
    let json = built.manifest.to_json();
    assert!(bytes.ends_with(json.as_bytes()), "the manifest is the last section");
    // Small: a script is read by people's machines on every first run.
    assert!(built.bytes < 200 << 10, "{}", built.bytes);
}

#[test]
fn each_kind_has_a_template_that_builds() {
    use host_manifest::Kind;
    for kind in [Kind::Script, Kind::Function, Kind::Protocol] {
        let dir = tempfile::tempdir().unwrap();
        let plugin = dir.path().join("my-own");
        template::create_kind(&plugin, "my-own", &root().join("plugins/sdk-rust"), kind).unwrap();
        let built = build_guest(&plugin, &dir.path().join("out"), toolchain(), &say).unwrap();
        assert_eq!((built.manifest.name.as_str(), built.manifest.kind), ("my-own", kind));
    }
}

#[test]
fn the_same_source_gives_the_same_bytes_wherever_it_lies() {
    let digests: Vec<String> = ["a", "somewhere/quite/else"]
        .iter()
        .map(|place| {
            let dir = tempfile::tempdir().unwrap();
            let plugin = dir.path().join(place);
            new_plugin(&plugin, "same");
            build_guest(&plugin, dir.path(), toolchain(), &say).unwrap().digest
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let build = |dir: &Path| build_guest(dir, &dir.join("out"), toolchain(), &say).unwrap_err().to_string();
    assert!(build(dir.path()).contains("plugin.toml cannot be read"), "{}", build(dir.path()));

    let plugin = dir.path().join("mine");
    new_plugin(&plugin, "mine");
    let again = template::create(&plugin, "mine", Path::new("sdk")).unwrap_err().to_string();
    assert!(again.contains("not empty"), "{again}");
    let name = template::create(&dir.path().join("x"), "Mine!", Path::new("sdk")).unwrap_err().to_string();
    assert!(name.contains("lower case"), "{name}");

    let file = plugin.join("plugin.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("[[outputs]]", "[[output]]")).unwrap();
    let key = build(&plugin);
    assert!(key.contains("unknown key `output`") && key.contains("`outputs`"), "{key}");
    std::fs::write(&file, good).unwrap();

    let source = plugin.join("src/lib.rs");
    let script = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, script.replace(".limit(", ".limt(")).unwrap();
    let compile = build(&plugin);
    assert!(compile.contains("limt") && compile.contains("src/lib.rs"), "{compile}");
    std::fs::write(&source, script.replace("pyxis_sdk::script!(run);", "#[expect(dead_code)]")).unwrap();
    let world = build(&plugin);
    assert!(world.contains("script!"), "{world}");
}

#[test]
fn a_module_that_asks_for_more_does_not_fit_the_world() {
    let manifest = host_manifest::Manifest::from_toml("name = \"t\"\nversion = \"1\"\ndescription = \"d\"").unwrap();
    let wat = r#"(module (import "env" "open" (func)) (func (export "run")))"#;
    let error = plugins_build::componentize(&wat::parse_str(wat).unwrap(), &manifest).unwrap_err();
    assert!(matches!(error, Error::World(_)), "{error}");
}

/// Debian's toolchain builds its own standard library first; that takes 20 s once, and is kept in `target/guests`.
#[test]
fn debians_toolchain_builds_the_same_plugin() {
    let library = Path::new("/usr/lib/rustlib/src/rust/library/std/Cargo.toml");
    if !Path::new("/usr/bin/cargo").exists() || !library.exists() {
        eprintln!("SKIPPED: Debian's rustc-web, cargo-web and rust-web-src are not installed");
        return;
    }
    let debian = match Toolchain::debian(&root().join("target/guests/debian"), &say) {
        Ok(found) => found,
        Err(error) => panic!("{error}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("mine");
    new_plugin(&plugin, "mine");
    let built = build_guest(&plugin, &dir.path().join("out"), &debian, &say).unwrap();
    assert!(built.bytes > 10_000);
}

/// The SDK and the bundled plugins belong to the guests' workspace, so its documentation's examples and their tests are run
/// from here.
#[test]
fn the_sdks_examples_and_the_parsers_tests_hold() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .current_dir(root().join("plugins"))
        .args(["test", "--package", "pyxis-sdk", "--package", "memcached"])
        .env("CARGO_TARGET_DIR", root().join("target/guests/build"))
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(text.contains("src/expr.rs - expr::Expr"), "no example was run: {text}");
    assert!(text.contains("any_split_gives_the_same_rows ... ok"), "no parser was tested: {text}");
}
