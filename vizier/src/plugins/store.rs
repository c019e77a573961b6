//! Installed plugins on disk: one redb file in Vizier's state folder. A change is one transaction, so that a Vizier that is
//! killed at any moment finds the plugin whole afterwards, or not at all.

use std::collections::BTreeSet;
use std::path::Path;

use plugins_artifact::{Artifact, Bundle, Digest, Version};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

/// Name of the file.
pub const FILE: &str = "plugins.redb";
/// Versions kept of one plugin: the enabled one and those before it, to go back to.
pub const VERSIONS_MAX: usize = 4;
/// Plugins. Each enabled script is kept compiled, 0.2 MiB for Rust and 35 for Python.
pub const PLUGINS_MAX: usize = 128;
/// Components together: what a state folder can be expected to have room for.
pub const BYTES_MAX: u64 = 2 << 30;
/// redb's own cache. Blobs are read once at the start.
const CACHE_BYTES: usize = 8 << 20;

/// By name and digest of the artifact.
const PLUGINS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("plugins");
/// Digest of the artifact that is enabled, by name.
const ENABLED: TableDefinition<&str, &str> = TableDefinition::new("enabled");
/// By digest.
const BLOBS: TableDefinition<&str, &[u8]> = TableDefinition::new("blobs");

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// redb, or the disk below it. Boxed: it is large, and rare.
    #[error("the store of plugins: {0}")]
    Database(Box<redb::Error>),
    /// What was read is not what was written.
    #[error("the store of plugins is damaged: {0}")]
    Damaged(String),
    /// A bound.
    #[error("{0}")]
    Full(String),
}

/// redb has an error for each kind of step, and one that holds them all.
macro_rules! from_redb {
    ($($step:ident),*) => {$(
        impl From<redb::$step> for Error {
            fn from(error: redb::$step) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

type Result<T> = std::result::Result<T, Error>;

/// What is kept of a version beside its blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: String,
    pub kind: String,
    pub description: String,
    pub image: Digest,
    pub config: Digest,
    pub component: Digest,
    pub component_bytes: u64,
    pub signatures: Vec<Digest>,
    pub installed_time_ns: i64,
}

/// A version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub enabled: bool,
    pub record: Record,
}

impl Entry {
    /// Its version; one that does not parse, which the store never took, is the oldest.
    pub fn version(&self) -> Option<Version> {
        Version::parse(&self.record.version).ok()
    }
}

/// The file.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the store in `dir`, or makes it.
    pub fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(dir.join(FILE))?;
        let write = database.begin_write()?;
        write.open_table(PLUGINS)?;
        write.open_table(ENABLED)?;
        write.open_table(BLOBS)?;
        write.commit()?;
        Ok(Self { database })
    }

    /// All versions, by name, the newest first.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let read = self.database.begin_read()?;
        let (plugins, enabled) = (read.open_table(PLUGINS)?, read.open_table(ENABLED)?);
        let mut entries = Vec::new();
        for row in plugins.iter()? {
            let (key, value) = row?;
            let (name, digest) = key.value();
            let enabled = enabled.get(name)?.is_some_and(|there| there.value() == digest);
            entries.push(Entry { name: name.to_owned(), enabled, record: record(value.value())? });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| b.version().cmp(&a.version())));
        Ok(entries)
    }

    /// A version's artifact and signatures, checked again as if they came from outside.
    pub fn artifact(&self, record: &Record) -> Result<(Artifact, Vec<Bundle>)> {
        let read = self.database.begin_read()?;
        let blobs = read.open_table(BLOBS)?;
        let blob = |digest: &Digest| -> Result<Vec<u8>> {
            let found = blobs.get(digest.as_str())?.ok_or_else(|| Error::Damaged(format!("{digest} is missing")))?;
            Ok(found.value().to_vec())
        };
        let damaged = |e: plugins_artifact::Error| Error::Damaged(e.message);
        let artifact = Artifact::from_parts(blob(&record.image)?, blob(&record.config)?, blob(&record.component)?);
        let artifact = artifact.map_err(damaged)?;
        if *artifact.digest() != record.image {
            return Err(Error::Damaged(format!("{} has the digest {}", record.image, artifact.digest())));
        }
        let signatures = record.signatures.iter().map(|digest| Bundle::parse(blob(digest)?).map_err(damaged));
        Ok((artifact, signatures.collect::<Result<_>>()?))
    }

    /// Adds a version and enables it. Other content of the same version goes; so do the oldest versions over
    /// [`VERSIONS_MAX`].
    pub fn put(&self, artifact: &Artifact, signatures: &[Bundle], now_ns: i64) -> Result<()> {
        let (name, digest) = (artifact.plugin().name.as_str(), artifact.digest().as_str());
        let signed: Vec<(Digest, &[u8])> =
            signatures.iter().map(|bundle| (Digest::of(bundle.to_bytes()), bundle.to_bytes())).collect();
        let record = Record {
            version: artifact.plugin().version.clone(),
            kind: kind(artifact),
            description: artifact.plugin().description.clone(),
            image: artifact.digest().clone(),
            config: artifact.config_descriptor().digest.clone(),
            component: artifact.component_descriptor().digest.clone(),
            component_bytes: artifact.component().len() as u64,
            signatures: signed.iter().map(|(digest, _)| digest.clone()).collect(),
            installed_time_ns: now_ns,
        };
        let write = self.database.begin_write()?;
        {
            let mut plugins = write.open_table(PLUGINS)?;
            let mut blobs = write.open_table(BLOBS)?;
            let others: Vec<Entry> =
                versions(&plugins, name)?.into_iter().filter(|e| e.record.image != record.image).collect();
            let mut kept = 0;
            for other in &others {
                // As many as fit beside the new one, the newest first.
                kept += 1;
                if other.record.version == record.version || kept >= VERSIONS_MAX {
                    plugins.remove((name, other.record.image.as_str()))?;
                }
            }
            let json = serde_json::to_vec(&record).expect("strings and numbers always serialise");
            plugins.insert((name, digest), json.as_slice())?;
            blobs.insert(digest, artifact.image())?;
            blobs.insert(record.config.as_str(), artifact.config())?;
            blobs.insert(record.component.as_str(), artifact.component())?;
            for (digest, bytes) in &signed {
                blobs.insert(digest.as_str(), *bytes)?;
            }
            write.open_table(ENABLED)?.insert(name, digest)?;
            sweep(&plugins, &mut blobs)?;
            within_bounds(&plugins)?;
        }
        Ok(write.commit()?)
    }

    /// Removes one version or all. Gives the removed ones, and enables the newest that is left if the enabled one went.
    pub fn remove(&self, name: &str, version: Option<&str>) -> Result<Vec<Entry>> {
        let write = self.database.begin_write()?;
        let gone;
        {
            let mut plugins = write.open_table(PLUGINS)?;
            let mut enabled = write.open_table(ENABLED)?;
            let now = enabled.get(name)?.map(|digest| digest.value().to_owned());
            let (out, left): (Vec<Entry>, Vec<Entry>) = versions(&plugins, name)?
                .into_iter()
                .partition(|entry| version.is_none_or(|version| entry.record.version == version));
            for entry in &out {
                plugins.remove((name, entry.record.image.as_str()))?;
            }
            match left.first() {
                None => drop(enabled.remove(name)?),
                Some(newest) if !left.iter().any(|entry| Some(entry.record.image.as_str()) == now.as_deref()) => {
                    enabled.insert(name, newest.record.image.as_str())?;
                }
                Some(_) => {}
            }
            sweep(&plugins, &mut write.open_table(BLOBS)?)?;
            gone = out;
        }
        write.commit()?;
        Ok(gone)
    }
}

/// As manifests write it.
fn kind(artifact: &Artifact) -> String {
    match serde_json::to_value(artifact.plugin().kind) {
        Ok(serde_json::Value::String(kind)) => kind,
        _ => "script".to_owned(),
    }
}

fn record(json: &[u8]) -> Result<Record> {
    serde_json::from_slice(json).map_err(|e| Error::Damaged(e.to_string()))
}

/// Versions of a plugin, the newest first.
fn versions(
    plugins: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    name: &str,
) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for row in plugins.range((name, "")..)? {
        let (key, value) = row?;
        if key.value().0 != name {
            break;
        }
        found.push(Entry { name: name.to_owned(), enabled: false, record: record(value.value())? });
    }
    found.sort_by_key(|entry| std::cmp::Reverse(entry.version()));
    Ok(found)
}

/// Drops blobs that no version needs any more; two versions may share one.
fn sweep(
    plugins: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    blobs: &mut redb::Table<'_, &'static str, &'static [u8]>,
) -> Result<()> {
    let mut needed = BTreeSet::new();
    for row in plugins.iter()? {
        let record = record(row?.1.value())?;
        needed.extend([record.image, record.config, record.component]);
        needed.extend(record.signatures);
    }
    let needed: BTreeSet<String> = needed.into_iter().map(String::from).collect();
    blobs.retain(|digest, _| needed.contains(digest))?;
    Ok(())
}

fn within_bounds(plugins: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>) -> Result<()> {
    let (mut names, mut bytes) = (BTreeSet::new(), 0);
    for row in plugins.iter()? {
        let (key, value) = row?;
        names.insert(key.value().0.to_owned());
        bytes += record(value.value())?.component_bytes;
    }
    if names.len() > PLUGINS_MAX {
        return Err(Error::Full(format!("{PLUGINS_MAX} plugins are installed already, which is the most")));
    }
    if bytes > BYTES_MAX {
        return Err(Error::Full(format!("the plugins would take {bytes} bytes, at most {BYTES_MAX} are kept")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
