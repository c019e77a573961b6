//! Servers as people run them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A server that ends with the test.
pub struct Server {
    child: Child,
    pub port: u16,
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
    pub fn telling(command: &mut Command, folder: tempfile::TempDir) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("{command:?} printed {line:?} for its port"));
        Self { child, port, _folder: folder }
    }

    pub fn python(address: &str) -> Self {
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

    pub fn node() -> Self {
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
    pub fn nginx(workers: u32) -> Option<Self> {
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

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}
