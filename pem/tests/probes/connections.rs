//! Connections in all their states.

use std::time::Duration;

use ebpf_abi::{open_flags, role};
use pem::probes::client::Handover;
use pem::probes::{Capture, Helper};

use crate::exchange::{REQUEST, RESPONSE};
use crate::lab::Lab;
use crate::process::start_ticks;
use crate::skip_or_lock;
use crate::traffic::{THREAD_EXCHANGES, THREADS, Traffic, UPLOAD_BYTES};

#[test]
fn a_connection_from_before_is_taken_up_where_it_is() {
    let _one = skip_or_lock!();
    let traffic = &mut Traffic::start();
    traffic.run("connect 127.0.0.1");
    traffic.run("plain");
    let lab = &mut Lab::start(Capture::Auto, 4 << 20);
    traffic.run("plain");
    traffic.run("close");
    let view = lab.view(traffic.pid());
    for (role, sent, received) in [(role::CLIENT, REQUEST, RESPONSE), (role::SERVER, RESPONSE, REQUEST)] {
        let seen = view.by_role(role);
        assert_ne!(seen.last_open().flags & open_flags::EXISTING, 0);
        assert_eq!((seen.sent.payload(), seen.received.payload()), (sent.to_vec(), received.to_vec()));
        let close = seen.close.unwrap();
        assert_eq!((close.sent_bytes, close.recv_bytes), (sent.len() as u64, received.len() as u64));
    }
}

/// Both ends of a connection that was there before, as told before it says a word; then its last bytes.
fn silent_connections(capture: Capture) {
    let traffic = &mut Traffic::start();
    traffic.run("connect 127.0.0.1");
    let lab = &mut Lab::start(capture, 4 << 20);
    std::thread::sleep(Duration::from_millis(300));
    let view = lab.view(traffic.pid());
    assert_eq!(view.conns.len(), 2, "{view:#?}");
    for seen in view.conns.values() {
        let open = seen.last_open();
        assert_eq!((open.role, open.flags & open_flags::EXISTING), (role::UNKNOWN, open_flags::EXISTING));
        assert_eq!(open.process.start_ns / 10_000_000, start_ticks(traffic.pid()));
        let link = std::fs::read_link(format!("/proc/{}/fd/{}", traffic.pid(), open.fd)).unwrap();
        assert!(link.to_string_lossy().starts_with("socket:"), "{link:?}");
    }
    traffic.run("not_http");
    std::thread::sleep(Duration::from_millis(300));
    let view = lab.view(traffic.pid());
    let mut told: Vec<_> = view
        .conns
        .values()
        .map(|seen| seen.stats.last().expect("told without a further word"))
        .map(|stats| (stats.sent_bytes, stats.recv_bytes))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [(7, 14), (14, 7)]);
}

#[test]
fn silent_connections_are_told_by_the_survey() {
    let _one = skip_or_lock!();
    silent_connections(Capture::Socket);
    silent_connections(Capture::SysExit);
}

/// Connections that one reader was told of, as the next one is: with both ends, and counts to go on from.
fn next_reader(capture: Capture) {
    let traffic = &mut Traffic::start();
    let mut lab = Lab::start(capture, 1 << 20);
    traffic.run("connect 127.0.0.1");
    traffic.run("plain");
    let first = lab.view(traffic.pid());
    let Lab { helper, reader, counters, token, process, folder, .. } = lab;
    assert!(helper.hello().told.is_empty());
    drop((helper, reader, counters));
    // Nobody says a word; the helper sees to it all the same.
    std::thread::sleep(Duration::from_millis(200));
    let socket = folder.path().join("helper.sock");
    let Handover { helper, reader, counters } = Helper::connect(&socket, &token, Duration::from_secs(5)).unwrap();
    assert!(!helper.hello().told.is_empty(), "what was counted until then");
    let mut lab = Lab { helper, reader, counters, token, records: Vec::new(), process, folder };
    let silent = lab.view(traffic.pid());
    for role in [role::CLIENT, role::SERVER] {
        let (before, again) = (first.by_role(role), silent.by_role(role));
        let (old, new) = (&before.opens[0], again.last_open());
        assert_eq!((old.conn_id, old.local, old.remote), (new.conn_id, new.local, new.remote), "{capture}");
        assert_eq!((old.flags & open_flags::AGAIN, new.flags), (0, open_flags::AGAIN), "{capture}");
        let counts = again.stats.first().expect("told with it");
        let (sent, received) = if role == role::CLIENT { (REQUEST, RESPONSE) } else { (RESPONSE, REQUEST) };
        assert_eq!((counts.sent_bytes, counts.recv_bytes), (sent.len() as u64, received.len() as u64));
        assert!(counts.header.time_ns <= new.header.time_ns);
    }
    // It is told once: the next call is no news.
    traffic.run("plain");
    let after = lab.view(traffic.pid());
    assert!(after.conns.values().all(|seen| seen.opens.is_empty()), "{after:#?}");
    traffic.run("close");
    let end = lab.view(traffic.pid());
    assert!(end.conns.values().all(|seen| seen.closes == 1) && end.conns.len() == 2, "{end:#?}");
}

#[test]
fn the_next_reader_is_told_of_connections_again() {
    let _one = skip_or_lock!();
    next_reader(Capture::Socket);
    next_reader(Capture::SysExit);
}

#[test]
fn a_descriptor_used_again_is_another_connection() {
    let _one = skip_or_lock!();
    for capture in [Capture::Socket, Capture::SysExit] {
        let traffic = &mut Traffic::start();
        let lab = &mut Lab::start(capture, 4 << 20);
        traffic.run("reuse");
        let view = lab.view(traffic.pid());
        assert_eq!(view.conns.len(), 6, "{capture}: {view:#?}");
        for role in [role::CLIENT, role::SERVER] {
            let of_role: Vec<_> = view.conns.values().filter(|seen| seen.last_open().role == role).collect();
            assert_eq!(of_role.len(), 3, "{capture}");
            let (sent, received) = if role == role::CLIENT { (REQUEST, RESPONSE) } else { (RESPONSE, REQUEST) };
            for seen in of_role {
                assert_eq!((seen.sent.payload(), seen.received.payload()), (sent.to_vec(), received.to_vec()));
                assert_eq!(seen.closes, 1, "{capture}");
                assert_eq!(seen.last_open().flags & open_flags::EXISTING, 0, "{capture}");
            }
        }
    }
}

#[test]
fn threads_that_share_a_socket_speak_on_one_connection() {
    let _one = skip_or_lock!();
    for capture in [Capture::Socket, Capture::SysExit] {
        let traffic = &mut Traffic::start();
        let lab = &mut Lab::start(capture, 4 << 20);
        traffic.run("connect 127.0.0.1");
        traffic.run("threads");
        traffic.run("close");
        let view = lab.view(traffic.pid());
        let times = THREADS * THREAD_EXCHANGES;
        for (role, sent, received) in [(role::CLIENT, REQUEST, RESPONSE), (role::SERVER, RESPONSE, REQUEST)] {
            let seen = view.by_role(role);
            assert!(seen.sent.gapless() && seen.received.gapless(), "{capture}");
            assert_eq!((seen.sent.payload(), seen.received.payload()), (sent.repeat(times), received.repeat(times)));
            let close = seen.close.unwrap();
            assert_eq!(
                (close.sent_bytes, close.recv_bytes),
                ((sent.len() * times) as u64, (received.len() * times) as u64)
            );
        }
    }
}

#[test]
fn a_socket_in_the_middle_of_a_large_write_has_sane_positions() {
    let _one = skip_or_lock!();
    for capture in [Capture::Socket, Capture::SysExit] {
        let traffic = &mut Traffic::start();
        traffic.run("connect 127.0.0.1");
        traffic.run("block");
        let lab = &mut Lab::start(capture, 4 << 20);
        // Long enough for the survey to meet it.
        std::thread::sleep(Duration::from_millis(300));
        traffic.run("unblock");
        traffic.run("plain");
        let view = lab.view(traffic.pid());
        let client = view.by_role(role::CLIENT);
        let (&first, (data, _)) = client.sent.parts.iter().next().unwrap();
        assert_eq!(first, 0, "{capture}: {data:?}");
        assert!(client.sent.gapless(), "{capture}");
        let total: u64 = client.sent.parts.values().map(|(data, _)| u64::from(data.total)).sum();
        assert!(total > UPLOAD_BYTES as u64, "{capture}");
        assert!(client.sent.payload().ends_with(REQUEST), "{capture}");
    }
}
