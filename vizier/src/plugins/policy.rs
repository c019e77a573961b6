//! Whose plugins may be installed.

use plugins_artifact::{Bundle, Digest, Error, PublicKey, Signer, signers};

/// With trusted keys, each plugin must be signed with one of them; without, none has to be. Checked when one is installed, and
/// again when it is read from the store: a key that is no longer trusted takes its plugins with it.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The keys.
    pub trusted: Vec<PublicKey>,
}

impl Policy {
    /// Who of the trusted signed this artifact; an error if it must be signed and is not.
    pub fn check(&self, artifact: &Digest, signatures: &[Bundle]) -> Result<Vec<Signer>, Error> {
        if self.trusted.is_empty() {
            return Ok(Vec::new());
        }
        signers(artifact, signatures, &self.trusted)
    }
}
