//! `px plugin` after the build: packing, signing, registries, installing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use host_manifest::{Manifest, section};

use crate::fake::{Fake, good};
use crate::{code, err, json, out, px, run};

/// A component that says of itself what is asked for; nothing of it is run here.
fn component(folder: &Path, version: &str) -> PathBuf {
    let manifest = Manifest::from_toml(&format!(
        "name = \"slow_posts\"\nversion = \"{version}\"\ndescription = \"Posts that took long\"\ntables = [\"http_events\"]\n\
         [[args]]\nname = \"limit\"\ntype = \"int64\"\ndefault = 50\n[[outputs]]\nname = \"slow\"\n[budget]\nguest_cpu_ms = 20\n"
    ))
    .unwrap();
    let text = "(component (core module) (instance $i) (export \"run\" (instance $i)))";
    let path = folder.join(format!("slow_posts-{version}.wasm"));
    fs::write(&path, section::append(&wat::parse_str(text).unwrap(), &manifest.to_json())).unwrap();
    path
}

/// `px plugin …` in a folder, without anybody's credentials.
fn plugin(folder: &Path, args: &[&str]) -> std::process::Output {
    let mut command = px();
    command.current_dir(folder).env("HOME", folder).env_remove("DOCKER_CONFIG").env_remove("REGISTRY_AUTH_FILE");
    command.arg("plugin").args(args).output().unwrap()
}

/// What it printed; it must have ended well.
fn said(folder: &Path, args: &[&str]) -> String {
    let output = plugin(folder, args);
    assert_eq!(code(&output), 0, "{args:?}: {}", err(&output));
    out(&output).trim().to_owned()
}

/// Why it failed; it must have, with this code.
fn refused(folder: &Path, args: &[&str], exit: i32) -> String {
    let output = plugin(folder, args);
    assert_eq!(code(&output), exit, "{args:?}: {} {}", out(&output), err(&output));
    err(&output)
}

#[test]
fn a_plugin_is_packed_inspected_signed_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    component(at, "0.1.0");
    let packed = said(at, &["pack", "slow_posts-0.1.0.wasm"]);
    assert_eq!(packed, "oci:slow_posts.oci:0.1.0");
    let inspected = said(at, &["inspect", &packed]);
    for shows in [
        "slow_posts",
        "Posts that took long",
        "http_events",
        "--limit <int64> [default 50]",
        "guest CPU 20 ms",
        "nobody",
    ] {
        assert!(inspected.contains(shows), "{shows}: {inspected}");
    }
    let document = json(&said(at, &["inspect", &packed, "-o", "json"]));
    assert_eq!(document["manifest"]["outputs"][0]["name"], "slow");
    let again = json(&said(at, &["inspect", "slow_posts-0.1.0.wasm", "-o", "json"]));
    assert_eq!(document["digest"], again["digest"], "the same component is the same artifact");

    let fingerprint = said(at, &["keygen", "mine"]);
    assert_eq!(fs::metadata(at.join("mine.key")).unwrap().permissions().mode() & 0o777, 0o600);
    said(at, &["keygen", "other"]);
    assert!(refused(at, &["keygen", "mine"], 2).contains("is there already"));
    assert!(refused(at, &["verify", &packed, "--key", "mine.pub"], 4).contains("is not signed"));
    let unpacked = refused(at, &["sign", "slow_posts-0.1.0.wasm", "--key", "mine.key"], 2);
    assert!(unpacked.contains("px plugin pack"), "{unpacked}");
    assert_eq!(said(at, &["sign", &packed, "--key", "mine.key"]), document["digest"].as_str().unwrap());
    let verified = said(at, &["verify", &packed, "--key", "other.pub", "--key", "mine.pub"]);
    assert!(verified.contains(&fingerprint) && verified.contains("(ed25519)"), "{verified}");
    let other = refused(at, &["verify", &packed, "--key", "other.pub"], 4);
    assert!(other.contains(&format!("signed by {fingerprint}, which is not trusted")), "{other}");
    assert!(refused(at, &["verify", &packed, "--key", "mine.key"], 1).contains("private key"));
    assert!(refused(at, &["sign", &packed, "--key", "mine.pub"], 1).contains("readable by others"));

    // A tampered layout: the artifact of another version under the name that was signed.
    let newer = component(at, "0.2.0");
    said(at, &["pack", newer.to_str().unwrap(), "--out", "slow_posts.oci"]);
    let stolen = refused(at, &["verify", "oci:slow_posts.oci:0.2.0", "--key", "mine.pub"], 4);
    assert!(stolen.contains("is not signed"), "{stolen}");
    let several = refused(at, &["inspect", "slow_posts.oci"], 1);
    assert!(several.contains("0.1.0, 0.2.0"), "{several}");
    let blob = document["component"]["digest"].as_str().unwrap().replace("sha256:", "slow_posts.oci/blobs/sha256/");
    let mut bytes = fs::read(at.join(&blob)).unwrap();
    bytes[10] ^= 1;
    fs::write(at.join(&blob), bytes).unwrap();
    let bent = refused(at, &["verify", &packed, "--key", "mine.pub"], 1);
    assert!(bent.contains("the component has the digest") && bent.contains("tampered"), "{bent}");
}

#[test]
fn what_is_no_plugin_is_told_with_what_would_be() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::write(at.join("text.wasm"), "hello").unwrap();
    fs::write(at.join("bare.wasm"), wat::parse_str("(component)").unwrap()).unwrap();
    assert!(refused(at, &["inspect", "text.wasm"], 1).contains("text.wasm: this is no WebAssembly"));
    assert!(refused(at, &["pack", "bare.wasm"], 1).contains("px plugin build"));
    assert!(refused(at, &["inspect", "nothing"], 1).contains("HOST/NAME:TAG"));
    assert!(refused(at, &["inspect"], 2).contains("neither a plugin.toml nor an oci-layout"));
    assert!(refused(at, &["inspect", "oci:nothing"], 1).contains("is no OCI layout"));
    let error = json(&refused(at, &["inspect", "nothing", "-o", "json"], 1));
    assert_eq!(error["error"]["code"], "not_found");
    // A mistake in the manifest has its line, whatever toolchain there is.
    fs::write(at.join("plugin.toml"), "name = \"x\"\nversion = \"0.1.0\"\ndescription = \"y\"\ntabels = []\n").unwrap();
    fs::write(at.join("Cargo.toml"), "").unwrap();
    // With the surroundings as they are: compilers are found through HOME.
    let output = px().current_dir(at).args(["plugin", "pack"]).output().unwrap();
    if err(&output).contains("no Rust toolchain") {
        eprintln!("SKIPPED: mistakes in plugin.toml: no toolchain for WebAssembly");
        return;
    }
    let text = err(&output);
    assert!(text.contains("plugin.toml:4:1: plugin.toml: unknown key `tabels`") && text.contains("^^^^^^"), "{text}");
    assert!(text.contains("did you mean `tables`?"), "{text}");
}

#[test]
fn a_plugin_is_installed_listed_and_removed() {
    let fake = Fake::start(|_| good());
    let dir = tempfile::tempdir().unwrap();
    let path = component(dir.path(), "0.1.0");
    let path = path.to_str().unwrap();
    let installed = run(&fake, &["plugin", "install", path]);
    assert_eq!(code(&installed), 0, "{}", err(&installed));
    assert!(out(&installed).starts_with("slow_posts 0.1.0 sha256:"), "{}", out(&installed));
    assert!(err(&installed).contains("px run slow_posts"), "{}", err(&installed));
    let older = run(&fake, &["plugin", "install", path]);
    assert_eq!(code(&older), 1);
    assert!(err(&older).contains("use --replace"), "{}", err(&older));
    assert_eq!(code(&run(&fake, &["plugin", "install", path, "--replace"])), 0);
    let sent = fake.seen.lock().unwrap().installed.pop().unwrap();
    assert_eq!((sent.component, sent.replace), (fs::read(path).unwrap(), true));

    let list = out(&run(&fake, &["plugin", "list"]));
    assert!(list.contains("slow_posts  0.2.0    script  broken"), "{list}");
    assert!(list.contains("it is not signed"), "{list}");
    assert!(list.contains("kept"), "{list}");
    let document = json(&out(&run(&fake, &["plugin", "list", "-o", "json"])));
    assert_eq!(document["plugins"][1]["enabled"], false);
    let removed = run(&fake, &["plugin", "remove", "slow_posts@0.2.0"]);
    assert_eq!((code(&removed), err(&removed).as_str()), (0, "removed slow_posts 0.2.0\n"));
    assert!(err(&run(&fake, &["plugin", "remove", "nothing"])).contains("no plugin `nothing`"));
}

/// Debian's `docker-registry` on loopback, with a folder of its own.
struct Registry {
    child: Child,
    host: String,
    folder: tempfile::TempDir,
}

impl Registry {
    /// None, said aloud, where it is not installed.
    fn start(extra: &str) -> Option<Registry> {
        let program =
            ["/usr/bin/docker-registry", "/usr/local/bin/registry"].into_iter().find(|p| Path::new(p).is_file());
        let Some(program) = program else {
            eprintln!("SKIPPED: a real registry: docker-registry is not installed (apt-get install docker-registry)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let config = folder.path().join("config.yml");
        let data = folder.path().join("data");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
                 http:\n  addr: {host}\n{extra}",
                data.display()
            ),
        )
        .unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry { child, host, folder };
        let began = Instant::now();
        while std::net::TcpStream::connect(&registry.host).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    fn at(&self, name: &str) -> String {
        format!("{}/team/{name}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_plugin_goes_through_a_real_registry_unchanged() {
    let Some(registry) = Registry::start("") else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    component(at, "0.1.0");
    let (fingerprint, place) = (said(at, &["keygen", "mine"]), registry.at("slow_posts"));
    let packed = said(at, &["pack", "slow_posts-0.1.0.wasm"]);
    said(at, &["sign", &packed, "--key", "mine.key"]);
    let pushed = said(at, &["push", &packed, &place]);
    assert_eq!(pushed, format!("{place}:0.1.0"), "the tag is the version");
    let again = plugin(at, &["push", &packed, &place]);
    assert!(code(&again) == 0 && err(&again).contains("had it already"), "{}", err(&again));

    let pulled = said(at, &["pull", &place, "--out", "back.oci"]);
    assert_eq!(pulled, "oci:back.oci:0.1.0");
    let digest = |word: &str| json(&said(at, &["inspect", word, "-o", "json"]))["digest"].as_str().unwrap().to_owned();
    assert_eq!(digest(&pulled), digest(&packed));
    let verified = said(at, &["verify", &pulled, "--key", "mine.pub"]);
    assert!(verified.contains(&fingerprint), "the signature travelled: {verified}");
    assert!(said(at, &["verify", &pushed, "--key", "mine.pub"]).contains(&fingerprint));

    // Signed where it lies, by another key; both count.
    let other = said(at, &["keygen", "other"]);
    assert!(refused(at, &["verify", &pushed, "--key", "other.pub"], 4).contains("not trusted"));
    said(at, &["sign", &pushed, "--key", "other.key"]);
    said(at, &["sign", &pushed, "--key", "other.key"]);
    let both = said(at, &["verify", &pushed, "--key", "mine.pub", "--key", "other.pub"]);
    assert!(both.lines().count() == 2 && both.contains(&other), "{both}");

    // A tag is not moved by accident, and no tag is the newest version.
    let newer = component(at, "0.10.0");
    let taken = refused(at, &["push", newer.to_str().unwrap(), &pushed], 1);
    assert!(taken.contains("is taken by another artifact") && taken.contains("--replace"), "{taken}");
    said(at, &["push", newer.to_str().unwrap(), &place]);
    said(at, &["push", component(at, "0.9.0").to_str().unwrap(), &place]);
    assert_eq!(json(&said(at, &["inspect", &place, "-o", "json"]))["manifest"]["version"], "0.10.0");
    let by_digest = format!("{place}@{}", digest(&packed));
    assert_eq!(digest(&by_digest), digest(&packed));
    said(at, &["push", newer.to_str().unwrap(), &pushed, "--replace"]);
    assert_eq!(json(&said(at, &["inspect", &pushed, "-o", "json"]))["manifest"]["version"], "0.10.0");
}

#[test]
fn wrong_references_and_registries_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let path = component(at, "0.1.0");
    let path = path.to_str().unwrap();
    for wrong in ["slow_posts", "team/slow_posts:1", "host.example/UPPER"] {
        assert!(refused(at, &["push", path, wrong], 2).contains("HOST/NAME:TAG"), "{wrong}");
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = refused(at, &["push", path, &format!("{free}/x")], 1);
    assert!(nobody.contains(&format!("no registry answers at {free}: connection refused")), "{nobody}");
    let Some(registry) = Registry::start("") else { return };
    let absent = refused(at, &["pull", &format!("{}:0.1.0", registry.at("nothing"))], 1);
    assert!(absent.contains("is not in the registry"), "{absent}");
    assert!(refused(at, &["pull", &registry.at("nothing")], 1).contains("is not in the registry"));

    // Something else than a plugin, and a registry whose disk lies.
    let place = registry.at("slow_posts");
    said(at, &["push", path, &place]);
    let blobs = registry.folder.path().join("data/docker/registry/v2/blobs/sha256");
    let component = fs::read(path).unwrap();
    let mut bent = 0;
    for prefix in fs::read_dir(&blobs).unwrap().flatten() {
        for blob in fs::read_dir(prefix.path()).unwrap().flatten() {
            let data = blob.path().join("data");
            if fs::read(&data).unwrap() == component {
                let mut other = component.clone();
                other[9] ^= 1;
                fs::write(&data, other).unwrap();
                bent += 1;
            }
        }
    }
    assert_eq!(bent, 1);
    let lies = refused(at, &["pull", &place], 1);
    assert!(lies.contains("gave something else"), "{lies}");
}

#[test]
fn a_registry_that_wants_a_password_gets_it_or_says_so() {
    let passwords = tempfile::NamedTempFile::new().unwrap();
    // The password of `me` is `secret`, as htpasswd -B writes it.
    fs::write(passwords.path(), "me:$2y$05$YXFUN1gn1sG1LI9lD8qHhOMOn3mNon7yrBw2KeXEAG0I.GhRf3e3y\n").unwrap();
    let auth = format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", passwords.path().display());
    let Some(registry) = Registry::start(&auth) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = component(dir.path(), "0.1.0");
    let (path, place) = (path.to_str().unwrap(), registry.at("slow_posts"));
    let denied = refused(dir.path(), &["push", path, &place], 4);
    assert!(denied.contains("does not allow it without credentials") && denied.contains("docker login"), "{denied}");
    let with = |password: &str| {
        let mut command = px();
        command.env("PX_REGISTRY_USER", "me").env("PX_REGISTRY_PASSWORD", password);
        command.args(["plugin", "push", path, &place]).output().unwrap()
    };
    assert_eq!(code(&with("wrong")), 4);
    let pushed = with("secret");
    assert_eq!(code(&pushed), 0, "{}", err(&pushed));
}
