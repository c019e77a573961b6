//! The probe path on real sockets: helper, unprivileged reader, and every tier, in processes of their own.
//!
//! The test binary plays all parts: it starts itself again with [`ROLE`] set. Traffic comes from a process that the
//! helper does not ignore; both ends of each connection are in it, so each exchange is seen from both sides.
#![allow(clippy::undocumented_unsafe_blocks, reason = "calls of libc on buffers of the line before")]

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use ebpf_abi::{
    ConnClose, ConnOpen, ConnStats, Data, Header, Kind, Plain, ProcExec, ProcExit, counter, data_flags, direction,
    open_flags, protocol, role,
};
use pem::probes::{
    Capture, Counters, Helper, Reader, Status,
    client::Handover,
    helper::{self, HelperConfig},
    load,
    wire::{Beginning, Listening, Port, ProcessRef, Want},
};

const ROLE: &str = "PYXIS_PROBES_TEST_ROLE";
const REQUEST: &[u8] = b"GET /x?n=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: probes-test\r\n\r\n";
const CACHE_REQUEST: &[u8] = b"get some-key\r\n";
const CACHE_ANSWER: &[u8] = b"VALUE some-key 0 2\r\nhi\r\nEND\r\n";
const DOWNLOAD_PIECE: usize = 10_000;
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Programs of one test would count the traffic of another's processes: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

// === the parts this binary plays ===

/// Not a test: the entry of the other processes.
#[test]
fn part() {
    match std::env::var(ROLE).as_deref() {
        Ok("helper") => play_helper(),
        Ok("traffic") => play_traffic(),
        Ok("reader") => play_reader(),
        _ => {}
    }
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the test"))
}

fn play_helper() {
    let mut config = load::Config::new(object());
    config.capture = env("CAPTURE").parse().unwrap();
    config.ring_bytes = env("RING").parse().unwrap();
    config.survey_period = Duration::from_millis(env("SURVEY_MS").parse().unwrap());
    let config = HelperConfig {
        socket_path: PathBuf::from(env("SOCKET")),
        allowed_uid: env("ALLOWED").parse().unwrap(),
        load: config,
        supervisor: Some(std::os::unix::process::parent_id()).filter(|_| std::env::var("SUPERVISED").is_ok()),
    };
    if let Err(error) = helper::run(config) {
        eprintln!("helper: {error}");
        std::process::exit(3);
    }
}

/// Runs as nobody: reads until there were as many records as wanted, or five seconds.
fn play_reader() {
    let Handover { mut helper, mut reader, counters } =
        Helper::connect(Path::new(&env("SOCKET")), Duration::from_secs(5)).unwrap();
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

fn start_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
}

/// Obeys commands from its standard input, one a line; each is answered by `done` when all its bytes have moved.
fn play_traffic() {
    let stdin = std::io::stdin();
    let mut open: Option<(TcpStream, TcpStream)> = None;
    println!("ready");
    for command in stdin.lock().lines() {
        let command = command.unwrap();
        let (name, argument) = command.split_once(' ').unwrap_or((command.as_str(), ""));
        match name {
            "connect" => open = Some(pair(argument)),
            "close" => open = None,
            "flood" => flood(argument.parse().unwrap()),
            "exec" => assert!(Command::new("/bin/true").status().unwrap().success()),
            "fail" => assert!(!Command::new("/bin/sh").args(["-c", "exit 7"]).status().unwrap().success()),
            "silent" => drop(pair("127.0.0.1")),
            "refused" => refused(),
            exchange => {
                let (client, server) = open.as_mut().expect("connected first");
                play_exchange(exchange, client, server);
            }
        }
        println!("done");
    }
}

/// A connection within this process: client's and server's end.
fn pair(address: &str) -> (TcpStream, TcpStream) {
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

fn refused() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

/// Short exchanges on many connections.
fn flood(count: usize) {
    for _ in 0..count {
        let (mut client, mut server) = pair("127.0.0.1");
        play_exchange("plain", &mut client, &mut server);
    }
}

fn take(from: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

/// Waits until `len` bytes can be read at once.
fn until_there(from: &TcpStream, len: usize) {
    let mut bytes = vec![0; len];
    while from.peek(&mut bytes).unwrap() < len {}
}

fn libc_result(result: isize) -> usize {
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result as usize
}

fn play_exchange(name: &str, client: &mut TcpStream, server: &mut TcpStream) {
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
    if name == "cache" || name == "cache_in_pieces" {
        if name == "cache" {
            client.write_all(CACHE_REQUEST).unwrap();
            take(server, CACHE_REQUEST.len());
        } else {
            // Too few bytes to tell, twice.
            for piece in [&CACHE_REQUEST[..2], &CACHE_REQUEST[2..3], &CACHE_REQUEST[3..]] {
                client.write_all(piece).unwrap();
                take(server, piece.len());
            }
        }
        server.write_all(CACHE_ANSWER).unwrap();
        take(client, CACHE_ANSWER.len());
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

// === what the tests see ===

fn object() -> PathBuf {
    let lib = std::env::var("PYXIS_LIB_DIR").map(PathBuf::from).unwrap_or_else(|_| {
        // target/debug/deps/probes-… or target/debug/…: target/pyxis lies beside the profile's folder.
        let exe = std::env::current_exe().unwrap();
        exe.ancestors()
            .map(|folder| folder.join("pyxis"))
            .find(|lib| lib.join("ebpf").is_dir())
            .unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/pyxis")))
    });
    lib.join("ebpf/pyxis.bpf.o")
}

/// Why these tests cannot run here.
fn lack() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("loading kernel programs needs root".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF".to_owned());
    }
    if !object().exists() {
        return Some(format!("no kernel programs at {}: run `cargo xtask ebpf`", object().display()));
    }
    None
}

fn start(part: &str, settings: &[(&str, &str)], user: Option<u32>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "part", "--nocapture", "--test-threads=1"]).env(ROLE, part);
    command.envs(settings.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.spawn().unwrap()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process that makes traffic.
struct Traffic {
    child: Killed,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Traffic {
    fn start() -> Self {
        let mut child = start("traffic", &[], None);
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut traffic = Self { child: Killed(child), stdin, stdout };
        traffic.until("ready");
        traffic
    }

    fn run(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
        self.until("done");
    }

    fn until(&mut self, word: &str) {
        let mut line = String::new();
        // The test harness prints its own lines, and the first word may stand behind one of them.
        while !line.trim_end().ends_with(word) {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the traffic process ended before `{word}`");
        }
    }

    fn pid(&self) -> u32 {
        self.child.0.id()
    }
}

/// A running helper with this process as its client. Traffic must be started before: what a client of the helper starts
/// later is not traced.
struct Lab {
    helper: Helper,
    reader: Reader,
    counters: Counters,
    records: Vec<Vec<u8>>,
    _process: Killed,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn start(capture: Capture, ring_bytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("helper.sock");
        let process = Killed(start(
            "helper",
            &[
                ("CAPTURE", capture.name()),
                ("RING", &ring_bytes.to_string()),
                ("SOCKET", socket.to_str().unwrap()),
                ("ALLOWED", "0"),
                ("SURVEY_MS", "100"),
            ],
            None,
        ));
        let Handover { helper, reader, counters } = Helper::connect(&socket, Duration::from_secs(5)).unwrap();
        Self { helper, reader, counters, records: Vec::new(), _process: process, _folder: folder }
    }

    fn read(&mut self) {
        // Records are in the ring when the call that caused them returns; closing is told by an interrupt at times.
        std::thread::sleep(Duration::from_millis(30));
        let records = &mut self.records;
        self.reader.for_each(usize::MAX, |record| records.push(record.to_vec())).unwrap();
    }

    /// What was seen of this process's connections, and forgets all records.
    fn view(&mut self, pid: u32) -> View {
        self.read();
        let mut view = View::default();
        for record in self.records.drain(..) {
            view.add(&record, pid);
        }
        view
    }
}

fn cast<T: Plain>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= size_of::<T>(), "a record of {} bytes", bytes.len());
    // SAFETY: long enough, and `Plain` allows every bit pattern.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

#[derive(Default, Debug)]
struct Stream {
    /// By position.
    parts: BTreeMap<u64, (Data, Vec<u8>)>,
}

impl Stream {
    fn payload(&self) -> Vec<u8> {
        self.parts.values().flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Whether each part begins where the one before it ends.
    fn gapless(&self) -> bool {
        self.parts.values().zip(self.parts.values().skip(1)).all(|((a, _), (b, _))| a.pos + a.total as u64 == b.pos)
    }
}

#[derive(Default, Debug)]
struct Seen {
    opens: Vec<ConnOpen>,
    sent: Stream,
    received: Stream,
    stats: Vec<ConnStats>,
    close: Option<ConnStats>,
}

impl Seen {
    fn last_open(&self) -> &ConnOpen {
        self.opens.last().expect("opened")
    }
}

#[derive(Default, Debug)]
struct View {
    conns: BTreeMap<u64, Seen>,
    execs: Vec<ProcExec>,
    exits: Vec<ProcExit>,
}

impl View {
    fn add(&mut self, bytes: &[u8], pid: u32) {
        let header: Header = cast(bytes);
        assert_eq!(header.len as usize, bytes.len(), "the length in a record is its length");
        match Kind::from_u16(header.kind).expect("a known kind") {
            Kind::Data => {
                let data: Data = cast(bytes);
                if data.process.pid != pid {
                    return;
                }
                let payload = bytes[size_of::<Data>()..][..data.captured as usize].to_vec();
                let seen = self.conns.entry(data.conn_id).or_default();
                let stream = if data.direction == direction::SEND { &mut seen.sent } else { &mut seen.received };
                assert!(stream.parts.insert(data.pos, (data, payload)).is_none(), "two records for one position");
            }
            Kind::ConnOpen => {
                let open: ConnOpen = cast(bytes);
                if open.process.pid == pid {
                    self.conns.entry(open.conn_id).or_default().opens.push(open);
                }
            }
            Kind::ConnStats => {
                let stats: ConnStats = cast(bytes);
                if stats.process.pid == pid {
                    self.conns.entry(stats.conn_id).or_default().stats.push(stats);
                }
            }
            Kind::ConnClose => {
                let close: ConnClose = cast(bytes);
                if close.stats.process.pid == pid {
                    self.conns.entry(close.stats.conn_id).or_default().close = Some(close.stats);
                }
            }
            Kind::ProcExec => self.execs.push(cast(bytes)),
            Kind::ProcExit => self.exits.push(cast(bytes)),
        }
    }

    /// The one connection with this role.
    fn by_role(&self, role: u8) -> &Seen {
        let mut found = self.conns.values().filter(|seen| seen.opens.last().is_some_and(|open| open.role == role));
        let seen = found.next().unwrap_or_else(|| panic!("no connection with role {role}: {self:#?}"));
        assert!(found.next().is_none(), "more than one connection with role {role}: {self:#?}");
        seen
    }
}

// === the tests ===

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

    listened_to(lab, traffic);

    // Nothing was sent at all: the client's end is told, with its end; a refused connection never was one.
    lab.view(0);
    traffic.run("silent");
    traffic.run("refused");
    let view = lab.view(traffic.pid());
    assert_eq!(view.conns.len(), 1, "{view:#?}");
    let close = view.by_role(role::CLIENT).close.unwrap();
    assert_eq!((close.sent_bytes, close.recv_bytes), (0, 0));

    assert_eq!(lab.counters.sum().slots[counter::LOST_RING_FULL], 0);
    assert_eq!(lab.counters.sum().slots[counter::LOST_NO_STATE], 0);
    assert_eq!(lab.counters.sum().slots[counter::LOST_FAULT], 0);
}

/// What a plugin asks for is copied with its number, told by the first bytes or by the port; what it asks for no longer is not.
fn listened_to(lab: &mut Lab, traffic: &mut Traffic) {
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

macro_rules! skip_or_lock {
    () => {{
        if let Some(why) = lack() {
            // Not `eprintln`, which the test harness keeps to itself.
            return writeln!(std::io::stderr(), "SKIPPED: {why}").unwrap();
        }
        ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }};
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

#[test]
fn programs_that_come_and_go_are_told() {
    let _one = skip_or_lock!();
    let traffic = &mut Traffic::start();
    let lab = &mut Lab::start(Capture::Auto, 4 << 20);
    lab.view(0);
    traffic.run("exec");
    traffic.run("fail");
    let view = lab.view(traffic.pid());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap()).into_owned();
    let exec = view.execs.iter().find(|exec| text(&exec.filename) == "/bin/true").expect("exec of /bin/true");
    assert_eq!(text(&exec.comm), "true");
    let exit = view.exits.iter().find(|exit| exit.process == exec.process).expect("its end");
    assert_eq!((exit.exit_code, exit.signal), (0, 0));
    let failed = view.execs.iter().find(|exec| text(&exec.filename) == "/bin/sh").expect("exec of /bin/sh");
    let exit = view.exits.iter().find(|exit| exit.process == failed.process).expect("its end");
    assert_eq!((exit.exit_code, exit.signal), (7, 0));
}

#[test]
fn a_program_killed_by_a_signal_is_told_so() {
    let _one = skip_or_lock!();
    let traffic = Traffic::start();
    let lab = &mut Lab::start(Capture::Auto, 4 << 20);
    let pid = traffic.pid();
    drop(traffic);
    let view = lab.view(pid);
    let exit = view.exits.iter().find(|exit| exit.process.pid == pid).expect("its end");
    assert_eq!((exit.exit_code, exit.signal), (0, 9));
}

/// What the numbers in the records tell.
#[derive(Default)]
struct Numbers {
    next: HashMap<u16, u64>,
    gaps: u64,
    records: u64,
}

impl Numbers {
    fn follow(&mut self, records: &mut Vec<Vec<u8>>) {
        for record in records.drain(..) {
            let header: Header = cast(&record);
            let expected = self.next.entry(header.cpu).or_insert(0);
            self.records += 1;
            if header.seq < *expected {
                // An interrupt came between taking a number and taking room in the ring: it fills the gap it left.
                self.gaps -= 1;
                continue;
            }
            self.gaps += header.seq - *expected;
            *expected = header.seq + 1;
        }
    }
}

#[test]
fn what_a_full_ring_loses_is_counted_exactly() {
    let _one = skip_or_lock!();
    let traffic = &mut Traffic::start();
    let lab = &mut Lab::start(Capture::Auto, 64 << 10);
    // Nobody reads meanwhile: 64 KiB are full after some 150 of these exchanges.
    traffic.run("flood 500");
    lab.read();
    let mut seen = Numbers::default();
    seen.follow(&mut lab.records);
    // With room again, further exchanges show the last gap of each CPU. Other programs on this machine may add records
    // between two of our looks, so look until the counters stand still.
    let mut before = lab.counters.sum();
    for _ in 0..100 {
        traffic.run("flood 5");
        lab.read();
        seen.follow(&mut lab.records);
        let now = lab.counters.sum();
        lab.read();
        seen.follow(&mut lab.records);
        let still = lab.counters.sum();
        before = now;
        if still == now && seen.gaps == now.slots[counter::LOST_RING_FULL] {
            break;
        }
    }
    let counters = before;
    let (wanted, lost) = (counters.slots[counter::RECORDS], counters.slots[counter::LOST_RING_FULL]);
    assert!(lost > 500, "the ring was to overflow, lost {lost} of {wanted}");
    assert_eq!(wanted, seen.records + lost);
    assert_eq!(seen.gaps, lost);
    assert!(counters.slots[counter::LOST_RING_BYTES] > 0);
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
    let _helper = Killed(start(
        "helper",
        &[("CAPTURE", "auto"), ("RING", "1048576"), ("SOCKET", path), ("ALLOWED", "65534"), ("SURVEY_MS", "5000")],
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
    let refused = Helper::connect(&socket, Duration::from_secs(1)).err().expect("refused").to_string();
    assert!(refused.contains("refused this user"), "{refused}");

    let mut reader = Command::new(&binary)
        .args(["--exact", "part", "--nocapture", "--test-threads=1"])
        .envs([(ROLE, "reader"), ("SOCKET", path), ("PEER", &traffic.pid().to_string())])
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
    let settings = [
        ("CAPTURE", "auto"),
        ("RING", "1048576"),
        ("SOCKET", socket.to_str().unwrap()),
        ("ALLOWED", "0"),
        ("SURVEY_MS", "100"),
        ("SUPERVISED", "1"),
    ];
    let process = Killed(start("helper", &settings, None));
    let Handover { helper, reader, counters } = Helper::connect(&socket, Duration::from_secs(5)).unwrap();
    let mut lab = Lab { helper, reader, counters, records: Vec::new(), _process: process, _folder: folder };
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
    let socket = lab._folder.path().join("helper.sock");
    traffic.run("connect 127.0.0.1");
    traffic.run("plain");
    let first = lab.view(traffic.pid());
    assert_eq!(first.by_role(role::SERVER).received.payload(), REQUEST);
    let Lab { helper, reader, counters, _process, _folder, .. } = lab;
    drop((helper, reader, counters));
    traffic.run("plain");
    let Handover { helper, reader, counters } = Helper::connect(&socket, Duration::from_secs(5)).unwrap();
    let mut lab = Lab { helper, reader, counters, records: Vec::new(), _process, _folder };
    let second = lab.view(traffic.pid());
    let received: Vec<_> = second.conns.values().map(|seen| seen.received.payload()).collect();
    assert!(received.contains(&REQUEST.to_vec()), "{second:#?}");
    let positions: Vec<_> = second.conns.values().flat_map(|seen| seen.received.parts.keys().copied()).collect();
    assert!(!positions.contains(&0), "the first exchange is not told again");
    let stats = lab.helper.programs().unwrap();
    assert!(stats.iter().any(|stats| stats.program == "process_exec"), "{stats:?}");
}
