//! A private certificate authority that lives as long as one `px up`: its key signs one certificate for Vizier and one for
//! each PEM, then is forgotten. Nothing else can ever be let in by it.
//!
//! Files, all 0600 in folders of 0700:
//! ```text
//! <dir>/ca.pem                  what both sides trust
//! <dir>/vizier.{pem,key}        Vizier
//! <dir>/agents/<id>.{pem,key}   one PEM each
//! ```

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use thiserror::Error;
use vizier_api::{AGENT_TLS_SUFFIX, VIZIER_TLS_NAME};

/// Longest agent id: one DNS label.
const AGENT_ID_MAX: usize = 63;
/// How long the certificates hold. A run of `px up` seldom lasts so long; one that does is restarted to get new ones.
const VALID_DAYS: i64 = 398;

/// Who shall own the files; only root can give them away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What one side of the link needs to prove who it is: paths of PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Certificates that are trusted.
    pub ca: PathBuf,
    /// Own certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Everything [`create`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pki {
    /// For `vizier::Config::agents`.
    pub vizier: Identity,
    /// One per agent id, in the order given, for `pem::agent::Config::vizier`.
    pub agents: Vec<(String, Identity)>,
}

/// Why no certificates could be made.
#[derive(Debug, Error)]
pub enum Error {
    /// An id that cannot stand in a certificate.
    #[error(
        "agent id {0:?} must be 1 to {AGENT_ID_MAX} lower case letters, digits and '-', and neither begin nor end with '-'"
    )]
    AgentId(String),
    /// A key or certificate could not be made.
    #[error("cannot make a certificate for {subject}")]
    Certificate {
        /// For whom.
        subject: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes a new authority, Vizier's certificate and one for each agent, and writes them under `dir`, replacing what was there.
///
/// Everything is made in folders of our own and given away at the end, innermost first: whoever owns a folder may put a link into
/// it, and what is then written or given away is another's.
pub fn create(dir: &Path, owner: Option<Owner>, agents: &[&str]) -> Result<Pki, Error> {
    if let Some(bad) = agents.iter().find(|id| !is_agent_id(id)) {
        return Err(Error::AgentId((*bad).to_owned()));
    }
    let authority = Authority::new()?;
    let folder = Folder { owner };
    folder.clear(dir)?;
    folder.make(dir)?;
    let agents_dir = dir.join("agents");
    folder.make(&agents_dir)?;

    let ca = dir.join("ca.pem");
    folder.write(&ca, &authority.pem)?;
    let write = |dir: &Path, stem: &str, leaf: &Leaf| {
        let (cert, key) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
        folder.write(&cert, &leaf.cert)?;
        folder.write(&key, &leaf.key)?;
        Ok(Identity { ca: ca.clone(), cert, key })
    };
    let vizier = write(dir, "vizier", &authority.issue(VIZIER_TLS_NAME, ExtendedKeyUsagePurpose::ServerAuth)?)?;
    let agents = agents
        .iter()
        .map(|id| {
            let leaf = authority.issue(&format!("{id}{AGENT_TLS_SUFFIX}"), ExtendedKeyUsagePurpose::ClientAuth)?;
            Ok(((*id).to_owned(), write(&agents_dir, id, &leaf)?))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let identities = agents.iter().map(|(_, identity)| identity).chain([&vizier]);
    let files = identities.flat_map(|identity| [&identity.cert, &identity.key]).chain([&ca]);
    for path in files.map(PathBuf::as_path).chain([agents_dir.as_path(), dir]) {
        folder.give(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
    }
    Ok(Pki { vizier, agents })
}

/// Whether `id` can name an agent: one DNS label in lower case.
pub fn is_agent_id(id: &str) -> bool {
    (1..=AGENT_ID_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !id.starts_with('-')
        && !id.ends_with('-')
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

struct Leaf {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Result<Self, Error> {
        let subject = "the authority";
        let key = key_for(subject)?;
        let mut params = params("Pyxis local authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(certificate(subject))?;
        Ok(Self { pem: cert.pem(), issuer: Issuer::new(params, key) })
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Result<Leaf, Error> {
        let key = key_for(name)?;
        let mut params = params(name);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().map_err(certificate(name))?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &self.issuer).map_err(certificate(name))?;
        Ok(Leaf { cert: cert.pem(), key: key.serialize_pem() })
    }
}

fn key_for(subject: &str) -> Result<KeyPair, Error> {
    KeyPair::generate().map_err(certificate(subject))
}

fn certificate(subject: &str) -> impl Fn(rcgen::Error) -> Error + '_ {
    move |source| Error::Certificate { subject: subject.to_owned(), source }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    // A clock that was set back by an hour must not lock everyone out.
    let hour = std::time::Duration::from_secs(3600);
    let now = std::time::SystemTime::now();
    params.not_before = (now - hour).into();
    params.not_after = (now + hour * 24 * VALID_DAYS as u32).into();
    params
}

struct Folder {
    owner: Option<Owner>,
}

impl Folder {
    /// Takes away what was there: it may belong to someone else.
    fn clear(&self, dir: &Path) -> Result<(), Error> {
        let cleared = match fs::symlink_metadata(dir) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(dir),
            Ok(_) => fs::remove_file(dir),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        };
        cleared.map_err(|source| Error::Write { path: dir.to_owned(), source })
    }

    /// A new folder; one that is there by now is not ours.
    fn make(&self, dir: &Path) -> Result<(), Error> {
        let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
        let made = above.map_or(Ok(()), |above| fs::DirBuilder::new().mode(0o700).recursive(true).create(above));
        made.and_then(|()| fs::DirBuilder::new().mode(0o700).create(dir))
            .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)))
            .map_err(|source| Error::Write { path: dir.to_owned(), source })
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())
        };
        write().map_err(|source| Error::Write { path: path.to_owned(), source })
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.owner {
            Some(Owner { uid, gid }) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn files_are_for_their_owner_alone_and_may_be_made_again() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("pki");
        let first = create(&dir, None, &["node-1", "node-2"]).unwrap();
        let ca = fs::read(&first.vizier.ca).unwrap();
        let second = create(&dir, None, &["node-1", "node-2"]).unwrap();
        assert_eq!(first, second);
        assert_ne!(ca, fs::read(&second.vizier.ca).unwrap(), "a new authority each time");
        for (path, mode) in [
            (&dir, 0o40700),
            (&dir.join("agents"), 0o40700),
            (&second.vizier.key, 0o100600),
            (&second.vizier.cert, 0o100600),
            (&second.agents[1].1.key, 0o100600),
        ] {
            assert_eq!(fs::metadata(path).unwrap().mode(), mode, "{}", path.display());
        }
        assert!(!dir.join("ca.key").exists());
    }

    #[test]
    fn a_link_that_the_owner_put_there_leads_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (temp.path().join("pki"), temp.path().join("elsewhere"));
        create(&dir, None, &["node-1"]).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::remove_dir_all(dir.join("agents")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.join("agents")).unwrap();
        let made = create(&dir, None, &["node-1"]).unwrap();
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "keys went where the link led");
        assert!(made.agents[0].1.key.is_file());

        fs::remove_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &dir).unwrap();
        create(&dir, None, &["node-1"]).unwrap();
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn all_of_it_is_the_owners_in_the_end() {
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("pki");
        let owner = Owner { uid: 65_534, gid: 65_534 };
        let made = create(&dir, Some(owner), &["node-1"]).unwrap();
        let agent = &made.agents[0].1;
        for path in [&dir, &dir.join("agents"), &made.vizier.ca, &made.vizier.key, &agent.cert, &agent.key] {
            let found = fs::metadata(path).unwrap();
            assert_eq!((found.uid(), found.gid()), (owner.uid, owner.gid), "{}", path.display());
        }
    }

    #[test]
    fn ids_that_are_no_label_are_refused_before_anything_is_written() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("pki");
        for id in ["", "Upper", "a.b", "../x", "-a", "a-", &"x".repeat(64)] {
            let error = create(&dir, None, &[id]).unwrap_err();
            assert!(matches!(error, Error::AgentId(_)), "{id}: {error}");
        }
        assert!(!dir.exists());
    }
}
