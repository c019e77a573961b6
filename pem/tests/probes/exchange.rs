//! A connection within one process, and what is said on it.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

pub const REQUEST: &[u8] = b"GET /x?n=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: probes-test\r\n\r\n";
pub const DOWNLOAD_PIECE: usize = 10_000;
pub const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Client's and server's end.
pub fn pair(address: &str) -> (TcpStream, TcpStream) {
    let (bind, connect) = match address {
        "mapped" => ("[::]:0", "127.0.0.1"),
        "::1" => ("[::1]:0", "[::1]"),
        _ => ("127.0.0.1:0", "127.0.0.1"),
    };
    let listener = TcpListener::bind(bind).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(format!("{connect}:{port}")).unwrap();
    let (server, _) = listener.accept().unwrap();
    for end in [&client, &server] {
        end.set_nodelay(true).unwrap();
        end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    (client, server)
}

pub fn take(from: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

/// Waits until `len` bytes can be read at once.
pub fn until_there(from: &TcpStream, len: usize) {
    let mut bytes = vec![0; len];
    while from.peek(&mut bytes).unwrap() < len {}
}

pub fn libc_result(result: isize) -> usize {
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result as usize
}

/// Plays one by its name.
pub fn play_exchange(name: &str, client: &mut TcpStream, server: &mut TcpStream) {
    let answer = |client: &mut TcpStream, server: &mut TcpStream| {
        server.write_all(RESPONSE).unwrap();
        take(client, RESPONSE.len());
    };
    if name == "pipelined" {
        client.write_all(&[REQUEST, REQUEST].concat()).unwrap();
        until_there(server, 2 * REQUEST.len());
        take(server, 2 * REQUEST.len());
        server.write_all(&[RESPONSE, RESPONSE].concat()).unwrap();
        take(client, 2 * RESPONSE.len());
        return;
    }
    if name == "not_http" {
        client.write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
        take(server, 14);
        server.write_all(b"+PONG\r\n").unwrap();
        take(client, 7);
        return;
    }
    client.write_all(REQUEST).unwrap();
    until_there(server, REQUEST.len());
    match name {
        "plain" => {
            take(server, REQUEST.len());
            answer(client, server);
        }
        "peek" => {
            let mut bytes = [0; 100];
            assert_eq!(server.peek(&mut bytes).unwrap(), REQUEST.len());
            take(server, REQUEST.len());
            answer(client, server);
        }
        "short_first" => {
            take(server, 2);
            take(server, REQUEST.len() - 2);
            answer(client, server);
        }
        "byte_by_byte" => {
            (0..REQUEST.len()).for_each(|_| drop(take(server, 1)));
            answer(client, server);
        }
        "head_in_pieces" => {
            let mut left = REQUEST.len();
            while left > 0 {
                let piece = left.min(8);
                take(server, piece);
                left -= piece;
            }
            answer(client, server);
        }
        "response_in_pieces" => {
            take(server, REQUEST.len());
            for piece in [&RESPONSE[..3], &RESPONSE[3..9], &RESPONSE[9..]] {
                server.write_all(piece).unwrap();
                take(client, piece.len());
            }
        }
        "vectors" => {
            let mut bytes = vec![0; REQUEST.len()];
            let (a, rest) = bytes.split_at_mut(1);
            let (b, c) = rest.split_at_mut(2);
            let mut parts = [IoSliceMut::new(a), IoSliceMut::new(&mut []), IoSliceMut::new(b), IoSliceMut::new(c)];
            assert_eq!(server.read_vectored(&mut parts).unwrap(), REQUEST.len());
            let parts = [IoSlice::new(&RESPONSE[..3]), IoSlice::new(&[]), IoSlice::new(&RESPONSE[3..])];
            assert_eq!(server.write_vectored(&parts).unwrap(), RESPONSE.len());
            take(client, RESPONSE.len());
        }
        "messages" => {
            let mut bytes = vec![0u8; REQUEST.len()];
            let mut parts = [
                libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 5 },
                libc::iovec { iov_base: bytes[5..].as_mut_ptr().cast(), iov_len: REQUEST.len() - 5 },
            ];
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), 2);
            assert_eq!(libc_result(unsafe { libc::recvmsg(server.as_raw_fd(), &mut message, 0) }), REQUEST.len());
            assert_eq!(bytes, REQUEST);
            let mut parts: Vec<libc::iovec> = (0..RESPONSE.len())
                .map(|at| libc::iovec { iov_base: RESPONSE[at..].as_ptr().cast_mut().cast(), iov_len: 1 })
                .take(8)
                .collect();
            parts.push(libc::iovec { iov_base: RESPONSE[8..].as_ptr().cast_mut().cast(), iov_len: RESPONSE.len() - 8 });
            (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len());
            assert_eq!(libc_result(unsafe { libc::sendmsg(server.as_raw_fd(), &message, 0) }), RESPONSE.len());
            take(client, RESPONSE.len());
        }
        "sendfile" => {
            take(server, REQUEST.len());
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(RESPONSE).unwrap();
            let mut offset = 0;
            let sent = unsafe { libc::sendfile(server.as_raw_fd(), file.as_raw_fd(), &mut offset, RESPONSE.len()) };
            assert_eq!(libc_result(sent), RESPONSE.len());
            take(client, RESPONSE.len());
        }
        "splice" => {
            // The request goes into a pipe unseen; the next is read as usual.
            let mut pipe = [0; 2];
            assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
            let none = std::ptr::null_mut;
            let moved = unsafe { libc::splice(server.as_raw_fd(), none(), pipe[1], none(), REQUEST.len(), 0) };
            assert_eq!(libc_result(moved), REQUEST.len());
            for fd in pipe {
                unsafe { libc::close(fd) };
            }
            answer(client, server);
            client.write_all(REQUEST).unwrap();
            until_there(server, REQUEST.len());
            take(server, REQUEST.len());
            answer(client, server);
        }
        "continue" => {
            take(server, REQUEST.len());
            server.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            take(client, 25);
            answer(client, server);
        }
        "large" => {
            take(server, REQUEST.len());
            let body = vec![b'z'; 40_000];
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let whole = [head.as_bytes(), &body].concat();
            server.write_all(&whole).unwrap();
            take(client, whole.len());
        }
        "download" => {
            take(server, REQUEST.len());
            let piece = [b'z'; DOWNLOAD_PIECE];
            server
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 20 * piece.len()).as_bytes())
                .unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(take(client, 1));
            }
            for _ in 0..20 {
                server.write_all(&piece).unwrap();
                take(client, piece.len());
            }
            play_exchange("plain", client, server);
        }
        "upgrade" => {
            take(server, REQUEST.len());
            let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
            server.write_all(head).unwrap();
            take(client, head.len());
            client.write_all(b"frames of another protocol").unwrap();
            take(server, 26);
        }
        other => panic!("no exchange {other}"),
    }
}
