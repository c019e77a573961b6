//! Agents whose answers are no answers: each is a named gap, and the rows of the others are the result.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use vizier_engine::exchange::{Limits, serve};
use vizier_engine::policy::AllowAll;

use super::data;
use super::harness::{Cluster, info, run};

const GROUPED: &str = "select local_addr, count(*) c from http_events group by local_addr";
const ROWS: &str = "select time_, upid, req_path, latency from http_events";

type Mangle = Arc<dyn Fn(usize, FlightData) -> FlightData + Send + Sync>;
type Answer<T> = Result<Response<T>, Status>;
type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// Between Vizier and a whole agent: it passes everything on, and messages of results mangled.
struct Mangler {
    agent: FlightServiceClient<Channel>,
    mangle: Mangle,
}

#[tonic::async_trait]
impl FlightService for Mangler {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;
    type DoExchangeStream = Messages<FlightData>;

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let messages = self.agent.clone().do_get(request.into_inner()).await?.into_inner();
        let mangle = self.mangle.clone();
        let mangled = messages.enumerate().map(move |(i, message)| message.map(|message| mangle(i, message)));
        Ok(Response::new(mangled.boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        let answer = self.agent.clone().do_action(request.into_inner()).await?.into_inner();
        Ok(Response::new(answer.boxed()))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        unreachable!()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        unreachable!()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        unreachable!()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        unreachable!()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        unreachable!()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        unreachable!()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        unreachable!()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answer<Self::ListActionsStream> {
        unreachable!()
    }
}

/// Two whole agents and one behind a mangler.
async fn cluster(mangle: Mangle) -> Cluster {
    let cluster = Cluster::start((0..2).map(|agent| data::store(agent, 5_000)).collect()).await;
    let (theirs, ours) = tokio::io::duplex(1 << 20);
    tokio::spawn(serve(theirs, data::store(2, 5_000), || info(2), Limits::default(), Arc::default()));
    let mut once = Some(ours);
    let channel =
        Endpoint::from_static("http://agent.test").connect_with_connector_lazy(tower::service_fn(move |_| {
            let io = once.take().ok_or_else(|| std::io::Error::other("dialled twice"));
            async move { io.map(TokioIo::new) }
        }));
    let agent = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let mangler = FlightServiceServer::new(Mangler { agent, mangle }).max_encoding_message_size(usize::MAX);
    let (near, far) = tokio::io::duplex(1 << 20);
    let incoming = futures::stream::once(async { Ok::<_, std::io::Error>(near) }).chain(futures::stream::pending());
    tokio::spawn(Server::builder().add_service(mangler).serve_with_incoming(incoming));
    cluster.registry.adopt(far, None).await.unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_sends_what_cannot_be_read_is_a_gap_and_not_an_error() {
    let of = |mangle: fn(usize, FlightData) -> FlightData| Arc::new(mangle) as Mangle;
    let manglings: [(&str, Mangle); 8] = [
        ("as it is", of(|_, data| data)),
        (
            "half of a body",
            of(|_, data| {
                let half = data.data_body.len() / 2;
                FlightData { data_body: data.data_body.slice(..half), ..data }
            }),
        ),
        (
            "a header of nonsense",
            of(|i, data| match i {
                0 => data,
                _ => FlightData { data_header: vec![0xa5; 64].into(), ..data },
            }),
        ),
        (
            "no schema",
            of(|i, data| match i {
                0 => FlightData { data_header: bytes::Bytes::new(), ..data },
                _ => data,
            }),
        ),
        ("a schema again and again", {
            let first = std::sync::Mutex::new(None);
            Arc::new(move |_, data: FlightData| {
                let mut first = first.lock().unwrap();
                let schema = first.get_or_insert_with(|| data.data_header.clone()).clone();
                FlightData { data_header: schema, ..data }
            })
        }),
        ("usage of nonsense", of(|_, data| FlightData { app_metadata: vec![0xff; 9].into(), ..data })),
        (
            "more than a message may hold",
            of(|i, data| match i {
                0 => data,
                _ => FlightData { data_body: vec![0; 65 << 20].into(), ..data },
            }),
        ),
        ("an error that no agent gives", of(|_, data| FlightData { data_header: vec![1, 0, 0, 0].into(), ..data })),
    ];
    for (what, mangle) in manglings {
        let cluster = cluster(mangle).await;
        for text in [GROUPED, ROWS] {
            let done = cluster.run(text).await.unwrap_or_else(|e| panic!("{what}: {text}: {e}"));
            let missing = done.missing();
            eprintln!("{what}: {missing:?}");
            if what == "as it is" {
                assert!(missing.is_empty(), "{missing:?}");
                continue;
            }
            assert_eq!(missing.keys().collect::<Vec<_>>(), ["agent-2"], "{what}: {text}");
            if text == ROWS {
                assert_eq!(done.rows(), 10_000, "{what}: the others are all there");
            }
        }
    }
}

/// One bit of one message: whatever comes of it, it is no error of the query's and no end of Vizier.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_anywhere_fails_no_query() {
    let flip = Arc::new(std::sync::Mutex::new(0u64));
    let at = flip.clone();
    let mangle: Mangle = Arc::new(move |i, mut data| {
        let mut seed = *at.lock().unwrap();
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        if next() % 3 != i % 3 {
            return data;
        }
        let bytes = if next() % 4 == 0 { &mut data.data_body } else { &mut data.data_header };
        if !bytes.is_empty() {
            let mut changed = bytes.to_vec();
            let place = next() % changed.len();
            changed[place] ^= 1 << (next() % 8);
            *bytes = changed.into();
        }
        data
    });
    let cluster = cluster(mangle).await;
    let mut gaps = 0;
    for seed in 0..300 {
        *flip.lock().unwrap() = seed;
        let query = cluster.query_with(Duration::from_secs(20), Arc::new(AllowAll));
        // One that was cut at its deadline would be a gap too; the query itself goes on.
        let done = run(query, if seed % 2 == 0 { GROUPED } else { ROWS }).await;
        let done = done.unwrap_or_else(|e| panic!("bit {seed}: {e}"));
        gaps += done.missing().len();
        assert!(done.missing().keys().all(|agent| agent == "agent-2"), "bit {seed}: {:?}", done.missing());
    }
    eprintln!("{gaps} of 300 were gaps");
    assert!(gaps > 50, "{gaps}");
}
