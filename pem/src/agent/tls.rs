//! The agent's side of the mutual TLS to Vizier.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// Files of an agent, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authority that Vizier's certificate must be from.
    pub ca: PathBuf,
    /// This agent's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum Error {
    /// A file could not be used.
    #[error("cannot read the {what} from {}: {reason}", path.display())]
    File {
        /// Certificate, key or authority.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The files do not fit one another.
    #[error("the agent's certificate, key and authority do not fit together")]
    Config(#[source] rustls::Error),
}

/// TLS 1.3 alone, with our certificate shown.
pub fn client(files: &TlsFiles) -> Result<Arc<rustls::ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    for cert in certificates("authority", &files.ca)? {
        roots.add(cert).map_err(Error::Config)?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| Error::File {
        what: "key",
        path: files.key.clone(),
        reason: e.to_string(),
    })?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::Config)?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates("certificate", &files.cert)?, key)
        .map_err(Error::Config)?;
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fail = |reason: String| Error::File { what, path: path.to_owned(), reason };
    let certs: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| fail(e.to_string()))?;
    if certs.is_empty() { Err(fail("it holds no certificate".into())) } else { Ok(certs) }
}
