//! Keys that sign plugins, and keys that such signatures are checked with. They are files on the author's and the operator's
//! machine; nothing is asked of a service.

use std::fmt;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::pem;

const PUBLIC: &str = "PUBLIC KEY";
const PRIVATE: &str = "PRIVATE KEY";

/// What stands before the key itself in a SubjectPublicKeyInfo (RFC 8410, RFC 5480). Both are of one length always, so
/// there is nothing to parse.
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const ED25519_BYTES: usize = 32;
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P256_BYTES: usize = 65;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Ed25519,
    EcdsaP256,
}

/// A key that signatures are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    /// SubjectPublicKeyInfo.
    spki: Vec<u8>,
}

impl PublicKey {
    /// From a PEM block `PUBLIC KEY`: Ed25519 or ECDSA over P-256.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let (label, der) = pem::decode(text)?;
        if label.ends_with(PRIVATE) {
            return Err(Error::invalid("this is a private key, and a public one is wanted")
                .hint("give the .pub file; px plugin keygen wrote it beside the .key file"));
        }
        if label != PUBLIC {
            return Err(Error::invalid(format!("this is a {label}, not a public key")));
        }
        Self::from_spki(der)
    }

    /// From a file with the same.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = read(path)?;
        Self::from_pem(&text).map_err(|e| Error { message: format!("{}: {}", path.display(), e.message), ..e })
    }

    fn from_spki(spki: Vec<u8>) -> Result<Self, Error> {
        let is = |prefix: &[u8], bytes: usize| spki.starts_with(prefix) && spki.len() == prefix.len() + bytes;
        let algorithm = if is(ED25519_SPKI, ED25519_BYTES) {
            Algorithm::Ed25519
        } else if is(P256_SPKI, P256_BYTES) {
            Algorithm::EcdsaP256
        } else {
            return Err(Error::invalid("the key is neither Ed25519 nor ECDSA over P-256")
                .hint("px plugin keygen makes an Ed25519 pair; openssl genpkey -algorithm ed25519 does too"));
        };
        Ok(Self { algorithm, spki })
    }

    /// PEM.
    pub fn to_pem(&self) -> String {
        pem::encode(PUBLIC, &self.spki)
    }

    /// How people name it: `SHA256:<base64>`, as ssh writes fingerprints.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&self.spki)))
    }

    /// How a signature names it: what Sigstore's tools use as the hint of a key.
    pub(crate) fn hint(&self) -> String {
        STANDARD.encode(Sha256::digest(&self.spki))
    }

    /// `ed25519` or `ecdsa-p256`.
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Ed25519 => "ed25519",
            Algorithm::EcdsaP256 => "ecdsa-p256",
        }
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, &self.spki[ED25519_SPKI.len()..]).verify(message, signature).is_ok()
            }
            Algorithm::EcdsaP256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.spki[P256_SPKI.len()..])
                .verify(message, signature)
                .is_ok(),
        }
    }
}

/// A key that signs.
pub struct SigningKey {
    pair: Pair,
    /// PKCS #8.
    der: Vec<u8>,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key itself.
        f.debug_struct("SigningKey").field("public", &self.public().fingerprint()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new Ed25519 key.
    pub fn generate() -> Result<Self, Error> {
        // Version 1 of the format: OpenSSL reads no other.
        let document = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new())
            .map_err(|_| Error::invalid("the system gave no random numbers"))?;
        Self::from_der(document.as_ref().to_vec())
    }

    /// From a PEM block `PRIVATE KEY` (PKCS #8): Ed25519 or ECDSA over P-256.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let (label, der) = pem::decode(text)?;
        match label {
            PRIVATE => Self::from_der(der),
            PUBLIC => {
                Err(Error::invalid("this is a public key, and a private one is wanted").hint("give the .key file"))
            }
            label if label.contains("ENCRYPTED") => Err(Error::invalid("the key is encrypted, which is not supported")
                .hint("decrypt it with openssl pkey, or make one with px plugin keygen")),
            label => Err(Error::invalid(format!("this is a {label}, not a key in PKCS #8"))
                .hint("openssl pkcs8 -topk8 -nocrypt converts it")),
        }
    }

    /// From a file with the same, which nobody but its owner may read.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path)
            .map_err(|e| Error::io(format!("read {}", path.display()), &e))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(Error::invalid(format!(
                "{} is readable by others: a key that others have is none",
                path.display()
            ))
            .hint(format!("chmod 600 {}; if it has been so for long, make a new key", path.display())));
        }
        let text = read(path)?;
        Self::from_pem(&text).map_err(|e| Error { message: format!("{}: {}", path.display(), e.message), ..e })
    }

    fn from_der(der: Vec<u8>) -> Result<Self, Error> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            return Ok(Self { pair: Pair::Ed25519(pair), der });
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der) {
            return Ok(Self { pair: Pair::EcdsaP256(pair), der });
        }
        Err(Error::invalid("the key is neither Ed25519 nor ECDSA over P-256")
            .hint("px plugin keygen makes an Ed25519 pair"))
    }

    /// PEM. Keep it where only its owner can read.
    pub fn to_pem(&self) -> String {
        pem::encode(PRIVATE, &self.der)
    }

    /// The key that its signatures are checked with.
    pub fn public(&self) -> PublicKey {
        let (algorithm, prefix, key) = match &self.pair {
            Pair::Ed25519(pair) => (Algorithm::Ed25519, ED25519_SPKI, pair.public_key().as_ref()),
            Pair::EcdsaP256(pair) => (Algorithm::EcdsaP256, P256_SPKI, pair.public_key().as_ref()),
        };
        PublicKey { algorithm, spki: [prefix, key].concat() }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::EcdsaP256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| Error::invalid("the key does not sign")),
        }
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let io = |e| Error::io(format!("read {}", path.display()), &e);
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes > pem::BYTES_MAX as u64 {
        return Err(Error::invalid(format!("{} has {bytes} bytes and is no key", path.display())));
    }
    std::fs::read_to_string(path).map_err(io)
}
