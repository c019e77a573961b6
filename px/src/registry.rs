//! Plugins in OCI registries: the network around `plugins_artifact`, which checks all that comes from it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use plugins_artifact::oci::{self, Descriptor, ImageManifest, Index};
use plugins_artifact::{Artifact, BUNDLE_BYTES_MAX, Bundle, Digest, MANIFEST_BYTES_MAX, SIGNATURES_MAX, Version};
use serde::Deserialize;
use tokio::io::AsyncWrite;

use crate::error::{Code, Error, Result};

/// A registry that is there takes the connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A registry may store a blob before it answers; one that says nothing for this long is gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest credentials file: a few hundred registries.
const CREDENTIALS_BYTES_MAX: u64 = 1 << 20;
/// Most tags that are looked through for the newest version.
const TAGS_MAX: usize = 1_000;

/// One plugin's place in a registry.
pub struct Registry {
    client: Client,
    auth: RegistryAuth,
    place: Reference,
    /// A tag or digest was named.
    exact: bool,
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
        let wrong = |why: String| {
            Error::usage(format!("`{reference}` is no reference: {why}"))
                .hint("write it as HOST/NAME:TAG, like registry.example.com/team/slow_posts:0.1.0")
        };
        let Some((host, rest)) = reference.split_once('/') else {
            return Err(wrong("it names no registry".into()));
        };
        // Docker would take a name without a registry to its own; that is nobody's wish here.
        if !host.contains(['.', ':']) && host != "localhost" {
            return Err(wrong(format!("`{host}` is no host")));
        }
        let place: Reference = reference.parse().map_err(|e| wrong(format!("{e}")))?;
        let plain = args.plain_http || on_loopback(host);
        // The one set of ciphers that this program has. Set already is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            platform_resolver: None,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("px/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|e| Error::internal(format!("no HTTP client: {e}")))?;
        let exact = rest.contains([':', '@']);
        Ok(Registry { client, auth: credentials(host)?, place, exact })
    }

    /// The same place at a tag; one that was named stays.
    fn or_tag(&self, tag: &str) -> Reference {
        match self.exact {
            true => self.place.clone(),
            false => Reference::with_tag(self.place.registry().into(), self.place.repository().into(), tag.into()),
        }
    }

    fn by_digest(&self, digest: &Digest) -> Reference {
        Reference::with_digest(self.place.registry().into(), self.place.repository().into(), digest.to_string())
    }

    /// Stores an artifact and its signatures; the tag, if none was named, is its version. Gives the reference. A tag that
    /// holds something else is left alone unless `replace`: what somebody pulled by it yesterday is to be the same today.
    pub async fn push(&self, artifact: &Artifact, signatures: &[Bundle], replace: bool) -> Result<Pushed> {
        let place = self.or_tag(&tag_of(artifact.plugin().version.as_str()));
        if let Some(digest) = place.digest() {
            return Err(Error::usage(format!("{digest} is a digest: what is pushed has its own"))
                .hint("name a tag, or none for the version"));
        }
        self.client
            .auth(&place, &self.auth, RegistryOperation::Push)
            .await
            .map_err(|e| self.failed("sign in to", e))?;
        let there = match self.client.fetch_manifest_digest(&place, &self.auth).await {
            Ok(digest) => Some(digest),
            Err(e) if absent(&e) => None,
            Err(e) => return Err(self.failed("ask", e)),
        };
        let same = there.as_deref() == Some(artifact.digest().as_str());
        if let Some(other) = there.filter(|_| !same && !replace) {
            return Err(Error::new(Code::Invalid, format!("{place} is taken by another artifact, {other}"))
                .hint("raise the version in plugin.toml, name another tag, or put this in its place with --replace"));
        }
        if !same {
            for (descriptor, bytes) in [
                (artifact.component_descriptor(), artifact.component()),
                (artifact.config_descriptor(), artifact.config()),
            ] {
                self.blob(&place, &descriptor.digest, bytes).await?;
            }
            self.manifest(&place, artifact.image(), oci::IMAGE_MANIFEST).await?;
        }
        for bundle in signatures {
            self.sign(artifact, bundle).await?;
        }
        Ok(Pushed { reference: place.to_string(), same })
    }

    /// Adds a signature of an artifact that is in the registry.
    pub async fn sign(&self, artifact: &Artifact, bundle: &Bundle) -> Result<()> {
        self.client
            .auth(&self.place, &self.auth, RegistryOperation::Push)
            .await
            .map_err(|e| self.failed("sign in to", e))?;
        let referrer = bundle.referrer(artifact.descriptor());
        let bytes = referrer.to_bytes();
        let mut entry = Descriptor::of(oci::IMAGE_MANIFEST, &bytes);
        self.blob(&self.place, &referrer.config.digest, oci::EMPTY_BYTES).await?;
        self.blob(&self.place, &referrer.layers[0].digest, bundle.to_bytes()).await?;
        self.manifest(&self.by_digest(&entry.digest), &bytes, oci::IMAGE_MANIFEST).await?;
        if self.knows(artifact.digest(), &entry.digest).await? {
            return Ok(());
        }
        // A registry without the referrers API: then the list of what refers to a digest is an index under a tag that is made
        // of it, kept by whoever pushes.
        let tag = artifact.digest().as_str().replace(':', "-");
        let list = Reference::with_tag(self.place.registry().into(), self.place.repository().into(), tag);
        let mut index = match self.client.pull_manifest_raw(&list, &self.auth, &[oci::IMAGE_INDEX]).await {
            Ok((bytes, _)) => Index::parse(&bytes).map_err(refused)?,
            Err(e) if absent(&e) => Index::default(),
            Err(e) => return Err(self.failed("ask", e)),
        };
        entry.artifact_type = referrer.artifact_type;
        entry.annotations = referrer.annotations;
        index.manifests.push(entry);
        self.manifest(&list, &index.to_bytes(), oci::IMAGE_INDEX).await
    }

    /// Fetches the artifact and its signatures: that of the tag or digest, or the newest version.
    pub async fn pull(&self) -> Result<(Artifact, Vec<Bundle>)> {
        let place = match self.exact {
            true => self.place.clone(),
            false => self.newest().await?,
        };
        let (image, _) = self
            .client
            .pull_manifest_raw(&place, &self.auth, &[oci::IMAGE_MANIFEST])
            .await
            .map_err(|e| self.failed("ask", e))?;
        if image.len() > MANIFEST_BYTES_MAX {
            return Err(Error::new(
                Code::Invalid,
                format!("{place} is no plugin: its manifest has {} bytes", image.len()),
            ));
        }
        if let Some(digest) = place.digest().filter(|digest| *digest != Digest::of(&image).as_str()) {
            return Err(Error::new(Code::Invalid, format!("the registry gave something else for {digest}"))
                .hint("do not trust this registry, or what is between it and you"));
        }
        let [config, component] =
            ImageManifest::parse(&image).and_then(|image| Artifact::layers_of(&image)).map_err(refused)?;
        let config = self.fetch(&place, &config).await?;
        let component = self.fetch(&place, &component).await?;
        let artifact = Artifact::from_parts(image.to_vec(), config, component).map_err(refused)?;
        let signatures = self.signatures(artifact.digest()).await?;
        Ok((artifact, signatures))
    }

    /// Signatures of an artifact. Those that cannot be read count as none.
    async fn signatures(&self, artifact: &Digest) -> Result<Vec<Bundle>> {
        let referrers =
            self.client.pull_referrers(&self.by_digest(artifact), None).await.map_err(|e| self.failed("ask", e))?;
        let mut found = Vec::new();
        for entry in referrers.manifests {
            let signs = entry.artifact_type.as_deref().is_some_and(Bundle::is_type);
            let Some(digest) = Digest::parse(&entry.digest).ok().filter(|_| signs) else { continue };
            let place = self.by_digest(&digest);
            let Ok((bytes, _)) = self.client.pull_manifest_raw(&place, &self.auth, &[oci::IMAGE_MANIFEST]).await else {
                continue;
            };
            let Ok(referrer) = ImageManifest::parse(&bytes) else { continue };
            let Some(layer) = Bundle::layer_of(&referrer, artifact) else { continue };
            let Ok(bytes) = self.fetch(&place, &layer).await else { continue };
            found.extend(Bundle::parse(bytes));
            if found.len() == SIGNATURES_MAX {
                break;
            }
        }
        Ok(found)
    }

    async fn knows(&self, artifact: &Digest, referrer: &Digest) -> Result<bool> {
        let place = self.by_digest(artifact);
        let referrers = self.client.pull_referrers(&place, None).await.map_err(|e| self.failed("ask", e))?;
        Ok(referrers.manifests.iter().any(|entry| entry.digest == referrer.as_str()))
    }

    /// The highest tag that is a version.
    async fn newest(&self) -> Result<Reference> {
        let tags = self
            .client
            .list_tags(&self.place, &self.auth, Some(TAGS_MAX), None)
            .await
            .map_err(|e| self.failed("ask", e))?
            .tags;
        let versions = tags.iter().filter_map(|tag| Some((Version::parse(&tag.replace('_', "+")).ok()?, tag)));
        // One that is made for trying comes after all that are not.
        let newest = versions.max_by_key(|(version, _)| (!version.as_str().contains('-'), version.clone()));
        let (registry, name) = (self.place.registry(), self.place.repository());
        let Some((_, tag)) = newest else {
            return Err(Error::new(Code::NotFound, format!("{registry}/{name} has no version")).hint(format!(
                "its tags are {}; name one",
                if tags.is_empty() { "none".into() } else { tags.join(", ") }
            )));
        };
        Ok(Reference::with_tag(registry.into(), name.into(), tag.clone()))
    }

    async fn blob(&self, place: &Reference, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.client.blob_exists(place, digest.as_str()).await.map_err(|e| self.failed("ask", e))? {
            return Ok(());
        }
        let pushed = self.client.push_blob(place, bytes.to_vec(), digest.as_str()).await;
        pushed.map(drop).map_err(|e| self.failed("push to", e))
    }

    async fn manifest(&self, place: &Reference, bytes: &[u8], media_type: &'static str) -> Result<()> {
        let pushed = self.client.push_manifest_raw(place, bytes.to_vec(), HeaderValue::from_static(media_type)).await;
        pushed.map(drop).map_err(|e| self.failed("push to", e))
    }

    /// A blob, of the size and digest that were announced.
    async fn fetch(&self, place: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let mut bytes = Bounded { bytes: Vec::new(), max: usize::try_from(descriptor.size).unwrap_or(usize::MAX) };
        let wanted = OciDescriptor {
            digest: descriptor.digest.to_string(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            media_type: descriptor.media_type.clone(),
            ..OciDescriptor::default()
        };
        self.client.pull_blob(place, &wanted, &mut bytes).await.map_err(|e| self.failed("pull from", e))?;
        Ok(bytes.bytes)
    }

    fn failed(&self, doing: &str, error: OciDistributionError) -> Error {
        use OciDistributionError as E;
        let host = self.place.registry();
        match &error {
            E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => self.denied(),
            E::ServerError { code: 401 | 403, .. } => self.denied(),
            E::RegistryError { envelope, .. }
                if envelope
                    .errors
                    .iter()
                    .any(|e| matches!(e.code, OciErrorCode::Unauthorized | OciErrorCode::Denied)) =>
            {
                self.denied()
            }
            _ if absent(&error) => Error::new(Code::NotFound, format!("{} is not in the registry", self.place))
                .hint("check the name and the tag; px plugin push puts it there"),
            E::RequestError(source) if source.is_connect() || source.is_timeout() => {
                let why = innermost(source);
                let hint = match why.contains("InvalidContentType") || why.contains("corrupt message") {
                    true => "it speaks http: add --plain-http if that is what you want",
                    false => "check the host and port, and whether the registry runs",
                };
                Error::new(Code::Unavailable, format!("no registry answers at {host}: {why}")).hint(hint)
            }
            E::RequestError(source) => {
                Error::new(Code::Unavailable, format!("cannot {doing} {host}: {}", innermost(source)))
            }
            E::DigestError(_) => Error::new(Code::Invalid, format!("the registry {host} gave something else: {error}"))
                .hint("do not trust this registry, or what is between it and you"),
            _ => Error::new(Code::Unavailable, format!("cannot {doing} {host}: {error}")),
        }
    }

    fn denied(&self) -> Error {
        let host = self.place.registry();
        let who = if self.auth == RegistryAuth::Anonymous { "without credentials" } else { "with these credentials" };
        Error::new(Code::Denied, format!("the registry {host} does not allow it {who}")).hint(format!(
            "set PX_REGISTRY_USER and PX_REGISTRY_PASSWORD, or sign in with a tool that writes ~/.docker/config.json:\n\
             docker login {host}"
        ))
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

fn on_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn absent(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.iter().any(|error| {
            matches!(
                error.code,
                OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::NotFound
                    | OciErrorCode::BlobUnknown
            )
        }),
        _ => false,
    }
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

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<io::Error>() {
        Some(source) => crate::error::plain(source),
        None => innermost.to_string(),
    }
}

/// Who we are to a registry: the environment's word, or what `docker login` and its like left.
fn credentials(host: &str) -> Result<RegistryAuth> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let (Some(user), Some(password)) = (variable("PX_REGISTRY_USER"), variable("PX_REGISTRY_PASSWORD")) {
        return Ok(RegistryAuth::Basic(user, password));
    }
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from);
    let docker = docker.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".docker")));
    let Some(path) = variable("REGISTRY_AUTH_FILE").map(PathBuf::from).or(docker.map(|dir| dir.join("config.json")))
    else {
        return Ok(RegistryAuth::Anonymous);
    };
    let Ok(found) = std::fs::metadata(&path) else { return Ok(RegistryAuth::Anonymous) };
    if found.len() > CREDENTIALS_BYTES_MAX {
        return Err(Error::new(Code::Invalid, format!("{} is too large for a file of credentials", path.display())));
    }
    let text = std::fs::read(&path).map_err(|e| Error::io(format!("read {}", path.display()), &e))?;
    from_file(&text, host).map_err(|why| Error::new(Code::Invalid, format!("{}: {why}", path.display())))
}

fn from_file(text: &[u8], host: &str) -> std::result::Result<RegistryAuth, String> {
    use base64::Engine as _;
    #[derive(Deserialize, Default)]
    struct File {
        #[serde(default)]
        auths: std::collections::BTreeMap<String, Auth>,
    }
    #[derive(Deserialize, Default)]
    struct Auth {
        #[serde(default)]
        auth: String,
    }
    let file: File = serde_json::from_slice(text).map_err(|e| format!("malformed: {e}"))?;
    let entry = file.auths.iter().find(|(name, _)| {
        let name = name.trim_start_matches("https://").trim_start_matches("http://");
        name.split('/').next() == Some(host)
    });
    let Some(auth) = entry.map(|(_, entry)| &entry.auth).filter(|auth| !auth.is_empty()) else {
        return Ok(RegistryAuth::Anonymous);
    };
    let decoded = base64::engine::general_purpose::STANDARD.decode(auth).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => Ok(RegistryAuth::Basic(user.into(), password.trim_end_matches('\0').into())),
        None => Err(format!("the entry for {host} is damaged")),
    }
}

/// Takes so many bytes and no more.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.bytes.len() + bytes.len() > self.max {
            return Poll::Ready(Err(io::Error::other("the registry sends more than it announced")));
        }
        self.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

const _: () = assert!(BUNDLE_BYTES_MAX <= MANIFEST_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(reference: &str) -> Result<Registry> {
        Registry::at(reference, &RegistryArgs { plain_http: false })
    }

    #[test]
    fn references_name_their_registry() {
        for wrong in
            ["slow_posts", "slow_posts:0.1.0", "team/slow_posts", "host.example/UPPER", "host.example/a:b:c", "/x"]
        {
            let error = at(wrong).err().unwrap_or_else(|| panic!("{wrong} was taken"));
            assert!(error.hint.unwrap().contains("HOST/NAME:TAG"), "{wrong}");
        }
        let place = at("localhost:5000/team/slow_posts").unwrap();
        assert!(!place.exact);
        assert_eq!(place.or_tag("0.1.0").to_string(), "localhost:5000/team/slow_posts:0.1.0");
        assert_eq!(at("host.example/a:7").unwrap().or_tag("0.1.0").tag(), Some("7"));
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        for (host, local) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("localhost.example:5000", false),
            ("127.0.0.1.example", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(on_loopback(host), local, "{host}");
        }
    }

    #[test]
    fn credentials_are_those_of_the_host() {
        let file = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"eDp5"},"host.example:5000":{"auth":"bWU6c2VjcmV0"}},"credsStore":"x"}"#;
        assert_eq!(from_file(file, "host.example:5000"), Ok(RegistryAuth::Basic("me".into(), "secret".into())));
        assert_eq!(from_file(file, "index.docker.io"), Ok(RegistryAuth::Basic("x".into(), "y".into())));
        assert_eq!(from_file(file, "host.example"), Ok(RegistryAuth::Anonymous));
        assert!(from_file(b"{", "x").is_err());
        assert!(from_file(br#"{"auths":{"x":{"auth":"%"}}}"#, "x").unwrap_err().contains("damaged"));
    }
}
