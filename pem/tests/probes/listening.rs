//! What plugins listen to, beside HTTP.

use ebpf_abi::{ConnOpen, Header, Kind, protocol, role};
use pem::probes::wire::{Beginning, Listening, Port};

use crate::exchange::{CACHE_ANSWER, CACHE_REQUEST, REQUEST, RESPONSE};
use crate::lab::Lab;
use crate::tiers::{assert_exchange, seen};
use crate::traffic::Traffic;
use crate::view::cast;

/// What a plugin asks for is copied with its number, told by the first bytes or by the port; what it asks for no longer is not.
pub fn listened_to(lab: &mut Lab, traffic: &mut Traffic) {
    let (number, other) = (protocol::PLUGIN_FIRST + 3, protocol::PLUGIN_FIRST + 1);
    let text = |text: &[u8], protocol| {
        let word = text.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Beginning { word, mask: u64::MAX >> (64 - 8 * text.len()), protocol }
    };
    let beginnings = vec![text(b"STORED\r\n", other), text(b"get ", number), text(b"VALUE ", number)];
    lab.helper.listen(&Listening { beginnings: beginnings.clone(), ports: Vec::new() }).unwrap();
    for name in ["cache", "cache_in_pieces"] {
        let view = seen(lab, traffic, "127.0.0.1", name);
        for (role, sent, received) in
            [(role::CLIENT, CACHE_REQUEST, CACHE_ANSWER), (role::SERVER, CACHE_ANSWER, CACHE_REQUEST)]
        {
            let seen = view.by_role(role);
            assert_eq!(seen.last_open().protocol, number, "{name}");
            assert_eq!(seen.sent.payload(), sent, "{name}");
            assert_eq!(seen.received.payload(), received, "{name}");
            assert!(seen.sent.gapless() && seen.received.gapless(), "{name}");
        }
    }
    // HTTP is what it was, and the rest is still not copied.
    assert_exchange(&seen(lab, traffic, "127.0.0.1", "plain"), "plain beside plugins", REQUEST, RESPONSE);
    let view = seen(lab, traffic, "127.0.0.1", "not_http");
    assert!(view.by_role(role::CLIENT).sent.parts.is_empty());

    // By the server's port, whatever the bytes.
    traffic.run("connect 127.0.0.1");
    lab.read();
    let port = lab
        .records
        .drain(..)
        .filter(|record| cast::<Header>(record).kind == Kind::ConnOpen as u16)
        .map(|record| cast::<ConnOpen>(&record))
        .find(|open| open.process.pid == traffic.pid() && open.role == role::CLIENT)
        .expect("the client's end is told at once")
        .remote
        .port;
    lab.helper.listen(&Listening { beginnings: Vec::new(), ports: vec![Port { port, protocol: other }] }).unwrap();
    traffic.run("not_http");
    let view = lab.view(traffic.pid());
    for seen in view.conns.values() {
        let payload = [seen.sent.payload(), seen.received.payload()].concat();
        assert!(payload.starts_with(b"*1\r\n") || payload.starts_with(b"+PONG"), "{view:#?}");
        assert!(seen.sent.parts.values().all(|(data, _)| data.protocol == other));
    }
    assert_eq!(view.conns.len(), 2);
    // Wanted no more: the connection keeps its number and is counted only.
    lab.helper.listen(&Listening::default()).unwrap();
    traffic.run("not_http");
    traffic.run("close");
    let view = lab.view(traffic.pid());
    assert!(view.conns.values().all(|seen| seen.sent.parts.is_empty() && seen.received.parts.is_empty()), "{view:#?}");
    let error = lab
        .helper
        .listen(&Listening { beginnings: vec![Beginning { word: 0, mask: 0, protocol: number }], ports: Vec::new() })
        .unwrap_err();
    assert!(error.to_string().contains("fewer than are needed"), "{error}");
}
