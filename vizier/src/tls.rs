//! Vizier's side of the mutual TLS that PEMs dial.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use thiserror::Error;
use vizier_api::AGENT_TLS_SUFFIX;

use crate::pki;

/// Why a TLS side could not be set up.
#[derive(Debug, Error)]
pub enum Error {
    /// A file with certificates or a key could not be used.
    #[error("cannot read {} from {}: {reason}", what, path.display())]
    File {
        /// Certificate, key or authority.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The files do not fit one another.
    #[error("the certificate, key and authority do not fit together")]
    Config(#[source] rustls::Error),
    /// The authority cannot verify anyone.
    #[error("no agent can be verified")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// TLS 1.3 alone, a client certificate of our authority demanded.
pub fn server(identity: &pki::Identity) -> Result<Arc<rustls::ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for cert in certificates("authority", &identity.ca)? {
        roots.add(cert).map_err(Error::Config)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(Error::Verifier)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::Config)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates("certificate", &identity.cert)?, key(&identity.key)?)
        .map_err(Error::Config)?;
    // Links last for days: there is nothing to resume, and tickets would outlive a certificate.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The agent id that a verified client certificate names.
pub fn agent_id(certificates: &[CertificateDer<'_>]) -> Option<String> {
    let leaf = webpki::EndEntityCert::try_from(certificates.first()?).ok()?;
    let mut names = leaf.valid_dns_names().filter_map(|name| name.strip_suffix(AGENT_TLS_SUFFIX));
    let id = names.next().filter(|id| pki::is_agent_id(id))?.to_owned();
    // A certificate for two agents would let either speak for the other.
    names.next().is_none().then_some(id)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fail = |reason: String| Error::File { what, path: path.to_owned(), reason };
    let certs: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| fail(reason(&e)))?;
    if certs.is_empty() { Err(fail("it holds no certificate".into())) } else { Ok(certs) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| Error::File {
        what: "key",
        path: path.to_owned(),
        reason: reason(&e),
    })
}

fn reason(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            format!("{e}; it must be readable for the user Vizier runs as")
        }
        other => other.to_string(),
    }
}
