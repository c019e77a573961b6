//! A Vizier that says what a test wants it to say, over a Unix socket, to the real `px`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use futures::StreamExt;
use tokio::net::UnixListener;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};
use vizier_api::execute_response::Event;
use vizier_api::server::{Vizier, VizierServer};
use vizier_api::*;

/// What the fake does when something is executed.
pub enum Step {
    Send(Event),
    Fail(Status),
    Sleep(Duration),
    /// Say nothing until the run is cancelled, then finish as cancelled.
    UntilCancelled,
    /// Close the stream.
    Close,
}

#[derive(Default)]
pub struct Seen {
    pub requests: Vec<ExecuteRequest>,
    pub cancelled: Vec<String>,
    pub installed: Vec<InstallPluginRequest>,
    /// The client dropped the stream.
    pub dropped: bool,
}

type Script = Box<dyn Fn(&ExecuteRequest) -> Vec<Step> + Send + Sync>;

struct Service {
    script: Script,
    scripts: Vec<vizier_api::Script>,
    seen: Arc<Mutex<Seen>>,
    cancel: Arc<tokio::sync::Notify>,
}

pub struct Fake {
    pub socket: PathBuf,
    pub seen: Arc<Mutex<Seen>>,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

/// A batch of `rows` rows of a table with a number and a text.
pub fn batch(rows: i64) -> RecordBatch {
    let n = Int64Array::from_iter_values(0..rows);
    let path = StringArray::from_iter_values((0..rows).map(|n| format!("/p{n}")));
    RecordBatch::try_from_iter([("n", Arc::new(n) as ArrayRef), ("path", Arc::new(path) as ArrayRef)]).unwrap()
}

pub fn started() -> Step {
    Step::Send(Event::Started(Started { run_id: "run-1".into(), ..Started::default() }))
}

pub fn table(index: u32, name: &str, round: u64) -> Step {
    let schema = ipc::encode_schema(&batch(0).schema()).unwrap();
    Step::Send(Event::Table(TableStarted { table: index, name: name.into(), schema, round, ..TableStarted::default() }))
}

pub fn rows(index: u32, rows: i64) -> Step {
    let ipc = ipc::encode_batch(&batch(rows)).unwrap();
    Step::Send(Event::Batch(Batch { table: index, ipc, rows: rows as u64 }))
}

pub fn round(round: u64, completeness: Completeness) -> Step {
    Step::Send(Event::Round(RoundFinished { round, completeness: Some(completeness), ..RoundFinished::default() }))
}

pub fn finished(completeness: Completeness) -> Step {
    let statistics = Statistics {
        agents: vec![AgentStatistics { agent: "node-1".into(), rows_scanned: 1234, ..AgentStatistics::default() }],
        ..Statistics::default()
    };
    let status = Some(vizier_api::Status::default());
    Step::Send(Event::Finished(Finished { status, completeness: Some(completeness), statistics: Some(statistics) }))
}

pub fn failed(status: vizier_api::Status) -> Step {
    Step::Send(Event::Finished(Finished { status: Some(status), ..Finished::default() }))
}

/// A whole, small, good result.
pub fn good() -> Vec<Step> {
    vec![started(), table(0, "out", 0), rows(0, 3), finished(Completeness::default())]
}

pub fn missing() -> Completeness {
    let agent = MissingAgent { agent: "node-2".into(), reason: "no answer within 5 s".into() };
    Completeness { missing: vec![agent], ..Completeness::default() }
}

pub fn scripts() -> Vec<vizier_api::Script> {
    let argument = Argument {
        name: "min_latency".into(),
        r#type: "duration".into(),
        default: "10ms".into(),
        help: "only slower ones".into(),
        ..Argument::default()
    };
    let script = |name: &str, args: Vec<Argument>| vizier_api::Script {
        name: name.into(),
        version: "0.1.0".into(),
        description: format!("What {name} shows."),
        digest: format!("sha256:{name}"),
        args,
        tables: vec!["http_events".into()],
        manifest: "{}".into(),
        bundled: true,
        installed: false,
    };
    vec![script("http_requests", vec![]), script("slow_requests", vec![argument])]
}

impl Fake {
    pub fn start(script: impl Fn(&ExecuteRequest) -> Vec<Step> + Send + Sync + 'static) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("vizier.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let service =
            Service { script: Box::new(script), scripts: scripts(), seen: seen.clone(), cancel: Arc::default() };
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(&socket).unwrap()
        };
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(VizierServer::new(service))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Fake { socket, seen, _dir: dir, _runtime: runtime }
    }

    pub fn request(&self) -> ExecuteRequest {
        self.seen.lock().unwrap().requests.last().expect("something was executed").clone()
    }

    /// Waits until `check` holds of what was seen; false after a while.
    pub fn eventually(&self, check: impl Fn(&Seen) -> bool) -> bool {
        for _ in 0..200 {
            if check(&self.seen.lock().unwrap()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        false
    }
}

#[tonic::async_trait]
impl Vizier for Service {
    type ExecuteStream = futures::stream::BoxStream<'static, Result<ExecuteResponse, Status>>;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let request = request.into_inner();
        let steps = (self.script)(&request);
        self.seen.lock().unwrap().requests.push(request);
        if let [Step::Fail(status)] = &steps[..] {
            return Err(status.clone());
        }
        let (send, receive) = tokio::sync::mpsc::channel(16);
        let (cancel, seen) = (self.cancel.clone(), self.seen.clone());
        tokio::spawn(async move {
            for step in steps {
                let event = match step {
                    Step::Send(event) => Ok(ExecuteResponse { event: Some(event) }),
                    Step::Fail(status) => Err(status),
                    Step::Close => return,
                    Step::Sleep(time) => {
                        tokio::time::sleep(time).await;
                        continue;
                    }
                    Step::UntilCancelled => {
                        tokio::select! {
                            () = cancel.notified() => {}
                            () = send.closed() => {
                                seen.lock().unwrap().dropped = true;
                                return;
                            }
                        }
                        let status = vizier_api::Status { code: status::Code::Cancelled.into(), ..Default::default() };
                        Ok(ExecuteResponse {
                            event: Some(Event::Finished(Finished { status: Some(status), ..Finished::default() })),
                        })
                    }
                };
                if send.send(event).await.is_err() {
                    seen.lock().unwrap().dropped = true;
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receive).boxed()))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        self.seen.lock().unwrap().cancelled.push(request.into_inner().run_id);
        self.cancel.notify_one();
        Ok(Response::new(CancelResponse {}))
    }

    async fn list_tables(&self, _: Request<ListTablesRequest>) -> Result<Response<ListTablesResponse>, Status> {
        let on = |agent: &str| TableOnAgent {
            agent: agent.into(),
            rows: 600,
            bytes: 2048,
            budget_bytes: 1 << 20,
            ..TableOnAgent::default()
        };
        let table = Table {
            name: "http_events".into(),
            description: "HTTP requests. And their answers.".into(),
            schema: ipc::encode_schema(&batch(0).schema()).unwrap(),
            agents: vec![on("node-1"), on("node-2")],
        };
        Ok(Response::new(ListTablesResponse { tables: vec![table] }))
    }

    async fn list_scripts(&self, _: Request<ListScriptsRequest>) -> Result<Response<ListScriptsResponse>, Status> {
        Ok(Response::new(ListScriptsResponse { scripts: self.scripts.clone() }))
    }

    async fn install_plugin(
        &self,
        request: Request<InstallPluginRequest>,
    ) -> Result<Response<InstallPluginResponse>, Status> {
        let request = request.into_inner();
        let parts = (request.image.clone(), request.config.clone(), request.component.clone());
        let artifact = plugins_artifact::Artifact::from_parts(parts.0, parts.1, parts.2)
            .map_err(|e| Status::invalid_argument(e.message))?;
        let plugin = Plugin {
            name: artifact.plugin().name.clone(),
            version: artifact.plugin().version.clone(),
            kind: "script".into(),
            digest: artifact.digest().to_string(),
            enabled: true,
            ..Plugin::default()
        };
        let mut seen = self.seen.lock().unwrap();
        if seen.installed.iter().any(|_| !request.replace) {
            let mut refused = Status::already_exists("version 0.1.0 is older");
            refused.metadata_mut().insert_bin(HINT_KEY, tonic::metadata::MetadataValue::from_bytes(b"use --replace"));
            return Err(refused);
        }
        seen.installed.push(request);
        Ok(Response::new(InstallPluginResponse { plugin: Some(plugin), ..InstallPluginResponse::default() }))
    }

    async fn remove_plugin(
        &self,
        request: Request<RemovePluginRequest>,
    ) -> Result<Response<RemovePluginResponse>, Status> {
        let RemovePluginRequest { name, version } = request.into_inner();
        if name != "slow_posts" {
            return Err(Status::not_found(format!("no plugin `{name}` is installed")));
        }
        let versions = vec![if version.is_empty() { "0.1.0".to_owned() } else { version }];
        Ok(Response::new(RemovePluginResponse { versions, enabled_version: String::new() }))
    }

    async fn list_plugins(&self, _: Request<ListPluginsRequest>) -> Result<Response<ListPluginsResponse>, Status> {
        let plugin = |version: &str, enabled: bool, problem: &str| Plugin {
            name: "slow_posts".into(),
            version: version.into(),
            kind: "script".into(),
            description: "Posts that took long".into(),
            bytes: 20_480,
            enabled,
            problem: problem.into(),
            ..Plugin::default()
        };
        let plugins = vec![plugin("0.2.0", true, "it is not signed"), plugin("0.1.0", false, "")];
        Ok(Response::new(ListPluginsResponse { plugins }))
    }

    async fn list_agents(&self, _: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        let agent = Agent {
            id: "node-1".into(),
            hostname: "host".into(),
            state: "connected".into(),
            capture: "socket".into(),
            version: "9.9.9".into(),
            events: 12,
            events_lost: 3,
            ..Agent::default()
        };
        Ok(Response::new(ListAgentsResponse { agents: vec![agent] }))
    }
}
