//! Fuzzes what reads artifacts and signatures: mutations of good ones, digests mended so that they get past the first check.
//!
//! `cargo xtask fuzz artifact --time N [-- --seed S]`. Runs until the time is up or a promise breaks: nothing panics, what is
//! taken fits together, and no changed signature is good for anything but what it was made for. The same seed makes the same
//! inputs; on a broken promise the last one's number is in the message.

use std::time::{Duration, Instant};

use host_manifest::{Manifest, section};
use plugins_artifact::oci::{Descriptor, ImageManifest, Index};
use plugins_artifact::{Artifact, Bundle, Digest, PublicKey, SigningKey, Version};

/// Bytes of a document here; the bounds themselves are tested elsewhere.
const INPUT_BYTES_MAX: usize = 8 << 10;

/// What readers of JSON and of paths have stumbled over.
const TOKENS: &[&[u8]] = &[
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1e999",
    b"sha256:",
    b"sha256:../../etc/passwd",
    b"\\u0000",
    b"\\ud800",
    b"\"size\":",
    b"\"digest\":",
    b"\"layers\":[]",
    b"\"schemaVersion\":2",
    b"\"pyxis.manifest\":{}",
    b"\"payload\":\"\"",
    b"\"signatures\":[]",
    b"\xff",
    b"\0",
    b"\x00\x61\x73\x6d\x0d\x00\x01\x00",
];

fn main() {
    let (seconds, seed) = options();
    let manifest = "name = \"fuzzed\"\nversion = \"0.1.0\"\ndescription = \"x\"\ntables = [\"http_events\"]\n";
    let manifest = Manifest::from_toml(manifest).expect("a good manifest");
    // An empty component: its eight bytes are all there is to it.
    let component = section::append(b"\0asm\x0d\0\x01\0", &manifest.to_json());
    let good = Artifact::pack(component).expect("a good component");
    let key = SigningKey::generate().expect("random numbers");
    let bundle = Bundle::sign(&good, &key).expect("a good key");
    let trusted = [key.public()];
    let mut random = Random(seed.wrapping_mul(2).wrapping_add(1));
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let (mut executions, mut taken, mut signed) = (0u64, 0u64, 0u64);
    println!("seed {seed}, {seconds} s");
    while Instant::now() < deadline {
        executions += 1;
        let parts = [good.image(), good.config(), good.component(), bundle.to_bytes(), trusted_pem(&trusted)];
        let which = random.below(parts.len());
        let input = mutate(&mut random, parts[which]);
        let own = |n: usize| if n == which { input.clone() } else { parts[n].to_vec() };
        match which {
            0..=2 => taken += u64::from(artifact(own(0), own(1), own(2), &good)),
            3 => signed += u64::from(signature(input, &good, &trusted)),
            _ => {
                let text = String::from_utf8_lossy(&input);
                let _ = (PublicKey::from_pem(&text), SigningKey::from_pem(&text), Version::parse(&text));
                let _ = (Index::parse(&input), Digest::parse(&text));
            }
        }
    }
    println!("{executions} executions, {taken} artifacts and {signed} signatures taken: no promise broken");
}

fn trusted_pem(keys: &[PublicKey; 1]) -> &'static [u8] {
    // Made once; the leak is the fuzzer's.
    static PEM: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    PEM.get_or_init(|| keys[0].to_pem()).as_bytes()
}

/// As it came, and again with the digests of what came.
fn artifact(image: Vec<u8>, config: Vec<u8>, component: Vec<u8>, good: &Artifact) -> bool {
    let mut one = false;
    let mut mended = ImageManifest::parse(&image).ok();
    if let Some(image) = &mut mended {
        image.config = Descriptor::of(&image.config.media_type, &config);
        if let Some(layer) = image.layers.first_mut() {
            *layer = Descriptor::of(&layer.media_type, &component);
        }
    }
    for image in [Some(image), mended.map(|image| image.to_bytes())].into_iter().flatten() {
        let Ok(artifact) = Artifact::from_parts(image, config.clone(), component.clone()) else { continue };
        one = true;
        assert_eq!(*artifact.digest(), Digest::of(artifact.image()));
        artifact.component_descriptor().check("the component", artifact.component()).expect("it was checked");
        let same = artifact.image() == good.image();
        assert!(!same || artifact == *good, "one digest, two artifacts");
        let packed = Artifact::pack(artifact.component().to_vec()).expect("what is taken can be packed");
        assert_eq!(packed.plugin(), artifact.plugin());
    }
    one
}

/// Whether it verifies; then only for what it was made for.
fn signature(bytes: Vec<u8>, good: &Artifact, trusted: &[PublicKey]) -> bool {
    let Ok(bundle) = Bundle::parse(bytes) else { return false };
    let _ = bundle.claims();
    assert!(bundle.verify(&Digest::of(b"another"), trusted).is_err(), "good for something else");
    bundle.verify(good.digest(), trusted).is_ok()
}

fn mutate(random: &mut Random, from: &[u8]) -> Vec<u8> {
    let mut input = from.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 => input.truncate(at),
            2 => {
                let end = at + random.below(input.len() - at + 1).min(64);
                input.drain(at..end);
            }
            3 => {
                let end = at + random.below(input.len() - at + 1).min(64);
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            _ => {
                input.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn options() -> (u64, u64) {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let value = args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)?.parse().ok());
        value.unwrap_or(default)
    };
    (number("--seconds", 10), number("--seed", 1))
}

/// xorshift64*: enough to choose where to cut.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}
