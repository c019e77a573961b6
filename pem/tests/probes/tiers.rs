//! Every way of seeing socket calls, on every form of exchange.

use ebpf_abi::{counter, data_flags, open_flags, protocol, role};
use pem::probes::{Capture, Status};

use crate::exchange::{DOWNLOAD_PIECE, REQUEST, RESPONSE};
use crate::lab::Lab;
use crate::process::start_ticks;
use crate::skip_or_lock;
use crate::traffic::Traffic;
use crate::view::View;

/// Runs `exchange` on a fresh connection, and gives what was seen of it.
fn seen(lab: &mut Lab, traffic: &mut Traffic, address: &str, exchange: &str) -> View {
    lab.read();
    lab.records.clear();
    traffic.run(&format!("connect {address}"));
    traffic.run(exchange);
    traffic.run("close");
    lab.view(traffic.pid())
}

fn assert_exchange(view: &View, name: &str, sent: &[u8], answered: &[u8]) {
    let (client, server) = (view.by_role(role::CLIENT), view.by_role(role::SERVER));
    let show = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let want = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(show(client.sent.payload()), want(sent), "{name}: request as sent");
    assert_eq!(show(server.received.payload()), want(sent), "{name}: request as received");
    assert_eq!(show(server.sent.payload()), want(answered), "{name}: response as sent");
    assert_eq!(show(client.received.payload()), want(answered), "{name}: response as received");
    for (side, seen, sent, received) in [("client", client, sent, answered), ("server", server, answered, sent)] {
        for stream in [&seen.sent, &seen.received] {
            assert!(stream.gapless(), "{name}: {side}: {stream:?}");
            assert!(stream.parts.keys().next().is_none_or(|pos| *pos == 0), "{name}: {side} begins at 0");
            for (data, _) in stream.parts.values() {
                assert_ne!(data.flags & data_flags::POS_EXACT, 0, "{name}: {side}: {data:?}");
            }
        }
        let open = seen.last_open();
        assert_eq!((open.protocol, open.flags & open_flags::EXISTING), (protocol::HTTP, 0), "{name}: {side}");
        let close = seen.close.unwrap_or_else(|| panic!("{name}: {side} was not closed"));
        assert_eq!((close.sent_bytes, close.recv_bytes), (sent.len() as u64, received.len() as u64), "{name}: {side}");
    }
}

fn every_exchange(capture: Capture) {
    let traffic = &mut Traffic::start();
    let lab = &mut Lab::start(capture, 4 << 20);
    assert_eq!(lab.helper.hello().capture, capture);
    let failed: Vec<_> = lab.helper.hello().probes.iter().filter(|probe| probe.status != Status::Attached).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let twice = |bytes: &[u8]| [bytes, bytes].concat();

    for (name, address) in [("plain", "127.0.0.1"), ("plain", "::1"), ("plain", "mapped")] {
        let view = seen(lab, traffic, address, name);
        assert_exchange(&view, address, REQUEST, RESPONSE);
        let (client, server) = (view.by_role(role::CLIENT).last_open(), view.by_role(role::SERVER).last_open());
        let family = if address == "::1" { 10 } else { 2 };
        assert_eq!((client.local, client.remote), (server.remote, server.local), "{address}");
        assert_eq!((client.local.family, client.remote.family), (family, family));
        let loopback = if family == 10 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        } else {
            [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        };
        assert_eq!(client.remote.addr, loopback, "{address}");
        assert_ne!((client.local.port, client.remote.port), (0, 0));
        assert_eq!(
            client.netns as u64,
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/net").unwrap())
        );
        assert_eq!(client.process.start_ns / 10_000_000, start_ticks(traffic.pid()));
    }
    for name in ["peek", "short_first", "byte_by_byte", "head_in_pieces", "response_in_pieces", "vectors", "messages"] {
        assert_exchange(&seen(lab, traffic, "127.0.0.1", name), name, REQUEST, RESPONSE);
    }
    let with_continue = [b"HTTP/1.1 100 Continue\r\n\r\n", RESPONSE].concat();
    assert_exchange(&seen(lab, traffic, "127.0.0.1", "continue"), "continue", REQUEST, &with_continue);
    let view = seen(lab, traffic, "127.0.0.1", "pipelined");
    assert_exchange(&view, "pipelined", &twice(REQUEST), &twice(RESPONSE));

    // The payload of sendfile never was in the caller's memory: its bytes are told, and only they.
    let view = seen(lab, traffic, "127.0.0.1", "sendfile");
    let server = view.by_role(role::SERVER);
    let (data, payload) = server.sent.parts.values().next().unwrap();
    assert_eq!((data.total as usize, data.captured, payload.len()), (RESPONSE.len(), 0, 0));
    assert_ne!(data.flags & data_flags::OPAQUE, 0);
    assert_eq!(view.by_role(role::CLIENT).received.payload(), RESPONSE);
    assert_eq!(server.close.unwrap().sent_bytes, RESPONSE.len() as u64);

    // What was spliced away shows as a jump, and is counted.
    let before = lab.counters.sum().slots[counter::BYTES_OPAQUE];
    let view = seen(lab, traffic, "127.0.0.1", "splice");
    let server = view.by_role(role::SERVER);
    assert_eq!(server.received.parts.keys().copied().collect::<Vec<_>>(), [REQUEST.len() as u64]);
    assert_eq!(server.received.payload(), REQUEST);
    assert_eq!(server.close.unwrap().recv_bytes, 2 * REQUEST.len() as u64);
    assert_eq!(lab.counters.sum().slots[counter::BYTES_OPAQUE] - before, REQUEST.len() as u64);

    // A long response is copied up to the limit of a call; the rest is told.
    let before = lab.counters.sum().slots[counter::BYTES_OVER_CAP];
    let view = seen(lab, traffic, "127.0.0.1", "large");
    let server = view.by_role(role::SERVER);
    let total: u64 = server.sent.parts.values().map(|(data, _)| data.total as u64).sum();
    let captured: u64 = server.sent.parts.values().map(|(data, _)| data.captured as u64).sum();
    assert_eq!((total, captured), (server.close.unwrap().sent_bytes, ebpf_abi::CALL_BYTES_DEFAULT as u64));
    assert!(total > 40_000 && server.sent.gapless());
    assert!(lab.counters.sum().slots[counter::BYTES_OVER_CAP] - before >= total - captured);

    // Of a body in many calls, the run is copied, then the beginning of each call; the next response whole again.
    let view = seen(lab, traffic, "127.0.0.1", "download");
    let server = view.by_role(role::SERVER);
    let captured: Vec<_> = server.sent.parts.values().map(|(data, _)| data.captured as usize).collect();
    let whole = ebpf_abi::RUN_BYTES_DEFAULT as usize / DOWNLOAD_PIECE + 1;
    assert!(captured[1..=whole].iter().all(|captured| *captured == DOWNLOAD_PIECE), "{captured:?}");
    assert!(
        captured[whole + 1..=20].iter().all(|captured| *captured == ebpf_abi::RUN_TAIL_BYTES as usize),
        "{captured:?}"
    );
    assert_eq!(captured[21..], [RESPONSE.len()]);
    assert!(server.sent.gapless());

    // After 101 the connection speaks something else.
    let view = seen(lab, traffic, "127.0.0.1", "upgrade");
    let client = view.by_role(role::CLIENT);
    assert_eq!(client.sent.payload(), REQUEST);
    assert_eq!(client.close.unwrap().sent_bytes, REQUEST.len() as u64 + 26);

    // Other protocols are counted, not copied.
    let view = seen(lab, traffic, "127.0.0.1", "not_http");
    for (role, sent, received) in [(role::CLIENT, 14, 7), (role::SERVER, 7, 14)] {
        let seen = view.by_role(role);
        assert!(seen.sent.parts.is_empty() && seen.received.parts.is_empty());
        let close = seen.close.unwrap();
        assert_eq!((close.sent_bytes, close.recv_bytes, close.protocol), (sent, received, protocol::UNKNOWN));
    }

    // Nothing was sent at all: both ends are told, with whose they were; a refused connection never was one.
    lab.view(0);
    traffic.run("silent");
    traffic.run("refused");
    let view = lab.view(traffic.pid());
    assert_eq!(view.conns.len(), 2, "{view:#?}");
    for role in [role::CLIENT, role::SERVER] {
        let close = view.by_role(role).close.unwrap();
        assert_eq!((close.sent_bytes, close.recv_bytes), (0, 0));
    }

    assert_eq!(lab.counters.sum().slots[counter::LOST_RING_FULL], 0);
    assert_eq!(lab.counters.sum().slots[counter::LOST_NO_STATE], 0);
    assert_eq!(lab.counters.sum().slots[counter::LOST_FAULT], 0);
}

#[test]
fn socket_tracepoints_see_every_exchange_whole() {
    let _one = skip_or_lock!();
    every_exchange(Capture::Socket);
}

#[test]
fn sys_exit_alone_sees_every_exchange_whole() {
    let _one = skip_or_lock!();
    every_exchange(Capture::SysExit);
}

#[test]
fn tracepoints_per_call_see_every_exchange_whole() {
    let _one = skip_or_lock!();
    every_exchange(Capture::Syscalls);
}
