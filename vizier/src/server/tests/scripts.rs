//! Scripts by name, by bytes and by digest. The bundled ones must have been built (`cargo xtask guests`).

use std::path::PathBuf;

use vizier_api::execute_request::What;
use vizier_api::status::Code;
use vizier_api::{ExecuteRequest, ListScriptsRequest};

use super::harness::{self, Harness};

pub fn plugins() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/pyxis/plugins");
    let some = std::fs::read_dir(&dir).is_ok_and(|mut entries| {
        entries.any(|e| e.is_ok_and(|e| e.path().extension().is_some_and(|ext| ext == "wasm")))
    });
    if !some {
        eprintln!("SKIPPED: no bundled scripts in {}; build them with cargo xtask guests", dir.display());
    }
    some.then_some(dir)
}

fn named(name: &str) -> ExecuteRequest {
    ExecuteRequest { what: Some(What::Name(name.into())), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bundled_script_runs_with_its_defaults() {
    let Some(dir) = plugins() else { return };
    let vizier = Harness::with(|config| config.plugins = Some(dir)).await;
    let _a = vizier.agent("node-a", 1, 1000).await;
    let mut client = vizier.client().await;
    let scripts = client.list_scripts(ListScriptsRequest { name: String::new() }).await.unwrap().into_inner().scripts;
    assert!(!scripts.is_empty());
    for script in scripts {
        assert!(script.bundled && script.digest.starts_with("sha256:") && !script.description.is_empty());
        let required = script.args.iter().any(|a| a.required);
        if required {
            continue;
        }
        let result = harness::execute(&mut client, named(&script.name)).await;
        assert_eq!(result.code(), Code::Ok, "{}: {:?}", script.name, result.finished.status);
        assert_eq!(result.started.digest, script.digest);
        assert!(!result.outputs.is_empty(), "{} shows nothing", script.name);
        assert!(result.statistics().host_calls > 0, "{}: {:?}", script.name, result.statistics());
    }
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_remembered_by_digest() {
    let Some(dir) = plugins() else { return };
    let file = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.file_stem().is_some_and(|s| s == "processes" || s == "agent_status"))
        .expect("one of two scripts without required arguments");
    let bytes = std::fs::read(file).unwrap();
    let vizier = Harness::start().await;
    let _a = vizier.agent("node-a", 1, 10).await;
    let mut client = vizier.client().await;
    let digest = crate::scripts::digest_of(&bytes);
    let by_digest = ExecuteRequest { what: Some(What::Digest(digest.clone())), ..Default::default() };
    let unknown = client.execute(by_digest.clone()).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    let by_bytes = ExecuteRequest { what: Some(What::Component(bytes.into())), ..Default::default() };
    let result = harness::execute(&mut client, by_bytes).await;
    assert_eq!(result.code(), Code::Ok, "{:?}", result.finished.status);
    let result = harness::execute(&mut client, by_digest).await;
    assert_eq!(result.code(), Code::Ok);
    assert_eq!(result.started.digest, digest);
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_script_is_refused_with_a_reason() {
    let vizier = Harness::start().await;
    let mut client = vizier.client().await;
    let bytes = ExecuteRequest { what: Some(What::Component((&b"not wasm"[..]).into())), ..Default::default() };
    let refused = client.execute(bytes).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("component"), "{refused:?}");
    let refused = client.execute(named("http_requests")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    assert!(harness::hint(&refused).contains("xtask guests"), "{refused:?}");
    vizier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_arguments_that_do_not_exist_get_the_nearest_one() {
    let Some(dir) = plugins() else { return };
    let vizier = Harness::with(|config| config.plugins = Some(dir)).await;
    let mut client = vizier.client().await;
    let scripts = client.list_scripts(ListScriptsRequest { name: String::new() }).await.unwrap().into_inner().scripts;
    let script = scripts.iter().find(|s| !s.args.is_empty()).expect("some script takes an argument");
    let misspelt = format!("{}x", script.name);
    let refused = client.execute(named(&misspelt)).await.unwrap_err();
    assert_eq!(harness::hint(&refused), format!("did you mean `{}`?", script.name));
    let arg = format!("{}x", script.args[0].name);
    let request = ExecuteRequest { args: [(arg.clone(), "1".into())].into(), ..named(&script.name) };
    let refused = client.execute(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains(&arg), "{refused:?}");
    assert!(harness::hint(&refused).contains(&script.args[0].name), "{}", harness::hint(&refused));
    vizier.stop().await;
}
