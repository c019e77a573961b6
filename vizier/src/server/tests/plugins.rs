//! Installing, running, removing plugins, over real gRPC with a real store. The bundled scripts must have been built
//! (`cargo xtask guests`): one of them, under other names and versions, is the plugin.

use std::path::Path;

use host_manifest::{Manifest, section};
use plugins_artifact::{Artifact, Bundle, PublicKey, SigningKey};
use tonic::Code as Grpc;
use tonic::transport::Channel;
use vizier_api::client::VizierClient;
use vizier_api::execute_request::What;
use vizier_api::install_plugin_response::Outcome;
use vizier_api::status::Code;
use vizier_api::{
    ExecuteRequest, InstallPluginRequest, InstallPluginResponse, ListPluginsRequest, ListScriptsRequest, Plugin,
    RemovePluginRequest,
};

use super::harness::{self, Harness, hint};
use super::scripts::plugins;

/// A script that runs anywhere, with another name and version. `flavour` makes other content of the same version.
fn artifact(name: &str, version: &str, flavour: &str) -> Option<Artifact> {
    let component = std::fs::read(plugins()?.join("agent_status.wasm")).unwrap();
    let own = Artifact::pack(component.clone()).unwrap();
    let appended = section::append(&[], &own.plugin().to_json());
    let bare = component.strip_suffix(&appended[..]).expect("the manifest was appended");
    let manifest = Manifest {
        name: name.into(),
        version: version.into(),
        description: format!("For tests{flavour}"),
        ..own.plugin().clone()
    };
    Some(Artifact::pack(section::append(bare, &manifest.to_json())).unwrap())
}

fn request(artifact: &Artifact, signatures: &[Bundle]) -> InstallPluginRequest {
    InstallPluginRequest {
        image: artifact.image().to_vec(),
        config: artifact.config().to_vec(),
        component: artifact.component().to_vec(),
        signatures: signatures.iter().map(|bundle| bundle.to_bytes().to_vec()).collect(),
        replace: false,
    }
}

async fn vizier(state: &Path, trusted: &[PublicKey]) -> Harness {
    Harness::with(|config| {
        config.state = Some(state.to_owned());
        config.trusted_keys = trusted.to_vec();
        config.plugins = plugins();
    })
    .await
}

async fn install(
    client: &mut VizierClient<Channel>,
    artifact: &Artifact,
) -> Result<InstallPluginResponse, tonic::Status> {
    client.install_plugin(request(artifact, &[])).await.map(tonic::Response::into_inner)
}

async fn list(client: &mut VizierClient<Channel>) -> Vec<Plugin> {
    client.list_plugins(ListPluginsRequest::default()).await.unwrap().into_inner().plugins
}

async fn states(client: &mut VizierClient<Channel>) -> Vec<(String, String, bool)> {
    list(client).await.into_iter().map(|plugin| (plugin.name, plugin.version, plugin.enabled)).collect()
}

fn state(name: &str, version: &str, enabled: bool) -> (String, String, bool) {
    (name.into(), version.into(), enabled)
}

fn named(name: &str) -> ExecuteRequest {
    ExecuteRequest { what: Some(What::Name(name.into())), ..Default::default() }
}

/// Runs a script by name and gives the digest of the component that ran.
async fn ran(client: &mut VizierClient<Channel>, name: &str) -> String {
    let answer = harness::execute(client, named(name)).await;
    assert_eq!(answer.code(), Code::Ok, "{:?}", answer.finished.status);
    assert!(!answer.outputs.is_empty());
    answer.started.digest
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_plugin_runs_by_name_and_survives_a_restart() {
    let Some(mine) = artifact("mine", "0.1.0", "") else { return };
    let dir = tempfile::tempdir().unwrap();
    let digest = mine.component_descriptor().digest.to_string();
    {
        let vizier = vizier(dir.path(), &[]).await;
        let mut client = vizier.client().await;
        assert_eq!(client.execute(named("mine")).await.unwrap_err().code(), Grpc::NotFound);
        let reply = install(&mut client, &mine).await.unwrap();
        assert_eq!(reply.outcome(), Outcome::Installed);
        let plugin = reply.plugin.unwrap();
        assert_eq!((plugin.kind.as_str(), plugin.enabled, plugin.problem.as_str()), ("script", true, ""));
        assert_eq!(plugin.digest, mine.digest().as_str());
        assert_eq!(ran(&mut client, "mine").await, digest);
        assert_eq!(install(&mut client, &mine).await.unwrap().outcome(), Outcome::Unchanged);
        vizier.stop().await;
    }
    let vizier = vizier(dir.path(), &[]).await;
    let mut client = vizier.client().await;
    // The first request after a start waits for what is installed.
    assert_eq!(ran(&mut client, "mine").await, digest);
    let scripts = client.list_scripts(ListScriptsRequest { name: "mine".into() }).await.unwrap().into_inner().scripts;
    assert_eq!((scripts[0].installed, scripts[0].bundled), (true, false));
    let by_digest = ExecuteRequest { what: Some(What::Digest(digest)), ..Default::default() };
    assert_eq!(harness::execute(&mut client, by_digest).await.code(), Code::Ok);
    let typo = client.execute(named("mien")).await.unwrap_err();
    assert_eq!(hint(&typo), "did you mean `mine`?");
    client.remove_plugin(RemovePluginRequest { name: "mine".into(), version: String::new() }).await.unwrap();
    assert_eq!(client.execute(named("mine")).await.unwrap_err().code(), Grpc::NotFound);
    assert!(list(&mut client).await.is_empty());
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_is_enabled_and_one_can_go_back() {
    let Some(first) = artifact("mine", "0.9.0", "") else { return };
    let (second, bent) = (artifact("mine", "0.10.0", "").unwrap(), artifact("mine", "0.10.0", ", otherwise").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let vizier = vizier(dir.path(), &[]).await;
    let mut client = vizier.client().await;
    install(&mut client, &first).await.unwrap();
    let reply = install(&mut client, &second).await.unwrap();
    assert_eq!((reply.outcome(), reply.previous_version.as_str()), (Outcome::Upgraded, "0.9.0"));
    assert_eq!(states(&mut client).await, [state("mine", "0.10.0", true), state("mine", "0.9.0", false)]);
    assert_eq!(ran(&mut client, "mine").await, second.component_descriptor().digest.as_str());

    let older = install(&mut client, &first).await.unwrap_err();
    assert_eq!(older.code(), Grpc::AlreadyExists);
    assert!(older.message().contains("0.9.0 of `mine` is older than 0.10.0"), "{older:?}");
    assert!(hint(&older).contains("px plugin remove mine@0.10.0"), "{}", hint(&older));
    let other = install(&mut client, &bent).await.unwrap_err();
    assert_eq!(other.code(), Grpc::AlreadyExists);
    assert!(other.message().contains("with other content"), "{other:?}");

    let replace = InstallPluginRequest { replace: true, ..request(&bent, &[]) };
    assert_eq!(client.install_plugin(replace).await.unwrap().into_inner().outcome(), Outcome::Replaced);
    assert_eq!(ran(&mut client, "mine").await, bent.component_descriptor().digest.as_str());
    assert_eq!(states(&mut client).await.len(), 2, "what was replaced is gone");

    let remove = |version: &str| RemovePluginRequest { name: "mine".into(), version: version.into() };
    let unknown = client.remove_plugin(remove("7.0.0")).await.unwrap_err();
    assert!(unknown.code() == Grpc::NotFound && hint(&unknown).contains("0.10.0, 0.9.0"), "{unknown:?}");
    let gone = client.remove_plugin(remove("0.10.0")).await.unwrap().into_inner();
    assert_eq!((gone.versions, gone.enabled_version), (vec!["0.10.0".to_owned()], "0.9.0".to_owned()));
    assert_eq!(ran(&mut client, "mine").await, first.component_descriptor().digest.as_str());
    let downgrade = artifact("mine", "0.8.0", "").unwrap();
    let downgrade = InstallPluginRequest { replace: true, ..request(&downgrade, &[]) };
    assert_eq!(client.install_plugin(downgrade).await.unwrap().into_inner().outcome(), Outcome::Downgraded);
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_signatures_are_required_only_trusted_ones_count() {
    let Some(mine) = artifact("mine", "0.1.0", "") else { return };
    let (trusted, stranger) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let sign = |artifact: &Artifact, key: &SigningKey| Bundle::sign(artifact, key).unwrap();
    {
        let vizier = vizier(dir.path(), &[trusted.public()]).await;
        let mut client = vizier.client().await;
        let mut refused = async |signatures: &[Bundle], says: &str| {
            let error = client.install_plugin(request(&mine, signatures)).await.unwrap_err();
            assert_eq!(error.code(), Grpc::PermissionDenied, "{error:?}");
            assert!(error.message().contains(says), "{error:?}");
            assert!(list(&mut client).await.is_empty());
        };
        refused(&[], "it is not signed").await;
        refused(&[sign(&mine, &stranger)], &stranger.public().fingerprint()).await;
        refused(&[sign(&artifact("mine", "0.2.0", "").unwrap(), &trusted)], "not of this artifact").await;
        let many = vec![sign(&mine, &trusted); 9];
        let error = client.install_plugin(request(&mine, &many)).await.unwrap_err();
        assert!(error.message().contains("at most 8"), "{error:?}");
        let both = [sign(&mine, &stranger), sign(&mine, &trusted)];
        let reply = client.install_plugin(request(&mine, &both)).await.unwrap().into_inner();
        assert_eq!(reply.plugin.unwrap().signers, [trusted.public().fingerprint()]);
        ran(&mut client, "mine").await;
        vizier.stop().await;
    }
    // The key is no longer trusted: its plugins are kept and do not run.
    let vizier = vizier(dir.path(), &[SigningKey::generate().unwrap().public()]).await;
    let mut client = vizier.client().await;
    let error = client.execute(named("mine")).await.unwrap_err();
    assert_eq!(error.code(), Grpc::FailedPrecondition);
    assert!(error.message().contains("which is not trusted"), "{error:?}");
    assert!(list(&mut client).await[0].problem.contains("which is not trusted"));
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_leaves_nothing_behind() {
    let Some(good) = artifact("mine", "0.1.0", "") else { return };
    let dir = tempfile::tempdir().unwrap();
    let vizier = vizier(dir.path(), &[]).await;
    let mut client = vizier.client().await;
    let mut refused = async |request: InstallPluginRequest, code: Grpc, says: &str| {
        let error = client.install_plugin(request).await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        assert!(error.message().contains(says), "{says}: {error:?}");
        assert!(list(&mut client).await.is_empty());
    };
    let with = |change: &dyn Fn(&mut InstallPluginRequest)| {
        let mut request = request(&good, &[]);
        change(&mut request);
        request
    };
    refused(InstallPluginRequest::default(), Grpc::InvalidArgument, "malformed").await;
    refused(with(&|r| r.component[100] ^= 1), Grpc::InvalidArgument, "the component has the digest").await;
    refused(with(&|r| r.config.push(b' ')), Grpc::InvalidArgument, "the config has").await;
    refused(with(&|r| r.signatures.push(b"{}".to_vec())), Grpc::InvalidArgument, "the signature is malformed").await;
    let bundled = artifact("http_requests", "9.0.0", "").unwrap();
    refused(request(&bundled, &[]), Grpc::AlreadyExists, "comes with Pyxis").await;
    // A component that is none of the script world passes as an artifact, and not as a plugin.
    let text = r#"(component (import "wasi:cli/stdout@0.2.0" (instance)) (core module) (instance $i) (export "run" (instance $i)))"#;
    let hostile = section::append(&wat::parse_str(text).unwrap(), &good.plugin().to_json());
    let hostile = Artifact::pack(hostile).unwrap();
    refused(request(&hostile, &[]), Grpc::InvalidArgument, "imports `wasi:cli/stdout@0.2.0`").await;
    let unknown = client.remove_plugin(RemovePluginRequest { name: "mine".into(), ..Default::default() }).await;
    assert_eq!(unknown.unwrap_err().code(), Grpc::NotFound);
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vizier_without_a_store_says_so_and_does_all_else() {
    let Some(mine) = artifact("mine", "0.1.0", "") else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(crate::plugins::store::FILE), "not a database").unwrap();
    for state in [None, Some(dir.path().to_owned())] {
        let vizier = Harness::with(|config| {
            config.state = state;
            config.plugins = plugins();
        })
        .await;
        let mut client = vizier.client().await;
        let error = install(&mut client, &mine).await.unwrap_err();
        assert_eq!(error.code(), Grpc::FailedPrecondition, "{error:?}");
        assert!(error.message().contains("keeps no plugins"), "{error:?}");
        ran(&mut client, "agent_status").await;
        vizier.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_function_is_called_by_sql_until_it_is_removed() {
    let Some(bundled) = plugins() else { return };
    let text = Artifact::pack(std::fs::read(bundled.join("text.wasm")).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let query = || ExecuteRequest {
        what: Some(What::Sql("select redact_pii('from me@example.com') as t".into())),
        ..Default::default()
    };
    let bare = async || {
        Harness::with(|config| {
            config.state = Some(dir.path().to_owned());
            config.plugins = None;
        })
        .await
    };
    {
        let vizier = bare().await;
        let mut client = vizier.client().await;
        assert_ne!(harness::execute(&mut client, query()).await.code(), Code::Ok, "nobody has it");
        let reply = install(&mut client, &text).await.unwrap();
        let plugin = reply.plugin.unwrap();
        assert_eq!((plugin.kind.as_str(), plugin.problem.as_str()), ("function", ""));
        let answer = harness::execute(&mut client, query()).await;
        assert_eq!(answer.code(), Code::Ok, "{:?}", answer.finished.status);
        vizier.stop().await;
    }
    {
        let vizier = bare().await;
        let mut client = vizier.client().await;
        assert_eq!(harness::execute(&mut client, query()).await.code(), Code::Ok, "after a restart");
        let remove = RemovePluginRequest { name: "text".into(), version: String::new() };
        client.remove_plugin(remove).await.unwrap();
        assert_ne!(harness::execute(&mut client, query()).await.code(), Code::Ok, "it was removed");
        vizier.stop().await;
    }
    // Where the same functions came with Vizier, their names are taken.
    let vizier = vizier(dir.path(), &[]).await;
    let mut client = vizier.client().await;
    let error = install(&mut client, &text).await.unwrap_err();
    assert_eq!(error.code(), Grpc::InvalidArgument, "{error:?}");
    assert!(error.message().contains("has a name that is taken"), "{error:?}");
    assert!(list(&mut client).await.is_empty());
    vizier.stop().await;
}
