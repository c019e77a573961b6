//! Plugins in OCI registries: the distribution API, as far as it is needed. What comes from it is checked by
//! `plugins_artifact`.
//!
//! Of our own, since the crates there are for it bring fifty others and features with which half of the tree is compiled anew,
//! and need it all again around them: bounds on what is read, and errors that say what to do.

mod challenge;
mod client;
mod credentials;
mod place;

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use plugins_artifact::oci::{self, Descriptor, ImageManifest, Index};
use plugins_artifact::{Artifact, BUNDLE_BYTES_MAX, Bundle, Digest, MANIFEST_BYTES_MAX, SIGNATURES_MAX, Version};
use serde::Deserialize;

use self::client::{Answer, Ask, Client};
use self::place::Place;
use crate::error::{Code, Error, Result};
use crate::output::text::sanitize;

/// Tags that are asked for at a time; a registry may give fewer.
const TAGS_PAGE: usize = 1_000;
/// Most tags that are looked through for the newest version.
const TAGS_MAX: usize = 20_000;
/// Largest index or page of tags; registries keep no manifest that is larger.
const LIST_BYTES_MAX: usize = 4 << 20;
/// Says that the registry keeps the list of what refers to a manifest.
const OCI_SUBJECT: &str = "oci-subject";

/// One plugin's place in a registry.
pub struct Registry {
    client: Client,
    place: Place,
}

/// How a registry is talked to.
#[derive(Debug, Clone, clap::Args)]
pub struct RegistryArgs {
    /// Talk to the registry by http; on this machine that is so anyway
    #[arg(long)]
    pub plain_http: bool,
}

impl Registry {
    /// The place that `reference` (`HOST/NAME`, `HOST/NAME:TAG`, `HOST/NAME@DIGEST`) names. Nothing is asked yet.
    pub fn at(reference: &str, args: &RegistryArgs) -> Result<Registry> {
        let place = Place::parse(reference).map_err(|why| {
            Error::usage(format!("`{reference}` is no reference: {why}"))
                .hint("write it as HOST/NAME:TAG, like registry.example.com/team/slow_posts:0.1.0")
        })?;
        let client = Client::new(&place, args.plain_http || place.on_loopback())?;
        Ok(Registry { client, place })
    }

    /// Stores an artifact and its signatures; the tag, if none was named, is its version. Gives the reference. A tag that
    /// holds something else is left alone unless `replace`: what somebody pulled by it yesterday is to be the same today.
    pub async fn push(&self, artifact: &Artifact, signatures: &[Bundle], replace: bool) -> Result<Pushed> {
        let place = match &self.place.version {
            Some(place::Version::Digest(digest)) => {
                return Err(Error::usage(format!("{digest} is a digest: what is pushed has its own"))
                    .hint("name a tag, or none for the version"));
            }
            Some(place::Version::Tag(_)) => self.place.clone(),
            None => self.place.at_tag(tag_of(artifact.plugin().version.as_str())),
        };
        self.client.will_write();
        let there = self.manifest(&place, oci::IMAGE_MANIFEST, MANIFEST_BYTES_MAX).await?;
        let there = there.map(|bytes| Digest::of(&bytes));
        let same = there.as_ref() == Some(artifact.digest());
        if let Some(other) = there.filter(|_| !same && !replace) {
            return Err(Error::new(Code::Invalid, format!("{place} is taken by another artifact, {other}"))
                .hint("raise the version in plugin.toml, name another tag, or put this in its place with --replace"));
        }
        if !same {
            for (descriptor, bytes) in [
                (artifact.component_descriptor(), artifact.component()),
                (artifact.config_descriptor(), artifact.config()),
            ] {
                self.put_blob(&descriptor.digest, bytes).await?;
            }
            self.put_manifest(&place, artifact.image(), oci::IMAGE_MANIFEST).await?;
        }
        for bundle in signatures {
            self.sign(artifact, bundle).await?;
        }
        Ok(Pushed { reference: place.to_string(), same })
    }

    /// Adds a signature of an artifact that is in the registry.
    pub async fn sign(&self, artifact: &Artifact, bundle: &Bundle) -> Result<()> {
        self.client.will_write();
        let referrer = bundle.referrer(artifact.descriptor());
        let bytes = referrer.to_bytes();
        let mut entry = Descriptor::of(oci::IMAGE_MANIFEST, &bytes);
        self.put_blob(&referrer.config.digest, oci::EMPTY_BYTES).await?;
        self.put_blob(&referrer.layers[0].digest, bundle.to_bytes()).await?;
        let answer = self.put_manifest(&self.place.at_digest(&entry.digest), &bytes, oci::IMAGE_MANIFEST).await?;
        if answer.headers.contains_key(OCI_SUBJECT) {
            return Ok(());
        }
        // A registry without the referrers API: then the list of what refers to a digest is an index under a tag that is made
        // of it, kept by whoever pushes.
        let list = self.list_of(artifact.digest());
        let mut index = self.index(&list).await?;
        if index.manifests.iter().any(|there| there.digest == entry.digest) {
            return Ok(());
        }
        entry.artifact_type = referrer.artifact_type;
        entry.annotations = referrer.annotations;
        index.manifests.push(entry);
        self.put_manifest(&list, &index.to_bytes(), oci::IMAGE_INDEX).await.map(drop)
    }

    /// Fetches the artifact and its signatures: that of the tag or digest, or the newest version.
    pub async fn pull(&self) -> Result<(Artifact, Vec<Bundle>)> {
        let place = match self.place.version {
            Some(_) => self.place.clone(),
            None => self.newest().await?,
        };
        let Some(image) = self.manifest(&place, oci::IMAGE_MANIFEST, MANIFEST_BYTES_MAX).await? else {
            return Err(Error::new(Code::NotFound, format!("{place} is not in the registry"))
                .hint("check the name and the tag; px plugin push puts it there"));
        };
        let [config, component] =
            ImageManifest::parse(&image).and_then(|image| Artifact::layers_of(&image)).map_err(refused)?;
        let config = self.blob("the config", &config).await?;
        let component = self.blob("the component", &component).await?;
        let artifact = Artifact::from_parts(image, config, component).map_err(refused)?;
        let signatures = self.signatures(artifact.digest()).await?;
        Ok((artifact, signatures))
    }

    /// Signatures of an artifact. Those that cannot be read count as none.
    async fn signatures(&self, artifact: &Digest) -> Result<Vec<Bundle>> {
        let mut found = Vec::new();
        for entry in self.referrers(artifact).await?.manifests {
            if !entry.artifact_type.as_deref().is_some_and(Bundle::is_type) {
                continue;
            }
            let place = self.place.at_digest(&entry.digest);
            let Ok(Some(bytes)) = self.manifest(&place, oci::IMAGE_MANIFEST, MANIFEST_BYTES_MAX).await else {
                continue;
            };
            let Ok(referrer) = ImageManifest::parse(&bytes) else { continue };
            let Some(layer) = Bundle::layer_of(&referrer, artifact) else { continue };
            let Ok(bytes) = self.blob("the signature", &layer).await else { continue };
            found.extend(Bundle::parse(bytes));
            if found.len() == SIGNATURES_MAX {
                break;
            }
        }
        Ok(found)
    }

    /// What refers to a manifest: by the API where the registry has it, else by the list that is kept under a tag.
    async fn referrers(&self, artifact: &Digest) -> Result<Index> {
        let mut ask = Ask::of(Method::GET, self.client.path(&format!("referrers/{artifact}")));
        (ask.accept, ask.bytes_max) = (oci::IMAGE_INDEX, LIST_BYTES_MAX);
        let answer = self.client.send(ask).await?;
        match answer.status {
            StatusCode::OK => Index::parse(&answer.body).map_err(refused),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST => {
                self.index(&self.list_of(artifact)).await
            }
            _ => Err(self.client.refused(&self.place, &answer)),
        }
    }

    fn list_of(&self, artifact: &Digest) -> Place {
        self.place.at_tag(artifact.as_str().replace(':', "-"))
    }

    /// An index; one that is not there is empty.
    async fn index(&self, place: &Place) -> Result<Index> {
        match self.manifest(place, oci::IMAGE_INDEX, LIST_BYTES_MAX).await? {
            Some(bytes) => Index::parse(&bytes).map_err(refused),
            None => Ok(Index::default()),
        }
    }

    /// The highest tag that is a version.
    async fn newest(&self) -> Result<Place> {
        #[derive(Deserialize)]
        struct Page {
            // Registries write null for none.
            tags: Option<Vec<String>>,
        }
        let mut tags: Vec<String> = Vec::new();
        loop {
            let last = tags.last().map(|tag| format!("&last={tag}")).unwrap_or_default();
            let mut ask = Ask::of(Method::GET, self.client.path(&format!("tags/list?n={TAGS_PAGE}{last}")));
            ask.bytes_max = LIST_BYTES_MAX;
            let answer = self.client.send(ask).await?;
            if answer.status != StatusCode::OK {
                return Err(self.client.refused(&self.place, &answer));
            }
            let page: Page = serde_json::from_slice(&answer.body).map_err(|e| {
                Error::new(Code::Invalid, format!("the registry {} lists no tags: {e}", self.place.host))
            })?;
            let before = tags.len();
            // Some are no tags at all; they would not be asked for by name either.
            let is_tag = |tag: &String| Place::parse(&format!("localhost/x:{tag}")).is_ok();
            tags.extend(page.tags.unwrap_or_default().into_iter().filter(is_tag));
            if !answer.headers.contains_key(http::header::LINK) || tags.len() == before {
                break;
            }
            if tags.len() > TAGS_MAX {
                return Err(Error::new(Code::Exhausted, format!("{} has more than {TAGS_MAX} tags", self.place))
                    .hint("name the one you want"));
            }
        }
        let versions = tags.iter().filter_map(|tag| Some((Version::parse(&tag.replace('_', "+")).ok()?, tag)));
        // One that is made for trying comes after all that are not.
        let newest = versions.max_by_key(|(version, _)| (!version.as_str().contains('-'), version.clone()));
        match newest {
            Some((_, tag)) => Ok(self.place.at_tag(tag)),
            None => {
                let shown: Vec<_> = tags.iter().take(20).map(|tag| sanitize(tag)).collect();
                let shown = if shown.is_empty() { "none".into() } else { shown.join(", ") };
                Err(Error::new(Code::NotFound, format!("{} has no version", self.place))
                    .hint(format!("its tags are {shown}; name one")))
            }
        }
    }

    /// A manifest; none if there is none. What was named by a digest has it.
    async fn manifest(&self, place: &Place, media_type: &str, bytes_max: usize) -> Result<Option<Vec<u8>>> {
        let mut ask = Ask::of(Method::GET, self.manifest_uri(place));
        (ask.accept, ask.bytes_max) = (media_type, bytes_max);
        let answer = self.client.send(ask).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.client.refused(place, &answer)),
        }
        if let Some(place::Version::Digest(digest)) = &place.version
            && *digest != Digest::of(&answer.body)
        {
            return Err(self.lies(&digest.to_string()));
        }
        Ok(Some(answer.body.to_vec()))
    }

    fn manifest_uri(&self, place: &Place) -> Uri {
        self.client.path(&format!("manifests/{}", place.reference()))
    }

    async fn put_manifest(&self, place: &Place, bytes: &[u8], media_type: &str) -> Result<Answer> {
        let mut ask = Ask::of(Method::PUT, self.manifest_uri(place));
        ask.content = Some((media_type, Bytes::copy_from_slice(bytes)));
        let answer = self.client.send(ask).await?;
        if !answer.status.is_success() {
            return Err(self.client.refused(place, &answer));
        }
        Ok(answer)
    }

    /// A blob, of the size and digest that were announced.
    async fn blob(&self, what: &str, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let mut ask = Ask::of(Method::GET, self.client.path(&format!("blobs/{}", descriptor.digest)));
        ask.bytes_max = usize::try_from(descriptor.size).unwrap_or(usize::MAX);
        let answer = self.client.send(ask).await?;
        if answer.status != StatusCode::OK {
            return Err(self.client.refused(&self.place.at_digest(&descriptor.digest), &answer));
        }
        descriptor.check(what, &answer.body).map_err(|e| self.lies(&e.message))?;
        Ok(answer.body.to_vec())
    }

    async fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let place = self.place.at_digest(digest);
        let there = self.client.send(Ask::of(Method::HEAD, self.client.path(&format!("blobs/{digest}")))).await?;
        match there.status {
            StatusCode::OK => return Ok(()),
            StatusCode::NOT_FOUND => {}
            _ => return Err(self.client.refused(&place, &there)),
        }
        let begun = self.client.send(Ask::of(Method::POST, self.client.path("blobs/uploads/"))).await?;
        if begun.status != StatusCode::ACCEPTED {
            return Err(self.client.refused(&place, &begun));
        }
        let to = self.client.location(&begun)?.to_string();
        let to = format!("{to}{}digest={digest}", if to.contains('?') { '&' } else { '?' });
        let to = to.parse().map_err(|e| Error::internal(format!("{to}: {e}")))?;
        let mut ask = Ask::of(Method::PUT, to);
        ask.content = Some(("application/octet-stream", Bytes::copy_from_slice(bytes)));
        let stored = self.client.send(ask).await?;
        if stored.status != StatusCode::CREATED {
            return Err(self.client.refused(&place, &stored));
        }
        Ok(())
    }

    fn lies(&self, about: &str) -> Error {
        Error::new(Code::Invalid, format!("the registry {} gave something else: {about}", self.place.host))
            .hint("do not trust this registry, or what is between it and you")
    }
}

/// What became of a push.
pub struct Pushed {
    /// Where it is.
    pub reference: String,
    /// It was there already.
    pub same: bool,
}

/// A tag may hold no `+`.
fn tag_of(version: &str) -> String {
    version.replace('+', "_")
}

/// What the artifact's crate says, said here.
pub fn refused(error: plugins_artifact::Error) -> Error {
    use plugins_artifact::Kind;
    let code = match error.kind {
        Kind::NotFound => Code::NotFound,
        Kind::Invalid => Code::Invalid,
        Kind::Untrusted => Code::Denied,
        Kind::Io => Code::Io,
    };
    Error::new(code, error.message).hint_some(error.hint)
}

const _: () = assert!(BUNDLE_BYTES_MAX <= MANIFEST_BYTES_MAX);
