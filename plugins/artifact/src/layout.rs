//! An OCI image layout: a folder with artifacts and their signatures, as other OCI tools read and write it too.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::artifact::{Artifact, MANIFEST_BYTES_MAX};
use crate::bundle::{Bundle, SIGNATURES_MAX};
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::oci::{self, Descriptor, ImageManifest, Index, shown};

const MARKER: &str = "oci-layout";
const MARKER_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";
/// What registries accept of an index, too.
const INDEX_BYTES_MAX: usize = 4 << 20;
/// The marker holds one short version.
const MARKER_BYTES_MAX: usize = 4 << 10;

/// A folder with artifacts.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Whether a folder says of itself that it is one.
    pub fn is_at(root: &Path) -> bool {
        root.join(MARKER).is_file()
    }

    /// The layout at `root`.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let text = read(&root.join(MARKER), MARKER_BYTES_MAX, "the layout's marker").map_err(|e| match e.kind {
            Kind::NotFound => Error::not_found(format!("{} is no OCI layout: it has no {MARKER}", root.display()))
                .hint("px plugin pack makes one"),
            _ => e,
        })?;
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let marker: Marker = serde_json::from_slice(&text)
            .map_err(|e| Error::invalid(format!("{} is malformed: {e}", root.join(MARKER).display())))?;
        if !marker.image_layout_version.starts_with("1.") {
            return Err(Error::invalid(format!(
                "the layout is of version {}, and 1 is known",
                shown(&marker.image_layout_version)
            )));
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The layout at `root`, made if there is nothing.
    pub fn create(root: &Path) -> Result<Self, Error> {
        if Self::is_at(root) {
            return Self::open(root);
        }
        if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::invalid(format!("{} is neither empty nor an OCI layout", root.display()))
                .hint("name a new folder"));
        }
        let layout = Self { root: root.to_owned() };
        layout.make(&root.join("blobs/sha256"))?;
        layout.put(INDEX, &Index::default().to_bytes())?;
        // Last: what has the marker is whole.
        layout.put(MARKER, MARKER_TEXT.as_bytes())?;
        Ok(layout)
    }

    /// Adds an artifact under a tag, which moves here if it was another's.
    pub fn write(&self, artifact: &Artifact, tag: &str) -> Result<(), Error> {
        for (digest, bytes) in [
            (&artifact.component_descriptor().digest, artifact.component()),
            (&artifact.config_descriptor().digest, artifact.config()),
            (artifact.digest(), artifact.image()),
        ] {
            self.put_blob(digest, bytes)?;
        }
        self.change(|index| {
            index.manifests.retain(|entry| tag_of(entry) != Some(tag));
            let mut entry = artifact.descriptor().clone();
            entry.annotations.insert(oci::REF_NAME.to_owned(), tag.to_owned());
            index.manifests.push(entry);
        })
    }

    /// The artifact with a tag or digest, or the only one there is.
    pub fn read(&self, reference: Option<&str>) -> Result<Artifact, Error> {
        let entry = self.find(reference)?;
        let image = self.blob(&entry, MANIFEST_BYTES_MAX, "the image manifest")?;
        let [config, component] = Artifact::layers_of(&ImageManifest::parse(&image)?)?;
        let max = |descriptor: &Descriptor| usize::try_from(descriptor.size).unwrap_or(usize::MAX);
        let config = self.blob(&config, max(&config), "the config")?;
        let component = self.blob(&component, max(&component), "the component")?;
        Artifact::from_parts(image, config, component)
    }

    /// Tags of the artifacts, in the order they were written.
    pub fn tags(&self) -> Result<Vec<String>, Error> {
        Ok(self.index()?.manifests.iter().filter_map(tag_of).map(str::to_owned).collect())
    }

    /// Adds a signature of an artifact that is here. One that is there already is left.
    pub fn attach(&self, artifact: &Artifact, bundle: &Bundle) -> Result<(), Error> {
        let referrer = bundle.referrer(artifact.descriptor());
        let bytes = referrer.to_bytes();
        self.put_blob(&referrer.layers[0].digest, bundle.to_bytes())?;
        self.put_blob(&referrer.config.digest, oci::EMPTY_BYTES)?;
        let mut entry = Descriptor::of(oci::IMAGE_MANIFEST, &bytes);
        self.put_blob(&entry.digest, &bytes)?;
        entry.artifact_type = referrer.artifact_type;
        entry.annotations = referrer.annotations;
        self.change(|index| {
            if !index.manifests.iter().any(|other| other.digest == entry.digest) {
                index.manifests.push(entry);
            }
        })
    }

    /// Signatures of the artifact with this digest. Those that cannot be read count as none; a signature proves something only
    /// once it is verified.
    pub fn signatures(&self, artifact: &Digest) -> Result<Vec<Bundle>, Error> {
        let index = self.index()?;
        let kinds = index.manifests.iter().filter(|entry| entry.artifact_type.as_deref().is_some_and(Bundle::is_type));
        let mut found = Vec::new();
        for entry in kinds {
            let Ok(bytes) = self.blob(entry, MANIFEST_BYTES_MAX, "a signature's manifest") else { continue };
            let Ok(referrer) = ImageManifest::parse(&bytes) else { continue };
            let Some(layer) = Bundle::layer_of(&referrer, artifact) else { continue };
            let bundle = self.blob(&layer, crate::bundle::BUNDLE_BYTES_MAX, "a signature").and_then(Bundle::parse);
            found.extend(bundle);
            if found.len() == SIGNATURES_MAX {
                break;
            }
        }
        Ok(found)
    }

    fn find(&self, reference: Option<&str>) -> Result<Descriptor, Error> {
        let index = self.index()?;
        let tagged: Vec<&Descriptor> = index.manifests.iter().filter(|entry| tag_of(entry).is_some()).collect();
        let there = || tagged.iter().filter_map(|entry| tag_of(entry)).map(shown).collect::<Vec<_>>().join(", ");
        let at = self.root.display();
        let Some(reference) = reference else {
            return match &tagged[..] {
                [one] => Ok((*one).clone()),
                [] => Err(Error::not_found(format!("the layout {at} is empty")).hint("px plugin pack fills it")),
                _ => Err(Error::invalid(format!("the layout {at} holds several artifacts")).hint(format!(
                    "name one of {}, as in oci:{at}:{}",
                    there(),
                    shown(tag_of(tagged[0]).unwrap_or_default())
                ))),
            };
        };
        let by_digest = |entry: &&Descriptor| entry.digest.as_str() == reference;
        let found = tagged.iter().find(|entry| tag_of(entry) == Some(reference));
        let found = found.copied().or_else(|| index.manifests.iter().find(by_digest));
        found.cloned().ok_or_else(|| {
            Error::not_found(format!("the layout {at} holds no `{}`", shown(reference)))
                .hint(format!("it holds {}", if tagged.is_empty() { "nothing".to_owned() } else { there() }))
        })
    }

    fn index(&self) -> Result<Index, Error> {
        Index::parse(&read(&self.root.join(INDEX), INDEX_BYTES_MAX, "the layout's index")?)
    }

    /// Changes the index while nobody else does.
    fn change(&self, change: impl FnOnce(&mut Index)) -> Result<(), Error> {
        let marker = self.root.join(MARKER);
        let locked = File::open(&marker).and_then(|file| file.lock().map(|()| file));
        let _locked = locked.map_err(|e| Error::io(format!("lock {}", marker.display()), &e))?;
        let mut index = self.index()?;
        change(&mut index);
        self.put(INDEX, &index.to_bytes())
    }

    fn blob(&self, descriptor: &Descriptor, max: usize, what: &str) -> Result<Vec<u8>, Error> {
        if descriptor.size > max as u64 {
            return Err(Error::invalid(format!("{what} has {} bytes, at most {max} are allowed", descriptor.size)));
        }
        let bytes = read(&self.root.join("blobs/sha256").join(descriptor.digest.hex()), max, what)?;
        descriptor.check(what, &bytes)?;
        Ok(bytes)
    }

    fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        self.put(&format!("blobs/sha256/{}", digest.hex()), bytes)
    }

    fn make(&self, folder: &Path) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(|e| Error::io(format!("make {}", folder.display()), &e))
    }

    /// Whole or not at all.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.root.join(name);
        let staged = path.with_extension(format!("tmp{}", std::process::id()));
        let write = || {
            let mut file = File::create(&staged)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&staged, &path)
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&staged);
            Error::io(format!("write {}", path.display()), &e)
        })
    }
}

fn tag_of(entry: &Descriptor) -> Option<&str> {
    // Signatures have no name of their own, whatever an index says.
    match entry.artifact_type {
        None => entry.annotations.get(oci::REF_NAME).map(String::as_str),
        Some(_) => None,
    }
}

/// A plain file of at most `max` bytes. Pipes and devices could block or never end.
fn read(path: &Path, max: usize, what: &str) -> Result<Vec<u8>, Error> {
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Error::not_found(format!("{what} is missing: there is no {}", path.display()))
            .hint("the layout is incomplete; pack or pull it again"),
        _ => Error::io(format!("read {}", path.display()), &e),
    };
    let found = fs::symlink_metadata(path).map_err(io)?;
    if !found.is_file() {
        return Err(Error::invalid(format!("{} is no plain file", path.display())));
    }
    if found.len() > max as u64 {
        return Err(Error::invalid(format!("{what} has {} bytes, at most {max} are allowed", found.len())));
    }
    let mut bytes = Vec::with_capacity(found.len() as usize);
    File::open(path).map_err(io)?.take(max as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > max {
        return Err(Error::invalid(format!("{what} has more than {max} bytes")));
    }
    Ok(bytes)
}
