//! The helper and those who come to it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ebpf_abi::{Header, Kind, counter, role};
use pem::probes::client::Handover;
use pem::probes::wire::{ProcessRef, Token, Want};
use pem::probes::{Capture, Helper, Status};

use crate::exchange::REQUEST;
use crate::lab::Lab;
use crate::process::{Killed, ROLE, env, start, start_ticks};
use crate::skip_or_lock;
use crate::traffic::Traffic;
use crate::view::{View, cast};

/// Runs as nobody: reads until there were as many records as wanted, or five seconds.
pub fn play_reader() {
    let token = serde_json::from_str(&env("TOKEN")).unwrap();
    let Handover { mut helper, mut reader, counters } =
        Helper::connect(Path::new(&env("SOCKET")), &token, Duration::from_secs(5)).unwrap();
    let mut records = 0;
    println!("ready");
    let deadline = Instant::now() + Duration::from_secs(5);
    while records < 4 && Instant::now() < deadline {
        reader.wait(Duration::from_millis(20)).unwrap();
        records += reader.for_each(1000, |_| {}).unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    // A process of root's, which nobody may not look into itself.
    let pid: u32 = env("PEER").parse().unwrap();
    let peer = ProcessRef { pid, start_ticks: start_ticks(pid) };
    let facts = helper.inspect(&[peer], Want { exe: true, ..Want::default() }).unwrap();
    println!(
        "records={records} counted={} {} {} exe={}",
        counters.sum().slots[counter::RECORDS],
        line("Uid:").replace('\t', " "),
        line("CapEff:").replace('\t', " "),
        facts[0].as_ref().and_then(|facts| facts.exe.as_deref()).unwrap_or("-"),
    );
    assert!(std::fs::read_link(format!("/proc/{pid}/exe")).is_err());
}

#[test]
fn an_unprivileged_process_reads_the_ring_and_asks_the_helper() {
    let _one = skip_or_lock!();
    const NOBODY: u32 = 65534;
    let mut traffic = Traffic::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let socket = folder.path().join("helper.sock");
    let path = socket.to_str().unwrap();
    let token = Token::fresh();
    let shown = serde_json::to_string(&token).unwrap();
    let object = crate::object::object().to_str().unwrap().to_owned();
    let _helper = Killed(start(
        "helper",
        &[
            ("CAPTURE", "auto"),
            ("RING", "1048576"),
            ("SOCKET", path),
            ("ALLOWED", "65534"),
            ("SURVEY_MS", "5000"),
            ("TOKEN", &shown),
            ("OBJECT", &object),
        ],
        None,
    ));
    // The test binary may lie where nobody cannot go.
    let binary = folder.path().join("reader");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !socket.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Root may not connect: only the user it was started for.
    let refused = Helper::connect(&socket, &token, Duration::from_secs(1)).err().expect("refused").to_string();
    assert!(refused.contains("refused this process"), "{refused}");

    let mut reader = Command::new(&binary)
        .args(["--exact", "part", "--nocapture", "--test-threads=1"])
        .envs([(ROLE, "reader"), ("SOCKET", path), ("PEER", &traffic.pid().to_string()), ("TOKEN", &shown)])
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().ends_with("ready")));
    traffic.run("connect 127.0.0.1");
    traffic.run("plain");
    let lines: Vec<_> = lines.map_while(Result::ok).collect();
    let told = lines.iter().find(|line| line.starts_with("records=")).expect("the reader's account");
    assert!(reader.wait().unwrap().success());
    assert!(told.contains("Uid: 65534 65534"), "{told}");
    assert!(told.contains("CapEff: 0000000000000000"), "{told}");
    assert!(!told.contains("records=0") && !told.contains("counted=0"), "{told}");
    assert!(told.contains("exe=/"), "{told}");
}

#[test]
fn the_helper_and_all_its_supervisor_started_are_not_traced() {
    let _one = skip_or_lock!();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("helper.sock");
    let mut before = Traffic::start();
    let token = Token::fresh();
    let shown = serde_json::to_string(&token).unwrap();
    let object = crate::object::object().to_str().unwrap().to_owned();
    let settings = [
        ("TOKEN", shown.as_str()),
        ("OBJECT", object.as_str()),
        ("CAPTURE", "auto"),
        ("RING", "1048576"),
        ("SOCKET", socket.to_str().unwrap()),
        ("ALLOWED", "0"),
        ("SURVEY_MS", "100"),
        ("SUPERVISED", "1"),
    ];
    let process = Killed(start("helper", &settings, None));
    let Handover { helper, reader, counters } = Helper::connect(&socket, &token, Duration::from_secs(5)).unwrap();
    let mut lab = Lab { helper, reader, counters, token, records: Vec::new(), process, folder };
    let mut after = Traffic::start();
    for traffic in [&mut before, &mut after] {
        for command in ["connect 127.0.0.1", "plain", "exec", "close"] {
            traffic.run(command);
        }
    }
    let (one, other) = (before.pid(), after.pid());
    lab.read();
    let mut view = View::default();
    for record in &lab.records {
        view.add(record, one);
        if cast::<Header>(record).kind != Kind::Data as u16 {
            view.add(record, other);
        }
    }
    assert!(view.conns.is_empty(), "{view:#?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap()).into_owned();
    assert!(view.execs.iter().all(|exec| text(&exec.filename) != "/bin/true"), "{view:#?}");
}

#[test]
fn a_second_client_goes_on_where_the_first_stopped() {
    let _one = skip_or_lock!();
    let mut traffic = Traffic::start();
    let mut lab = Lab::start(Capture::Auto, 1 << 20);
    let socket = lab.folder.path().join("helper.sock");
    traffic.run("connect 127.0.0.1");
    traffic.run("plain");
    let first = lab.view(traffic.pid());
    assert_eq!(first.by_role(role::SERVER).received.payload(), REQUEST);
    let Lab { helper, reader, counters, token, process, folder, .. } = lab;
    drop((helper, reader, counters));
    traffic.run("plain");
    let Handover { helper, reader, counters } = Helper::connect(&socket, &token, Duration::from_secs(5)).unwrap();
    let mut lab = Lab { helper, reader, counters, token, records: Vec::new(), process, folder };
    let second = lab.view(traffic.pid());
    let received: Vec<_> = second.conns.values().map(|seen| seen.received.payload()).collect();
    assert!(received.contains(&REQUEST.to_vec()), "{second:#?}");
    let positions: Vec<_> = second.conns.values().flat_map(|seen| seen.received.parts.keys().copied()).collect();
    assert!(!positions.contains(&0), "the first exchange is not told again");
    let stats = lab.helper.programs().unwrap();
    assert!(stats.iter().any(|stats| stats.program == "process_exec"), "{stats:?}");
}

#[test]
fn who_does_not_know_the_token_gets_nothing_and_keeps_nobody_out() {
    let _one = skip_or_lock!();
    let Lab { helper, reader, counters, token, process: _process, folder, .. } = Lab::start(Capture::Auto, 1 << 20);
    drop((helper, reader, counters));
    let socket = folder.path().join("helper.sock");
    let silent = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let refused = Helper::connect(&socket, &Token::fresh(), Duration::from_secs(5)).err().expect("refused");
    assert!(refused.to_string().contains("refused this process"), "{refused}");
    assert!(Helper::connect(&socket, &token, Duration::from_secs(5)).is_ok());
    drop(silent);
}

/// One program is missing from the object; the others do their work.
#[test]
fn a_probe_that_fails_fails_alone_and_by_name() {
    let _one = skip_or_lock!();
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.o");
    let mut object = std::fs::read(crate::object::object()).unwrap();
    // Strings that end alike lie in one place.
    let name = b"process_exec\0";
    let places: Vec<_> = object.windows(name.len()).enumerate().filter(|(_, w)| *w == name).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| object[at + name.len() - 2] = b'X');
    std::fs::write(&broken, object).unwrap();

    let traffic = &mut Traffic::start();
    let lab = &mut Lab::with_object(Capture::Auto, 4 << 20, &broken);
    let probes = &lab.helper.hello().probes;
    let failed: Vec<_> = probes.iter().filter(|probe| probe.status != Status::Attached).collect();
    assert_eq!(failed.len(), 1, "{failed:#?}");
    assert_eq!((failed[0].program.as_str(), failed[0].hook.as_str()), ("process_exec", "tp_btf:sched_process_exec"));
    assert!(!failed[0].error.is_empty());
    lab.view(0);
    for command in ["connect 127.0.0.1", "plain", "exec", "close"] {
        traffic.run(command);
    }
    let view = lab.view(traffic.pid());
    assert_eq!(view.by_role(role::SERVER).received.payload(), REQUEST);
    assert!(view.execs.is_empty() && !view.exits.is_empty(), "{view:#?}");
}
