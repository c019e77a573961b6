//! Connections that do not simply end: shut down on one side, reset, with bytes that are read late or never.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use ebpf_abi::role;
use pem::probes::Capture;

use crate::exchange::{REQUEST, RESPONSE, pair, take};
use crate::lab::Lab;
use crate::skip_or_lock;
use crate::traffic::Traffic;
use crate::view::View;

/// Time for the packets of loopback.
const SETTLE: Duration = Duration::from_millis(50);

/// Plays one by its name; false if it is none of these.
pub fn play(name: &str) -> bool {
    let (mut client, mut server) = pair("127.0.0.1");
    client.write_all(REQUEST).unwrap();
    take(&mut server, REQUEST.len());
    match name {
        "half_closed" => {
            client.shutdown(Shutdown::Write).unwrap();
            server.write_all(RESPONSE).unwrap();
            // The client's socket has seen both ends now, but not what is between them.
            drop(server);
            std::thread::sleep(SETTLE);
            take(&mut client, RESPONSE.len() - 3);
            take(&mut client, 3);
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        }
        "reset" => {
            server.write_all(RESPONSE).unwrap();
            reset(server);
            std::thread::sleep(SETTLE);
            take(&mut client, RESPONSE.len());
        }
        "never_read" => {
            server.write_all(RESPONSE).unwrap();
            reset(server);
            std::thread::sleep(SETTLE);
            drop(client);
        }
        "reset_idle" => {
            reset(server);
            std::thread::sleep(SETTLE);
            assert!(client.read(&mut [0; 8]).is_err());
        }
        _ => return false,
    }
    true
}

/// Closes it by a reset.
fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    let linger: *const libc::linger = &linger;
    let set = unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, linger.cast(), size) };
    assert_eq!(set, 0);
    drop(stream);
}

fn view_of(lab: &mut Lab, traffic: &mut Traffic, name: &str) -> View {
    lab.read();
    lab.records.clear();
    traffic.run(name);
    lab.view(traffic.pid())
}

fn every_ending(capture: Capture) {
    let traffic = &mut Traffic::start();
    let lab = &mut Lab::start(capture, 4 << 20);
    for (name, read) in
        [("half_closed", RESPONSE.len()), ("reset", RESPONSE.len()), ("never_read", 0), ("reset_idle", 0)]
    {
        let view = view_of(lab, traffic, name);
        // Bytes that are read after the end belong to the same connection.
        assert_eq!(view.conns.len(), 2, "{name}: {view:#?}");
        let client = view.by_role(role::CLIENT);
        let close = client.close.unwrap_or_else(|| panic!("{name}: {client:#?}"));
        assert_eq!((close.sent_bytes, close.recv_bytes), (REQUEST.len() as u64, read as u64), "{name}");
        assert_eq!(client.received.payload(), &RESPONSE[..read], "{name}");
        assert_eq!(client.closes, 1, "{name}: {client:#?}");
        let server = view.by_role(role::SERVER);
        let sent = if name == "reset_idle" { 0 } else { RESPONSE.len() as u64 };
        assert_eq!(server.close.unwrap().sent_bytes, sent, "{name}");
        assert_eq!(server.closes, 1, "{name}: {server:#?}");
    }
}

#[test]
fn what_is_read_after_the_end_is_counted_before_it_is_told() {
    let _one = skip_or_lock!();
    every_ending(Capture::Socket);
    every_ending(Capture::SysExit);
}
