//! A signature of an artifact: an in-toto statement about its digest, in a DSSE envelope, in the form of a Sigstore bundle
//! whose verification material is a public key. No certificate authority and no log takes part.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::key::{PublicKey, SigningKey};
use crate::oci::{self, Descriptor, ImageManifest, shown};

/// Largest bundle. Ours have 1 KiB; those with certificates and log entries some 10.
pub const BUNDLE_BYTES_MAX: usize = 64 << 10;
/// Most signatures of one artifact that are looked at.
pub const SIGNATURES_MAX: usize = 8;

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Any version of the bundle has its envelope in the same place.
const MEDIA_TYPE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// "This artifact is mine", as Sigstore's tools say it.
const PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";

/// A signature as it travels. That it was read says nothing of whether it is good: [`Bundle::verify`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    bytes: Vec<u8>,
    envelope: Envelope,
    hint: String,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Fingerprint of the key.
    pub key: String,
    /// Its algorithm.
    pub algorithm: &'static str,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<KeyHint>,
}

#[derive(Serialize, Deserialize)]
struct KeyHint {
    #[serde(default)]
    hint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    sig: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    #[serde(default)]
    name: String,
    digest: SubjectDigest,
}

#[derive(Serialize, Deserialize)]
struct SubjectDigest {
    #[serde(default)]
    sha256: String,
}

impl Bundle {
    /// Signs an artifact. With Ed25519 the same key and artifact always give the same bytes.
    pub fn sign(artifact: &Artifact, key: &SigningKey) -> Result<Self, Error> {
        let plugin = artifact.plugin();
        let statement = Statement {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: vec![Subject {
                name: format!("{}@{}", plugin.name, plugin.version),
                digest: SubjectDigest { sha256: artifact.digest().hex().to_owned() },
            }],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: serde_json::Map::new(),
        };
        let payload = serde_json::to_vec(&statement).expect("strings always serialise");
        let signature = key.sign(&pre_authentication(PAYLOAD_TYPE, &payload))?;
        let hint = key.public().hint();
        let document = Document {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: Material { public_key: Some(KeyHint { hint }) },
            dsse_envelope: Envelope {
                payload: STANDARD.encode(payload),
                payload_type: PAYLOAD_TYPE.to_owned(),
                signatures: vec![Signature { sig: STANDARD.encode(signature), keyid: String::new() }],
            },
        };
        Self::parse(serde_json::to_vec(&document).expect("strings always serialise"))
    }

    /// Reads one.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the signature has {} bytes, at most {BUNDLE_BYTES_MAX} are allowed",
                bytes.len()
            )));
        }
        let document: Document =
            serde_json::from_slice(&bytes).map_err(|e| Error::invalid(format!("the signature is malformed: {e}")))?;
        if !document.media_type.starts_with(MEDIA_TYPE_PREFIX) {
            return Err(Error::invalid(format!("a signature of type `{}` is not known", shown(&document.media_type))));
        }
        let hint = document.verification_material.public_key.map(|key| key.hint).unwrap_or_default();
        Ok(Self { bytes, envelope: document.dsse_envelope, hint })
    }

    /// As it travels.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whose signature this is, if it is of the artifact with this digest and by one of the `trusted`.
    pub fn verify(&self, artifact: &Digest, trusted: &[PublicKey]) -> Result<Signer, Error> {
        let malformed = |what: &str| Error::invalid(format!("the signature is malformed: {what}"));
        let payload = STANDARD.decode(&self.envelope.payload).map_err(|_| malformed("its payload is no base64"))?;
        let [signature] = &self.envelope.signatures[..] else {
            return Err(malformed("it has not exactly one signature"));
        };
        let signature = STANDARD.decode(&signature.sig).map_err(|_| malformed("it is no base64"))?;
        let message = pre_authentication(&self.envelope.payload_type, &payload);
        let Some(key) = trusted.iter().find(|key| key.verifies(&message, &signature)) else {
            return Err(self.distrusted(trusted));
        };
        // Only now: until here it was anybody's text.
        if self.envelope.payload_type != PAYLOAD_TYPE {
            return Err(malformed(&format!("its payload is `{}`", shown(&self.envelope.payload_type))));
        }
        let statement: Statement =
            serde_json::from_slice(&payload).map_err(|e| malformed(&format!("its statement does not parse: {e}")))?;
        if statement.statement_type != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE {
            return Err(malformed(&format!("it states `{}`, which is no signature", shown(&statement.predicate_type))));
        }
        if !statement.subject.iter().any(|subject| subject.digest.sha256 == artifact.hex()) {
            let of = statement.subject.first().map_or("nothing", |subject| &subject.digest.sha256);
            return Err(Error::untrusted(format!(
                "the signature is of sha256:{}, not of this artifact, {artifact}",
                shown(of)
            ))
            .hint("the artifact was changed after it was signed, or the signature belongs to another: sign it again"));
        }
        Ok(Signer { key: key.fingerprint(), algorithm: key.algorithm() })
    }

    /// The key it claims to be by. Anybody can claim anything: for people who look before they verify.
    pub fn claims(&self) -> String {
        match self.hint.as_str() {
            "" => "an unnamed key".to_owned(),
            hint => format!("SHA256:{}", shown(hint.trim_end_matches('='))),
        }
    }

    /// Why no key fits. Which key signed is only what the bundle claims; it decides the words, not the verdict.
    fn distrusted(&self, trusted: &[PublicKey]) -> Error {
        if trusted.iter().any(|key| key.hint() == self.hint) {
            return Error::untrusted("the signature does not fit what it signs: it was tampered with")
                .hint("get the artifact and its signature again from where they were published");
        }
        let known: Vec<String> = trusted.iter().map(PublicKey::fingerprint).collect();
        Error::untrusted(format!("it is signed by {}, which is not trusted", self.claims()))
            .hint(format!("trusted: {}", if known.is_empty() { "no key".to_owned() } else { known.join(", ") }))
    }

    /// The signature as an artifact that refers to the one it signs, ready for a registry: manifest, config, layer.
    pub fn referrer(&self, subject: &Descriptor) -> ImageManifest {
        let annotations =
            [("dev.sigstore.bundle.content", "dsse-envelope"), ("dev.sigstore.bundle.predicateType", PREDICATE_TYPE)];
        ImageManifest {
            schema_version: 2,
            media_type: Some(oci::IMAGE_MANIFEST.to_owned()),
            artifact_type: Some(MEDIA_TYPE.to_owned()),
            config: Descriptor::of(oci::EMPTY, oci::EMPTY_BYTES),
            layers: vec![Descriptor::of(MEDIA_TYPE, &self.bytes)],
            subject: Some(Descriptor { annotations: Default::default(), ..subject.clone() }),
            annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }

    /// Where the bundle is, if this manifest is a signature of `subject`.
    pub fn layer_of(referrer: &ImageManifest, subject: &Digest) -> Option<Descriptor> {
        let kind = referrer.artifact_type.as_deref().unwrap_or_default();
        let about = referrer.subject.as_ref().is_some_and(|s| s.digest == *subject);
        match &referrer.layers[..] {
            [layer] if Self::is_type(kind) && about && layer.size <= BUNDLE_BYTES_MAX as u64 => Some(layer.clone()),
            _ => None,
        }
    }

    /// Whether this is the media type of a signature.
    pub fn is_type(media_type: &str) -> bool {
        media_type.starts_with(MEDIA_TYPE_PREFIX)
    }
}

/// Who signed the artifact with this digest, among the `trusted`; an error that says why if it is none of them.
pub fn signers(artifact: &Digest, bundles: &[Bundle], trusted: &[PublicKey]) -> Result<Vec<Signer>, Error> {
    let mut signers = Vec::new();
    let mut refused = None;
    for bundle in bundles.iter().take(SIGNATURES_MAX) {
        match bundle.verify(artifact, trusted) {
            Ok(signer) if !signers.contains(&signer) => signers.push(signer),
            Ok(_) => {}
            Err(error) => refused = Some(error),
        }
    }
    match (signers.is_empty(), refused) {
        (false, _) => Ok(signers),
        (true, Some(error)) => Err(Error { kind: Kind::Untrusted, ..error }),
        (true, None) => Err(Error::untrusted("it is not signed")
            .hint("px plugin sign signs it; px plugin keygen makes the keys for that")),
    }
}

/// What DSSE signs: type and payload with their lengths, so that neither can be taken for the other.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}
