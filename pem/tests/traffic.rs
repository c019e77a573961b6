//! Real programs, the real kernel programs, and the core: what was sent is in the tables, once.
//!
//! Needs root and the kernel object (`cargo xtask ebpf`); says so and passes elsewhere. Servers listen on loopback, on
//! ports that the kernel picks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::Array;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use ebpf_abi::RING_BYTES;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pem::core::{Config, Core};
use pem::input::{Input, Loss};
use pem::probes::{Counters, Reader, load};
use pem::sources::{self, LocalProc, Sources, clock};
use pem_tables::{Store, StoreConfig, TimeRange, catalog};

/// Programs of one test would see the traffic of another's: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// An agent in this process.
struct Agent {
    store: Arc<Store>,
    core: Core,
    sources: Sources,
    local: LocalProc,
    reader: Reader,
    counters: Counters,
    _probes: load::Probes,
}

impl Agent {
    fn start() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: loading kernel programs needs root");
            return None;
        }
        let object = object();
        if !object.is_file() {
            eprintln!("SKIPPED: no kernel object at {}: build it with `cargo xtask ebpf`", object.display());
            return None;
        }
        let mut config = load::Config::new(object);
        // This process reads; only what it starts later is watched, so nothing but itself is left out.
        config.ignore_pids = Vec::new();
        let probes = match load::Probes::load(&config) {
            Ok(probes) => probes,
            Err(error) => {
                eprintln!("SKIPPED: this kernel does not take the programs: {error}");
                return None;
            }
        };
        let owned = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let reader = Reader::new(owned(probes.ring().as_fd()), RING_BYTES).unwrap();
        let counters = Counters::new(owned(probes.counters().as_fd())).unwrap();
        let store = Store::new(StoreConfig::default(), catalog::ALL);
        let mut agent = Self {
            core: Core::new(Config::default(), &store),
            store,
            sources: Sources::new(sources::Config::default()),
            local: LocalProc::default(),
            reader,
            counters,
            _probes: probes,
        };
        agent.round();
        Some(agent)
    }

    /// What an agent's loop does once.
    fn round(&mut self) {
        let Self { core, sources, local, reader, counters, .. } = self;
        // The clock comes with the first poll, and records need it.
        sources.poll(clock::boot_ns(), reader.waiting(), local, &mut |input| core.apply(input));
        reader
            .for_each(usize::MAX, |record| {
                sources.observe(record);
                core.apply(Input::Record(record));
            })
            .unwrap();
        for (cpu, counted) in counters.active() {
            core.apply(Input::Loss(Loss { time_ns: clock::boot_ns(), cpu, slots: counted.slots }));
        }
        core.apply(Input::Tick { now_ns: clock::boot_ns() });
    }

    /// Goes on until this holds of the tables, or for ten seconds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds(self) {
            assert!(Instant::now() < deadline, "not {what} in time:\n{}", self.dump());
            self.reader.wait(Duration::from_millis(50)).unwrap();
            self.round();
        }
    }

    /// Runs a program to its end while watching.
    fn run(&mut self, command: &mut Command) -> String {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = out.read_to_string(&mut text);
            text
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            self.round();
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{command:?} hangs");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut errors = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut errors);
        assert!(status.success(), "{command:?}: {status}\n{errors}");
        self.round();
        reading.join().unwrap()
    }

    /// Rows of a table: some columns as text.
    fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let table = self.store.table(table).unwrap();
        let indices: Vec<usize> = columns.iter().map(|name| table.spec().column_index(name).unwrap()).collect();
        let options = FormatOptions::default();
        let mut rows = Vec::new();
        // A projection need not keep the order asked for: columns are found by name.
        for batch in table.scan(TimeRange::ALL, None) {
            let formatters: Vec<_> = indices
                .iter()
                .map(|index| ArrayFormatter::try_new(batch.column(*index) as &dyn Array, &options).unwrap())
                .collect();
            rows.extend((0..batch.num_rows()).map(|row| formatters.iter().map(|f| f.value(row).to_string()).collect()));
        }
        rows
    }

    /// Requests to a port that its server answered (role 2), or that were sent to it (role 1).
    fn requests(&self, port: u16, role: u8) -> Vec<Row> {
        let columns = [
            "req_method",
            "req_path",
            "resp_status",
            "resp_body",
            "req_body",
            "resp_body_size",
            "latency",
            "remote_addr",
            "upid",
            "resp_message",
        ];
        let port_column = if role == 2 { "local_port" } else { "remote_port" };
        let columns: Vec<&str> = [port_column, "trace_role"].into_iter().chain(columns).collect();
        let mut rows = Vec::new();
        for row in self.rows("http_events", &columns) {
            let [p, r, method, path, status, body, req_body, size, latency, remote, upid, message] =
                row.try_into().unwrap();
            if p == port.to_string() && r == role.to_string() {
                let (status, size, latency) =
                    (status.parse().unwrap(), size.parse().unwrap(), latency.parse().unwrap());
                rows.push(Row { method, path, status, body, req_body, size, latency, remote, upid, message });
            }
        }
        rows
    }

    fn losses(&self) -> Vec<Vec<String>> {
        self.rows("data_loss", &["source", "table_name", "reason", "events", "bytes"])
    }

    fn dump(&self) -> String {
        let rows = self.rows("http_events", &["trace_role", "local_port", "remote_port", "req_path", "resp_status"]);
        format!(
            "{} rows, the last {:?}\nlosses {:?}",
            rows.len(),
            rows.iter().rev().take(10).collect::<Vec<_>>(),
            self.losses()
        )
    }
}

#[derive(Debug, Clone)]
struct Row {
    method: String,
    path: String,
    status: u16,
    body: String,
    req_body: String,
    size: u64,
    latency: i64,
    remote: String,
    upid: String,
    message: String,
}

fn object() -> PathBuf {
    let lib = std::env::var("PYXIS_LIB_DIR").map(PathBuf::from).unwrap_or_else(|_| {
        let exe = std::env::current_exe().unwrap();
        exe.ancestors()
            .map(|folder| folder.join("pyxis"))
            .find(|lib| lib.join("ebpf").is_dir())
            .unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/pyxis")))
    });
    lib.join("ebpf/pyxis.bpf.o")
}

/// A server that ends with the test.
struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked, not killed: nginx's workers end with their master only so.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Server {
    /// A program that prints its port as its first line.
    fn telling(command: &mut Command, folder: tempfile::TempDir) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("{command:?} printed {line:?} for its port"));
        Self { child, port, _folder: folder }
    }

    fn python(address: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file.txt"), "x".repeat(100_000)).unwrap();
        fs::write(folder.path().join("small.json"), "{\"ok\":true}").unwrap();
        let program = format!(
            "import http.server,socket\n\
             class S(http.server.ThreadingHTTPServer):\n  address_family=socket.AF_INET6 if ':' in '{address}' else socket.AF_INET\n\
             class H(http.server.SimpleHTTPRequestHandler):\n  log_message=lambda *a: None\n\
             s=S(('{address}',0),H)\nprint(s.server_address[1],flush=True)\ns.serve_forever()"
        );
        Self::telling(Command::new("python3").args(["-c", &program]).current_dir(folder.path()), folder)
    }

    fn node() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = "
            const http = require('http'), zlib = require('zlib');
            const s = http.createServer((q, r) => {
              let got = 0; q.on('data', d => got += d.length); q.on('end', () => {
                if (q.url.startsWith('/chunked')) { r.setHeader('Content-Type', 'text/plain');
                  r.write('part one, '); setTimeout(() => { r.write('part two'); r.end(); }, 30); }
                else if (q.url.startsWith('/gzip')) { const b = zlib.gzipSync(JSON.stringify({hello: 'world'.repeat(20)}));
                  r.writeHead(200, {'Content-Type': 'application/json', 'Content-Encoding': 'gzip', 'Content-Length': b.length}); r.end(b); }
                else if (q.url.startsWith('/br')) { const b = zlib.brotliCompressSync('brotli says hello');
                  r.writeHead(200, {'Content-Type': 'text/plain', 'Content-Encoding': 'br'}); r.end(b); }
                else if (q.url.startsWith('/big')) { r.setHeader('Content-Type', 'text/plain');
                  for (let i = 0; i < 40; i++) r.write('y'.repeat(50000)); r.end(); }
                else if (q.url.startsWith('/slow')) { setTimeout(() => { r.setHeader('Content-Type', 'text/plain'); r.end('late'); }, 120); }
                else if (q.url.startsWith('/never')) { }
                else { r.setHeader('Content-Type', 'application/json'); r.end(JSON.stringify({url: q.url, got})); }
              });
            });
            s.listen(0, '127.0.0.1', () => console.log(s.address().port));";
        Self::telling(Command::new("node").args(["-e", program]), folder)
    }

    /// nginx with `workers` workers that serves `/static/` from files and anything else from its configuration.
    fn nginx(workers: u32) -> Option<Self> {
        if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: no nginx");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // Its workers are another user: the folder must let them in.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let root = folder.path().display();
        fs::create_dir(folder.path().join("static")).unwrap();
        fs::write(folder.path().join("static/page.html"), "<p>".repeat(10_000)).unwrap();
        // nginx takes no port 0: one that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "daemon off; master_process on; worker_processes {workers}; pid {root}/pid; error_log {root}/error.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; sendfile on; keepalive_requests 1000000; types {{ text/html html; }}\n\
             client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
             server {{ listen 127.0.0.1:{port} backlog=1024; root {root};\n\
             location / {{ default_type text/plain; return 200 'ok $request_uri'; }} location /static/ {{ }} }} }}"
        );
        fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let child = Command::new("nginx")
            .args(["-p", &root.to_string(), "-c", &folder.path().join("nginx.conf").display().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

fn curl() -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--output", "/dev/null"]);
    command
}

#[test]
fn curl_and_python_are_seen_from_both_sides_over_both_families() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(mut agent) = Agent::start() else { return };
    for (address, host) in [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")] {
        let server = Server::python(address);
        let url = |path: &str| format!("http://{host}:{}{path}", server.port);
        agent.run(curl().args([url("/small.json"), url("/file.txt"), url("/none")]));
        for role in [1, 2] {
            agent.until("three rows", |agent| agent.requests(server.port, role).len() >= 3);
            let rows = agent.requests(server.port, role);
            let seen: Vec<_> = rows.iter().map(|r| (r.path.as_str(), r.status)).collect();
            assert_eq!(seen, [("/small.json", 200), ("/file.txt", 200), ("/none", 404)], "role {role}");
            assert_eq!(rows[0].body, "{\"ok\":true}");
            assert_eq!((rows[1].size, &rows[1].body[..5]), (100_000, "xxxxx"));
            assert!(rows.iter().all(|r| r.remote == address && r.latency > 0), "{rows:?}");
        }
    }
    agent.until("connections told", |agent| agent.rows("conn_stats", &["conn_close"]).iter().any(|row| row[0] != "0"));
}

#[test]
fn node_answers_are_read_whatever_their_framing_and_coding() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(mut agent) = Agent::start() else { return };
    let server = Server::node();
    let paths = ["/chunked", "/gzip", "/br", "/big", "/slow", "/plain"];
    // One connection for all, which curl keeps alive.
    agent.run(curl().args(paths.map(|path| server.url(path))));
    agent.run(curl().args(["--data", "name=value", &server.url("/form")]));
    // curl gives up after a second and says so with 28.
    agent.run(Command::new("sh").args(["-c", &format!("curl -s -m 1 {}; test $? = 28", server.url("/never"))]));
    for role in [1, 2] {
        agent.until("all rows", |agent| agent.requests(server.port, role).len() >= 8);
        let rows: BTreeMap<String, Row> =
            agent.requests(server.port, role).into_iter().map(|r| (r.path.clone(), r)).collect();
        assert_eq!(rows["/chunked"].body, "part one, part two");
        assert!(rows["/chunked"].latency > 25_000_000, "{:?}", rows["/chunked"]);
        assert!(rows["/gzip"].body.starts_with("{\"hello\":\"worldworld"), "{:?}", rows["/gzip"]);
        assert_eq!(rows["/br"].body, "brotli says hello");
        // Of a call only the beginning is copied. Where chunks lie in the rest nobody saw: their framing is counted in.
        assert!((2_000_000..2_001_000).contains(&rows["/big"].size), "{:?}", rows["/big"].size);
        assert!((115_000_000..1_000_000_000).contains(&rows["/slow"].latency), "{:?}", rows["/slow"]);
        assert_eq!(rows["/plain"].body, "{\"url\":\"/plain\",\"got\":0}");
        assert_eq!((rows["/form"].method.as_str(), rows["/form"].req_body.as_str()), ("POST", "name=value"));
        assert_eq!((rows["/never"].status, rows["/never"].message.as_str()), (0, pem::protocols::http::NO_RESPONSE));
    }
}

/// A client that sends numbered requests over `connections` keep-alive connections.
fn numbered(agent: &mut Agent, port: u16, count: u32, connections: u32) {
    let program = format!(
        "import http.client,threading\n\
         def work(k):\n  c=http.client.HTTPConnection('127.0.0.1',{port})\n\
         \x20 for n in range(k,{count},{connections}):\n    c.request('GET','/n/%06d'%n); r=c.getresponse(); b=r.read(); assert b==b'ok /n/%06d'%n, b\n  c.close()\n\
         t=[threading.Thread(target=work,args=(k,)) for k in range({connections})]\n[x.start() for x in t]; [x.join() for x in t]"
    );
    agent.run(Command::new("python3").args(["-c", &program]));
}

#[test]
fn each_numbered_request_through_nginx_is_one_row_on_each_side() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(mut agent) = Agent::start() else { return };
    let Some(server) = Server::nginx(2) else { return };
    const COUNT: u32 = 10_000;
    numbered(&mut agent, server.port, COUNT, 8);
    for role in [1, 2] {
        agent.until("every row", |agent| agent.requests(server.port, role).len() >= COUNT as usize);
        let mut seen = BTreeMap::new();
        for row in agent.requests(server.port, role) {
            assert_eq!(row.body, format!("ok {}", row.path), "a response of another request");
            *seen.entry(row.path).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), COUNT as usize, "role {role}");
        assert!(seen.values().all(|times| *times == 1), "role {role}: none twice");
    }
}

#[test]
fn files_that_nginx_sends_by_sendfile_have_their_size_and_time() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(mut agent) = Agent::start() else { return };
    let Some(server) = Server::nginx(1) else { return };
    let page = server.url("/static/page.html");
    agent.run(curl().args([&page, &page, &page]));
    for role in [1, 2] {
        agent.until("three rows", |agent| agent.requests(server.port, role).len() >= 3);
        for row in agent.requests(server.port, role) {
            assert_eq!((row.status, row.size), (200, 30_000), "role {role}: {row:?}");
            assert!(row.latency < 1_000_000_000, "role {role}: {row:?}");
        }
    }
}

#[test]
fn processes_are_named_and_their_ends_are_told() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(mut agent) = Agent::start() else { return };
    let server = Server::python("127.0.0.1");
    agent.run(curl().arg(server.url("/small.json")));
    agent.until("a row", |agent| !agent.requests(server.port, 2).is_empty());
    let upid = agent.requests(server.port, 2)[0].upid.clone();
    agent.until("the server named", |agent| {
        agent.rows("processes", &["upid", "cmdline"]).iter().any(|row| row[0] == upid && row[1].contains("http.server"))
    });
    agent.run(Command::new("sh").args(["-c", "sh -c 'exit 7'; true"]));
    agent.until("the exit told", |agent| {
        agent.rows("proc_exit_events", &["exit_code", "comm"]).contains(&vec!["7".into(), "sh".into()])
    });
    let known = agent.rows("processes", &["comm", "exited", "exit_code"]);
    assert!(known.contains(&vec!["sh".into(), "true".into(), "7".into()]), "{known:?}");
}

/// Keeps a connection that was open before the agent came.
#[test]
fn a_connection_from_before_is_followed() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(server) = Server::nginx(1) else { return };
    let program = format!(
        "import http.client,sys\nc=http.client.HTTPConnection('127.0.0.1',{})\n\
         def get(p):\n  c.request('GET',p); c.getresponse().read()\n\
         get('/before')\nprint('ready',flush=True)\nsys.stdin.readline()\nget('/after')\nget('/last')",
        server.port
    );
    let mut client =
        Command::new("python3").args(["-c", &program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let agent = Agent::start();
    client.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let status = client.wait().unwrap();
    assert!(status.success());
    let Some(mut agent) = agent else { return };
    for role in [1, 2] {
        agent.until("both rows", |agent| agent.requests(server.port, role).len() >= 2);
        let rows = agent.requests(server.port, role);
        let paths: Vec<_> = rows.iter().map(|r| r.path.as_str()).collect();
        assert_eq!(paths, ["/after", "/last"], "role {role}");
    }
}
