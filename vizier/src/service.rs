//! The gRPC service: decodes, calls, encodes. What a request means is decided elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};
use tonic::{Request, Response, Status};
use vizier_api::server::Vizier;
use vizier_api::{
    CancelRequest, CancelResponse, ExecuteRequest, ExecuteResponse, InstallPluginRequest, InstallPluginResponse,
    ListAgentsRequest, ListAgentsResponse, ListPluginsRequest, ListPluginsResponse, ListScriptsRequest,
    ListScriptsResponse, ListTablesRequest, ListTablesResponse, RemovePluginRequest, RemovePluginResponse,
};
use vizier_engine::Engine;

use crate::catalog;
use crate::config::Limits;
use crate::plugins::Plugins;
use crate::request::{self, Follow, What};
use crate::run::{self, Clock, Job, Messages, Output, Work};
use crate::runs::{Client, History, Runs};
use crate::scripts::{Loaded, Scripts};
use crate::status::Refusal;

/// What clients call.
#[derive(Clone)]
pub struct Service {
    engine: Engine,
    scripts: Arc<Scripts>,
    plugins: Arc<Plugins>,
    runs: Arc<Runs>,
    history: Arc<History>,
    limits: Limits,
    clock: Clock,
}

impl Service {
    /// A service over these parts.
    pub fn new(
        engine: Engine,
        scripts: Arc<Scripts>,
        plugins: Arc<Plugins>,
        runs: Arc<Runs>,
        history: Arc<History>,
        limits: Limits,
    ) -> Self {
        let clock = catalog::clock(engine.registry().clone());
        Self { engine, scripts, plugins, runs, history, limits, clock }
    }

    async fn job(&self, request: ExecuteRequest) -> Result<Job, Refusal> {
        let checked = request::Request::check(request, &self.limits, (self.clock)())?;
        // SQL calls installed functions too.
        self.plugins.restore().await;
        let script = match checked.what {
            What::Sql(text) => {
                let follow = if checked.follow == Follow::Auto { Follow::Refresh } else { checked.follow };
                return Ok(Job {
                    work: Work::Sql(text),
                    range: checked.range,
                    now_ns: checked.now_ns,
                    rows_max: checked.rows_max,
                    timeout: checked.timeout,
                    follow,
                    interval: checked.interval,
                    budget: checked.budget,
                });
            }
            What::Name(name) => self.scripts.by_name(&name).await?,
            What::Digest(digest) => self.scripts.by_digest(&digest).await?,
            What::Component(bytes) => self.scripts.by_bytes(bytes).await?,
        };
        // Checked here too, so that a mistake is refused before anything is begun.
        script.manifest().arguments(&checked.args)?;
        Ok(Job {
            range: checked.range,
            now_ns: checked.now_ns,
            rows_max: checked.rows_max,
            timeout: checked.timeout,
            follow: follow(checked.follow, &script),
            interval: checked.interval,
            budget: asked_for(checked.budget, &script),
            work: Work::Script { script, args: checked.args },
        })
    }
}

/// `Auto` is what the manifest says.
fn follow(asked: Follow, script: &Loaded) -> Follow {
    match (asked, script.manifest().follow) {
        (Follow::Auto, host_manifest::Follow::Refresh) => Follow::Refresh,
        (Follow::Auto, host_manifest::Follow::Tail) => Follow::Tail,
        (asked, _) => asked,
    }
}

/// What a manifest asks for is the most its script may get.
fn asked_for(budget: host::meter::Budget, script: &Loaded) -> host::meter::Budget {
    let asked = &script.manifest().budget;
    let cut = |most: u64, asked: Option<u64>| asked.map_or(most, |asked| asked.min(most));
    host::meter::Budget {
        guest_cpu_ns: cut(budget.guest_cpu_ns, asked.guest_cpu_ms.map(|ms| ms.saturating_mul(1_000_000))),
        memory_bytes: cut(budget.memory_bytes, asked.memory_bytes),
        rows_scanned: cut(budget.rows_scanned, asked.rows_scanned),
        output_rows: cut(budget.output_rows, asked.output_rows),
        output_bytes: cut(budget.output_bytes, asked.output_bytes),
        ..budget
    }
}

/// One process, or one TCP connection, is one client; one user of this machine, or one address, is one tenant.
fn who<T>(request: &Request<T>) -> (Client, String) {
    let extensions = request.extensions();
    if let Some(cred) = extensions.get::<UdsConnectInfo>().and_then(|uds| uds.peer_cred.as_ref()) {
        let client = cred.pid().map_or(Client::Unknown, Client::Process);
        return (client, format!("uid:{}", cred.uid()));
    }
    match extensions.get::<TcpConnectInfo>().and_then(|tcp| tcp.remote_addr()) {
        Some(addr) => (Client::Address(addr), format!("ip:{}", addr.ip())),
        None => (Client::Unknown, "unknown".to_owned()),
    }
}

#[tonic::async_trait]
impl Vizier for Service {
    type ExecuteStream = Events;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<Events>, Status> {
        let (client, tenant) = who(&request);
        let place = self.runs.admit(client, &tenant).await?;
        let job = self.job(request.into_inner()).await?;
        let (output, messages) = Output::new(place.cancel.clone());
        let (engine, clock, history) = (self.engine.clone(), self.clock.clone(), self.history.clone());
        tokio::spawn(async move {
            run::drive(job, &place, engine, clock, output, &history).await;
            tracing::debug!(run = %place.run_id, "run ended");
        });
        Ok(Response::new(Events(messages)))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        let run_id = request.into_inner().run_id;
        match self.runs.cancel(&run_id) {
            true => Ok(Response::new(CancelResponse {})),
            false => {
                let hint = "it may have ended already";
                Err(Refusal::not_found(format!("no run has the id {run_id:?}"), hint).into())
            }
        }
    }

    async fn list_tables(&self, request: Request<ListTablesRequest>) -> Result<Response<ListTablesResponse>, Status> {
        let tables = catalog::tables(&self.engine, &self.history, &request.into_inner().name).await?;
        Ok(Response::new(ListTablesResponse { tables }))
    }

    async fn list_scripts(
        &self,
        request: Request<ListScriptsRequest>,
    ) -> Result<Response<ListScriptsResponse>, Status> {
        self.plugins.restore().await;
        let scripts = catalog::scripts(&self.scripts, &request.into_inner().name).await?;
        Ok(Response::new(ListScriptsResponse { scripts }))
    }

    async fn list_agents(&self, _: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        Ok(Response::new(ListAgentsResponse { agents: catalog::agents(&self.engine).await }))
    }

    async fn install_plugin(
        &self,
        request: Request<InstallPluginRequest>,
    ) -> Result<Response<InstallPluginResponse>, Status> {
        Ok(Response::new(self.plugins.install(request.into_inner()).await?))
    }

    async fn remove_plugin(
        &self,
        request: Request<RemovePluginRequest>,
    ) -> Result<Response<RemovePluginResponse>, Status> {
        Ok(Response::new(self.plugins.remove(request.into_inner()).await?))
    }

    async fn list_plugins(
        &self,
        request: Request<ListPluginsRequest>,
    ) -> Result<Response<ListPluginsResponse>, Status> {
        let plugins = self.plugins.list(&request.into_inner().name).await?;
        Ok(Response::new(ListPluginsResponse { plugins }))
    }
}

/// The stream of a run.
pub struct Events(Messages);

impl Stream for Events {
    type Item = Result<ExecuteResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}
