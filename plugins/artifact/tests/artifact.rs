//! Artifacts, layouts and signatures: what is good comes through unchanged, whatever is not is refused by name.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use host_manifest::{Manifest, section};
use plugins_artifact::oci::{self, Descriptor, ImageManifest, Index};
use plugins_artifact::{Artifact, Bundle, Digest, Error, Kind, Layout, PublicKey, SigningKey, signers};

fn component(name: &str, version: &str) -> Vec<u8> {
    let manifest = Manifest::from_toml(&format!(
        "name = \"{name}\"\nversion = \"{version}\"\ndescription = \"For tests\"\nlicense = \"Apache-2.0\"\ntables = [\"http_events\"]\n\
         [[outputs]]\nname = \"slow\"\n[[views]]\ntable = \"slow\"\ncolumns = [{{ name = \"path\", width = 9 }}]\n"
    ))
    .unwrap();
    let text = r#"(component (import "pyxis:common/log@0.1.0" (instance)) (core module) (instance $i) (export "run" (instance $i)))"#;
    section::append(&wat::parse_str(text).unwrap(), &manifest.to_json())
}

fn artifact() -> Artifact {
    Artifact::pack(component("slow_posts", "0.1.0")).unwrap()
}

/// The artifact taken apart, to be put together wrongly.
fn parts() -> (ImageManifest, serde_json::Value, Vec<u8>) {
    let artifact = artifact();
    let config = serde_json::from_slice(artifact.config()).unwrap();
    (ImageManifest::parse(artifact.image()).unwrap(), config, artifact.component().to_vec())
}

fn put_together(mut image: ImageManifest, config: &serde_json::Value, component: Vec<u8>) -> Result<Artifact, Error> {
    let config = serde_json::to_vec(config).unwrap();
    image.config = Descriptor::of(&image.config.media_type, &config);
    Artifact::from_parts(image.to_bytes(), config, component)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, says: &str) -> Error {
    let error = result.unwrap_err();
    assert!(error.message.contains(says), "{error} (wanted: {says})");
    error
}

#[test]
fn the_same_component_gives_the_same_artifact_in_the_cncf_s_layout() {
    let artifact = artifact();
    assert_eq!(artifact.digest(), Artifact::pack(component("slow_posts", "0.1.0")).unwrap().digest());
    assert_ne!(artifact.digest(), Artifact::pack(component("slow_posts", "0.1.1")).unwrap().digest());
    let image: serde_json::Value = serde_json::from_slice(artifact.image()).unwrap();
    assert_eq!(image["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(image["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(image["layers"].as_array().unwrap().len(), 1);
    assert_eq!(image["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(image["annotations"]["org.opencontainers.image.version"], "0.1.0");
    let config: serde_json::Value = serde_json::from_slice(artifact.config()).unwrap();
    assert_eq!((&config["architecture"], &config["os"]), (&"wasm".into(), &"wasip2".into()));
    assert_eq!(config["layerDigests"][0], image["layers"][0]["digest"]);
    assert_eq!(config["component"]["exports"][0], "run");
    assert_eq!(config["component"]["imports"][0], "pyxis:common/log@0.1.0");
    assert_eq!(config["component"]["target"], "pyxis:script@0.1.0");
    assert_eq!(config["pyxis.manifest"]["views"][0]["columns"][0]["name"], "path");
}

#[test]
fn an_artifact_of_another_tool_needs_no_manifest_in_its_config() {
    let (image, mut config, component) = parts();
    config.as_object_mut().unwrap().remove("pyxis.manifest");
    config["created"] = "2026-11-25T00:00:00Z".into();
    assert_eq!(put_together(image, &config, component).unwrap().plugin().name, "slow_posts");
}

#[test]
fn what_does_not_fit_together_is_refused_by_part() {
    let good = artifact();
    let (image, config, component_bytes) = parts();
    let mut bent = good.component().to_vec();
    *bent.last_mut().unwrap() ^= 1;
    let error = refused(
        Artifact::from_parts(good.image().to_vec(), good.config().to_vec(), bent),
        "the component has the digest sha256:",
    );
    assert!(error.hint.unwrap().contains("tampered"));
    let longer = [good.component(), b"x"].concat();
    refused(Artifact::from_parts(good.image().to_vec(), good.config().to_vec(), longer), "were announced");
    let mut other = config.clone();
    other["pyxis.manifest"]["tables"] = serde_json::json!([]);
    let bytes = serde_json::to_vec(&other).unwrap();
    refused(Artifact::from_parts(good.image().to_vec(), bytes, component_bytes.clone()), "the config has");
    // Even with digests that fit: what is shown must be what runs.
    refused(put_together(image.clone(), &other, component_bytes.clone()), "is not the one in the component");
    let mut arm = config.clone();
    arm["architecture"] = "arm64".into();
    refused(put_together(image.clone(), &arm, component_bytes.clone()), "it is for `arm64`");

    let with = |change: &dyn Fn(&mut ImageManifest)| {
        let mut image = image.clone();
        change(&mut image);
        put_together(image, &config, component_bytes.clone())
    };
    refused(with(&|i| i.layers.push(i.layers[0].clone())), "it has 2 layers");
    refused(with(&|i| i.layers.clear()), "it has 0 layers");
    refused(with(&|i| i.layers = vec![i.layers[0].clone(); 500]), "has 500 layers");
    refused(
        with(&|i| i.layers[0].media_type = "application/x-tar\x1b[2J".into()),
        r"its layer is `application/x-tar\u{1b}[2J`",
    );
    refused(with(&|i| i.config.media_type = "application/vnd.oci.image.config.v1+json".into()), "its config is");
    refused(with(&|i| i.artifact_type = Some("application/vnd.helm".into())), "it is a `application/vnd.helm`");
    refused(with(&|i| i.media_type = Some(oci::IMAGE_INDEX.into())), "this is no image manifest");
    refused(with(&|i| i.schema_version = 1), "schema version 1");
    refused(with(&|i| i.layers[0].size = u64::MAX), "at most 33554432 are allowed");
    refused(with(&|i| i.layers[0].size -= 1), "were announced");
}

#[test]
fn text_that_is_none_of_it_is_refused() {
    let good = artifact();
    let with = |image: &[u8]| Artifact::from_parts(image.to_vec(), good.config().to_vec(), good.component().to_vec());
    refused(with(b""), "the image manifest is malformed");
    refused(with(b"[1,2"), "the image manifest is malformed");
    refused(with("[".repeat(60_000).as_bytes()), "malformed");
    refused(with(" ".repeat(1 << 20).as_bytes()), "at most 65536 are allowed");
    let text = String::from_utf8(good.image().to_vec()).unwrap();
    let tricked = text.replace(good.component_descriptor().digest.as_str(), "sha256:../../../../etc/passwd");
    refused(with(tricked.as_bytes()), "is no digest");
    let twice = text.replacen("\"schemaVersion\":2", "\"schemaVersion\":2,\"schemaVersion\":2", 1);
    refused(with(twice.as_bytes()), "duplicate field");
    refused(with(text.replace(&format!("\"size\":{}", good.component().len()), "\"size\":-1").as_bytes()), "malformed");
}

#[test]
fn what_is_no_component_of_ours_is_not_packed() {
    refused(Artifact::pack(b"hello".to_vec()), "no WebAssembly");
    refused(Artifact::pack(wat::parse_str("(module)").unwrap()), "a core WebAssembly module");
    refused(Artifact::pack(wat::parse_str("(component)").unwrap()), "has no manifest");
    refused(Artifact::pack(component("x", "one")), "the version `one` is none");
    let twice = section::append(&component("x", "0.1.0"), "{}");
    refused(Artifact::pack(twice), "two manifests");
    let mut cut = component("x", "0.1.0");
    cut.truncate(cut.len() - 5);
    refused(Artifact::pack(cut), "malformed");
}

#[test]
fn a_layout_gives_back_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::create(&dir.path().join("new")).unwrap();
    refused(layout.read(None), "is empty");
    let (first, second) = (artifact(), Artifact::pack(component("slow_posts", "0.2.0")).unwrap());
    layout.write(&first, "0.1.0").unwrap();
    layout.write(&first, "0.1.0").unwrap();
    assert_eq!(layout.read(None).unwrap(), first);
    layout.write(&second, "0.2.0").unwrap();
    let layout = Layout::open(&dir.path().join("new")).unwrap();
    assert_eq!(layout.tags().unwrap(), ["0.1.0", "0.2.0"]);
    assert_eq!(layout.read(Some("0.2.0")).unwrap(), second);
    assert_eq!(layout.read(Some(first.digest().as_str())).unwrap(), first);
    let error = refused(layout.read(None), "holds several");
    assert!(error.hint.unwrap().contains("0.1.0, 0.2.0"));
    refused(layout.read(Some("0.3.0")), "holds no `0.3.0`");
    layout.write(&second, "0.1.0").unwrap();
    assert_eq!(layout.read(Some("0.1.0")).unwrap(), second, "the tag moved");
    // Nothing of how it was written is left.
    let staged = fs::read_dir(dir.path().join("new"))
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("tmp"));
    assert_eq!(staged.count(), 0);
    refused(Layout::create(&std::env::current_dir().unwrap()), "neither empty nor an OCI layout");
    refused(Layout::open(dir.path()), "is no OCI layout");
}

fn blob(root: &Path, digest: &Digest) -> std::path::PathBuf {
    root.join("blobs/sha256").join(digest.hex())
}

#[test]
fn a_hostile_layout_is_refused() {
    let check = |change: &dyn Fn(&Path, &Artifact), says: &str| {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let artifact = artifact();
        layout.write(&artifact, "0.1.0").unwrap();
        change(dir.path(), &artifact);
        refused(Layout::open(dir.path()).and_then(|layout| layout.read(None)), says);
    };
    check(&|root, a| fs::write(blob(root, &a.component_descriptor().digest), b"\0asm").unwrap(), "were announced");
    check(
        &|root, a| {
            let mut bent = a.component().to_vec();
            bent[20] ^= 1;
            fs::write(blob(root, &a.component_descriptor().digest), bent).unwrap();
        },
        "the component has the digest",
    );
    check(&|root, a| fs::remove_file(blob(root, &a.config_descriptor().digest)).unwrap(), "the config is missing");
    check(
        &|root, a| {
            let path = blob(root, &a.component_descriptor().digest);
            fs::remove_file(&path).unwrap();
            symlink("/dev/zero", &path).unwrap();
        },
        "is no plain file",
    );
    check(
        &|root, a| {
            // A sparse file: huge, and free of charge to whoever sends it.
            let file = fs::OpenOptions::new().write(true).open(blob(root, &a.component_descriptor().digest)).unwrap();
            file.set_len(1 << 40).unwrap();
        },
        "has 1099511627776 bytes",
    );
    check(&|root, _| fs::write(root.join("index.json"), b"{").unwrap(), "the index is malformed");
    check(
        &|root, _| fs::write(root.join("oci-layout"), br#"{"imageLayoutVersion":"2.0.0"}"#).unwrap(),
        "version 2.0.0",
    );
    check(&|root, _| fs::write(root.join("oci-layout"), b"[]").unwrap(), "is malformed");
    check(
        &|root, _| {
            let text = fs::read_to_string(root.join("index.json")).unwrap();
            let at = text.find("sha256:").unwrap();
            let tricked = format!("{}sha256:../../../index.json{}", &text[..at], &text[at + 71..]);
            fs::write(root.join("index.json"), tricked).unwrap();
        },
        "is no digest",
    );
    check(
        &|root, a| {
            let entry = Descriptor { size: 1 << 50, ..a.descriptor().clone() };
            let index = Index { manifests: vec![entry], ..Index::default() };
            fs::write(root.join("index.json"), index.to_bytes()).unwrap();
        },
        "the layout",
    );
}

#[test]
fn a_signature_is_good_for_its_artifact_and_its_key_only() {
    let (artifact, key, stranger) = (artifact(), SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let bundle = Bundle::sign(&artifact, &key).unwrap();
    assert_eq!(bundle, Bundle::sign(&artifact, &key).unwrap(), "Ed25519 is deterministic");
    let document: serde_json::Value = serde_json::from_slice(bundle.to_bytes()).unwrap();
    assert_eq!(document["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(document["dsseEnvelope"]["payloadType"], "application/vnd.in-toto+json");
    let signer = bundle.verify(artifact.digest(), &[stranger.public(), key.public()]).unwrap();
    assert_eq!((signer.key, signer.algorithm), (key.public().fingerprint(), "ed25519"));

    let error = refused(bundle.verify(artifact.digest(), &[stranger.public()]), "which is not trusted");
    assert!(error.message.contains(&key.public().fingerprint()), "{error}");
    assert!(error.hint.unwrap().contains(&stranger.public().fingerprint()));
    refused(bundle.verify(artifact.digest(), &[]), "not trusted");
    let other = Artifact::pack(component("slow_posts", "0.2.0")).unwrap();
    let error = refused(bundle.verify(other.digest(), &[key.public()]), "not of this artifact");
    assert!(error.message.contains(artifact.digest().as_str()) && error.message.contains(other.digest().as_str()));
    assert_eq!(error.kind, Kind::Untrusted);
}

#[test]
fn a_signature_that_was_touched_is_refused() {
    let (artifact, key) = (artifact(), SigningKey::generate().unwrap());
    let bundle = Bundle::sign(&artifact, &key).unwrap();
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut document: serde_json::Value = serde_json::from_slice(bundle.to_bytes()).unwrap();
        change(&mut document);
        Bundle::parse(serde_json::to_vec(&document).unwrap())
            .and_then(|bundle| bundle.verify(artifact.digest(), &[key.public()]))
    };
    assert!(with(&|_| {}).is_ok());
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    // The statement of another artifact under this signature.
    refused(
        with(&|d| {
            let payload = base64.decode(d["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
            let text = String::from_utf8(payload).unwrap().replace(artifact.digest().hex(), &"0".repeat(64));
            d["dsseEnvelope"]["payload"] = base64.encode(text).into();
        }),
        "tampered with",
    );
    refused(with(&|d| d["dsseEnvelope"]["payloadType"] = "text/plain".into()), "tampered with");
    refused(with(&|d| d["dsseEnvelope"]["signatures"][0]["sig"] = base64.encode([0; 64]).into()), "tampered with");
    refused(with(&|d| d["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA".into()), "tampered with");
    refused(with(&|d| d["dsseEnvelope"]["signatures"][0]["sig"] = "%".into()), "no base64");
    refused(with(&|d| d["dsseEnvelope"]["payload"] = "%".into()), "no base64");
    refused(with(&|d| d["dsseEnvelope"]["signatures"] = serde_json::json!([])), "not exactly one");
    refused(with(&|d| d["mediaType"] = "application/json".into()), "is not known");
    refused(with(&|d| d["verificationMaterial"] = 1.into()), "malformed");
    refused(Bundle::parse(vec![b' '; 1 << 20]), "at most 65536");
    // What the bundle claims of its key decides nothing.
    assert!(with(&|d| d["verificationMaterial"]["publicKey"]["hint"] = "someone else".into()).is_ok());
}

#[test]
fn keys_survive_their_files_and_are_kept_to_their_owner() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate().unwrap();
    let (private, public) = (dir.path().join("a.key"), dir.path().join("a.pub"));
    fs::write(&private, key.to_pem()).unwrap();
    fs::write(&public, key.public().to_pem()).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o644)).unwrap();
    let error = refused(SigningKey::from_file(&private), "readable by others");
    assert!(error.hint.unwrap().contains("chmod 600"));
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(SigningKey::from_file(&private).unwrap().public(), PublicKey::from_file(&public).unwrap());
    assert!(!format!("{key:?}").contains("der"), "{key:?}");
    refused(PublicKey::from_file(&private), "this is a private key");
    refused(SigningKey::from_pem(&key.public().to_pem()), "this is a public key");
    refused(PublicKey::from_pem("hello"), "no PEM block");
    refused(PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\n%%\n-----END PUBLIC KEY-----"), "damaged");
    refused(PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"), "neither Ed25519");
    refused(PublicKey::from_file(&dir.path().join("none.pub")), "cannot read");
}

/// Keys as OpenSSL makes them; it is on every machine that has git or Python, but not on each.
#[test]
fn keys_of_openssl_sign_and_verify() {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").current_dir(dir.path()).args(args).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !openssl(&["version"]) {
        eprintln!("SKIPPED: keys of OpenSSL: openssl is not installed");
        return;
    }
    let p256: &[&str] = &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "k.key"];
    for (algorithm, make) in [("ecdsa-p256", p256), ("ed25519", &["genpkey", "-algorithm", "ed25519", "-out", "k.key"])]
    {
        assert!(openssl(make) && openssl(&["pkey", "-in", "k.key", "-pubout", "-out", "k.pub"]));
        let key = SigningKey::from_file(&dir.path().join("k.key")).unwrap();
        assert_eq!(key.public().to_pem(), fs::read_to_string(dir.path().join("k.pub")).unwrap());
        let artifact = artifact();
        let bundle = Bundle::sign(&artifact, &key).unwrap();
        assert_eq!(bundle.verify(artifact.digest(), &[key.public()]).unwrap().algorithm, algorithm);
        // And ours in OpenSSL.
        fs::write(dir.path().join("ours.key"), SigningKey::generate().unwrap().to_pem()).unwrap();
        assert!(openssl(&["pkey", "-in", "ours.key", "-noout"]));
    }
    let rsa = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "r.key"];
    assert!(openssl(&rsa));
    refused(SigningKey::from_file(&dir.path().join("r.key")), "neither Ed25519 nor ECDSA");
}

#[test]
fn signatures_lie_beside_the_artifact() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::create(dir.path()).unwrap();
    let (artifact, a, b) = (artifact(), SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    layout.write(&artifact, "0.1.0").unwrap();
    let none = layout.signatures(artifact.digest()).unwrap();
    assert_eq!(refused(signers(artifact.digest(), &none, &[a.public()]), "it is not signed").kind, Kind::Untrusted);
    let by_a = Bundle::sign(&artifact, &a).unwrap();
    layout.attach(&artifact, &by_a).unwrap();
    layout.attach(&artifact, &by_a).unwrap();
    layout.attach(&artifact, &Bundle::sign(&artifact, &b).unwrap()).unwrap();
    let bundles = layout.signatures(artifact.digest()).unwrap();
    assert_eq!(bundles.len(), 2);
    assert_eq!(signers(artifact.digest(), &bundles, &[a.public(), b.public()]).unwrap().len(), 2);
    assert_eq!(signers(artifact.digest(), &bundles, &[b.public()]).unwrap()[0].key, b.public().fingerprint());
    // The only artifact is still the only one: signatures are not taken for one.
    assert_eq!(layout.read(None).unwrap(), artifact);
    assert_eq!(layout.tags().unwrap(), ["0.1.0"]);
    let referrer = by_a.referrer(artifact.descriptor());
    assert_eq!(referrer.subject.as_ref().unwrap().digest, *artifact.digest());
    assert!(Bundle::layer_of(&referrer, artifact.digest()).is_some());
    assert!(Bundle::layer_of(&referrer, &Digest::of(b"another")).is_none());
    // A damaged one counts as none.
    fs::write(blob(dir.path(), &referrer.layers[0].digest), b"{}").unwrap();
    assert_eq!(layout.signatures(artifact.digest()).unwrap().len(), 1);
}

proptest::proptest! {
    /// Arbitrary bytes never panic, and never become an artifact or a signature.
    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2048)) {
        let good = artifact();
        proptest::prop_assert!(Artifact::pack(bytes.clone()).is_err());
        proptest::prop_assert!(Artifact::from_parts(bytes.clone(), good.config().to_vec(), good.component().to_vec()).is_err());
        proptest::prop_assert!(Bundle::parse(bytes).is_err());
    }

    /// One changed byte anywhere is noticed.
    #[test]
    fn a_changed_byte_is_noticed(part in 0..3usize, at in proptest::num::usize::ANY, bit in 0..8u32) {
        let good = artifact();
        let mut parts = [good.image().to_vec(), good.config().to_vec(), good.component().to_vec()];
        let at = at % parts[part].len();
        parts[part][at] ^= 1 << bit;
        let [image, config, component] = parts;
        // A change of the image manifest alone may still be a manifest, but of another digest: signatures are of that.
        match Artifact::from_parts(image, config, component) {
            Ok(other) => proptest::prop_assert!(part == 0 && other.digest() != good.digest()),
            Err(_) => {}
        }
    }
}
