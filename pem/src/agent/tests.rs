//! The agent without a kernel: recordings made here, a Vizier that is the engine's registry behind TLS.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ebpf_abi::{Header, ProcExit, Process};
use pem_tables::{Store, TimeRange};
use vizier_engine::Registry;
use vizier_engine::exchange::{AgentState, Limits};

use super::*;
use crate::core::record::encode;
use crate::identity::Identity;
use crate::input::{Clock, Input};
use crate::recording::Writer;

const PATIENCE: Duration = Duration::from_secs(20);
/// When the recordings were made: 2023.
const EPOCH_NS: i64 = 1_700_000_000_000_000_000;
const TICK_NS: u64 = 50_000_000;

/// A recording of `ticks` ticks with one process exit each.
fn recording(path: &Path, ticks: u64, finish: bool) {
    let mut writer = Writer::new(std::fs::File::create(path).unwrap()).unwrap();
    let clock = Clock {
        boot_to_epoch_ns: EPOCH_NS,
        asid: 77,
        hz: 100,
        hostname: "recorded".into(),
        kernel: "6.1".into(),
        ..Clock::default()
    };
    writer.write(&Input::Clock(clock)).unwrap();
    let mut bytes = Vec::new();
    for tick in 1..=ticks {
        let now_ns = tick * TICK_NS;
        let exit = ProcExit {
            header: Header { seq: tick, time_ns: now_ns - 1, ..Header::default() },
            process: Process { pid: tick as u32, start_ns: 10_000_000, zero: 0 },
            comm: *b"true\0\0\0\0\0\0\0\0\0\0\0\0",
            exit_code: 3,
            signal: 0,
        };
        encode::proc_exit(&mut bytes, &exit);
        writer.write(&Input::Record(&bytes)).unwrap();
        writer.write(&Input::Tick { now_ns }).unwrap();
    }
    if finish {
        writer.finish().unwrap();
    } else {
        writer.flush().unwrap();
    }
}

fn config(path: &Path, shift: bool, speed: Speed) -> Config {
    let replay = Replay { path: path.to_owned(), shift, speed, repeat: false };
    Config { capture: Capture::Replay(replay), ..Config::new(Identity::detect(Some("test"), Some(5))) }
}

fn exits(store: &Store) -> u64 {
    store.table("proc_exit_events").unwrap().stats().rows
}

/// Every column of every batch of every table, in order: metadata is a map without one.
fn contents(store: &Store) -> Vec<String> {
    let tables = store.tables();
    let batches = tables.iter().flat_map(|table| {
        table.scan(TimeRange::ALL, None).map(|batch| format!("{}: {:?}", table.spec().name, batch.columns()))
    });
    batches.collect()
}

#[test]
fn a_panic_of_a_thread_is_told_as_much_as_an_error() {
    let failed = CancellationToken::new();
    assert!(watched(failed.clone(), || Ok(())).is_ok());
    assert!(!failed.is_cancelled());
    let told = failed.clone();
    let thread =
        std::thread::spawn(move || watched(told, || -> Result<(), Error> { panic!("as the core must never") }));
    assert!(thread.join().is_err() && failed.is_cancelled());
    let failed = CancellationToken::new();
    assert!(watched(failed.clone(), || Err::<(), _>(Error::Ended("sampler"))).is_err());
    assert!(failed.is_cancelled());
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !reached() {
        assert!(tokio::time::Instant::now() < deadline, "not reached: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_gives_the_same_tables_each_time_under_the_recordings_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pxr");
    recording(&path, 100, true);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let agent = Agent::start(config(&path, false, Speed::Full)).unwrap();
        agent.ready().await;
        assert_eq!(exits(agent.store()), 100);
        let info = agent.info();
        assert_eq!((info.asid, info.hostname.as_str(), info.capture.as_str()), (77, "recorded", "replay"));
        assert_eq!((info.events, info.since_ns), (100, None));
        let newest = agent.store().table("proc_exit_events").unwrap().stats().newest_ns;
        assert_eq!(newest, Some(EPOCH_NS + 100 * TICK_NS as i64 - 1));
        seen.push(contents(agent.store()));
        agent.stop().await.unwrap();
    }
    assert!(seen[0] == seen[1], "two replays differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shifted_replay_ends_now() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pxr");
    recording(&path, 20, true);
    let before = crate::sources::clock::boot_ns() as i64 + crate::sources::clock::boot_to_epoch_ns();
    let agent = Agent::start(config(&path, true, Speed::Full)).unwrap();
    agent.ready().await;
    let newest = agent.store().table("proc_exit_events").unwrap().stats().newest_ns.unwrap();
    assert!((newest - before).abs() < 10_000_000_000, "{newest} {before}");
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_real_time_rows_come_as_they_came_and_repeat_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pxr");
    recording(&path, 6, true);
    let mut config = config(&path, true, Speed::RealTime);
    if let Capture::Replay(replay) = &mut config.capture {
        replay.repeat = true;
    }
    let began = std::time::Instant::now();
    let agent = Agent::start(config).unwrap();
    until("one round", || exits(agent.store()) >= 6).await;
    // Five pauses of 50 ms lie between the first tick and the last.
    assert!(began.elapsed() >= Duration::from_millis(240), "{:?}", began.elapsed());
    until("a second round", || exits(agent.store()) >= 9).await;
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_was_cut_off_is_replayed_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pxr");
    recording(&path, 10, false);
    let agent = Agent::start(config(&path, false, Speed::Full)).unwrap();
    agent.ready().await;
    assert_eq!(exits(agent.store()), 10);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_recording_is_said_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pxr");
    std::fs::write(&path, "nothing of ours, but long enough").unwrap();
    let agent = Agent::start(config(&path, false, Speed::Full)).unwrap();
    let error = agent.stop_after_ingest().await.unwrap_err();
    assert!(matches!(error, Error::Replay { .. }), "{error}");
    assert!(error.to_string().contains("a.pxr"));
    let missing = Agent::start(config(&dir.path().join("missing"), false, Speed::Full)).err().unwrap();
    assert!(matches!(missing, Error::Open { .. }), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_is_told_when_it_is_met() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pxr");
    recording(&path, 10, true);
    let mut bytes = std::fs::read(&path).unwrap();
    // The end is a mark and a count: with another count the file is not what was written.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let agent = Agent::start(config(&path, false, Speed::Full)).unwrap();
    tokio::time::timeout(PATIENCE, agent.failed.cancelled()).await.expect("nobody stops it, yet it ends");
    let error = agent.stop().await.unwrap_err();
    assert!(matches!(error, Error::Replay { source: recording::ReadError::Damaged { .. }, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_helper_it_samples_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("no-helper.sock");
    let record = dir.path().join("live.pxr");
    let config = Config {
        capture: Capture::Helper { socket, token: crate::probes::wire::Token::fresh() },
        record: Some(record.clone()),
        ..Config::new(Identity::detect(Some("test"), Some(5)))
    };
    let agent = Agent::start(config).unwrap();
    let rows = |table: &str| agent.store().table(table).unwrap().stats().rows;
    until("processes are seen", || rows("processes") > 0 && rows("probe_status") > 0).await;
    let statuses = contents(agent.store());
    assert!(statuses.iter().any(|text| text.contains("probe helper")), "the reason is in probe_status");
    assert_eq!(agent.info().capture, "none");
    let since_ns = agent.info().since_ns.expect("what runs has begun");
    let now_ns = crate::sources::clock::boot_ns() as i64 + crate::sources::clock::boot_to_epoch_ns();
    assert!((now_ns - PATIENCE.as_nanos() as i64..=now_ns).contains(&since_ns), "{since_ns} {now_ns}");
    // A helper is given some seconds to load: what came before is no gap yet.
    assert_eq!(rows("data_loss"), 0);
    let processes = rows("processes");
    agent.stop().await.unwrap();

    // What it recorded replays to the same tables.
    let replay = Agent::start(self::config(&record, false, Speed::Full)).unwrap();
    replay.ready().await;
    assert!(replay.store().table("processes").unwrap().stats().rows >= processes);
    replay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_is_dialled_until_there_is_a_vizier_and_again_when_it_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pxr");
    recording(&path, 10, true);
    let tls = certificates(dir.path());
    let address_file = dir.path().join("vizier.addr");
    let mut config = config(&path, false, Speed::Full);
    config.vizier = Some(Vizier { dial: Dial::File(address_file.clone()), tls: tls.agent, limits: Limits::default() });
    let agent = Agent::start(config).unwrap();
    // There is no Vizier yet, not even its address.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for round in 0..2 {
        // Elsewhere each time.
        let registry = Registry::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        std::fs::write(&address_file, listener.local_addr().unwrap().to_string()).unwrap();
        let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("it dials").unwrap();
        let stream = tokio_rustls::TlsAcceptor::from(tls.vizier.clone()).accept(stream).await.unwrap();
        let id = registry.adopt(stream, None).await.unwrap();
        assert_eq!(id.as_str(), "test");
        let status = registry.agents().remove(0);
        assert_eq!(status.state, AgentState::Connected, "round {round}");
        assert_eq!(status.tables["proc_exit_events"].rows, 10);
        drop(registry);
    }
    agent.stop().await.unwrap();
}

struct Tls {
    vizier: Arc<rustls::ServerConfig>,
    agent: TlsFiles,
}

fn certificates(dir: &Path) -> Tls {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let leaf = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (cert, key)
    };
    let (cert, key) = leaf("test.agent.pyxis.internal");
    let agent = TlsFiles { ca: dir.join("ca.pem"), cert: dir.join("a.pem"), key: dir.join("a.key") };
    std::fs::write(&agent.ca, ca.pem()).unwrap();
    std::fs::write(&agent.cert, cert.pem()).unwrap();
    std::fs::write(&agent.key, key.serialize_pem()).unwrap();
    let (cert, key) = leaf(vizier_api::VIZIER_TLS_NAME);
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let vizier = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    Tls { vizier: Arc::new(vizier), agent }
}
