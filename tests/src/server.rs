//! Real servers of several makes, each on a free port of loopback.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::proc::Pid;
use crate::{Result, programs};

/// IPv4 and IPv6 loopback.
pub const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// How long a server may take until it listens.
const LISTENING_MAX: Duration = Duration::from_secs(20);

const NODE: &str = r#"
const http = require('http');
const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', (part) => { body += part; });
  request.on('end', () => {
    const status = request.url.startsWith('/missing') ? 404 : 200;
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.write('{"path":');
    response.end(JSON.stringify(request.url) + ',"got":' + body.length + '}');
  });
});
server.listen(Number(process.argv[3]), process.argv[2]);
"#;

const GO: &str = r#"package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/missing" {
			w.WriteHeader(404)
		}
		fmt.Fprintf(w, "%s %s %d\n", r.Method, r.URL.Path, len(body))
	})
	if err := http.ListenAndServe(os.Args[1], nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"#;

/// A running server; ends when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    _folder: TempDir,
}

impl Server {
    /// nginx with one worker. Answers any path with `ok`, `/missing` with 404, and files below `/file/`.
    pub fn nginx(ip: IpAddr) -> Result<Self> {
        let (folder, address) = (folder()?, free(ip)?);
        let path = folder.path().display();
        fs::create_dir(folder.path().join("file"))?;
        fs::write(folder.path().join("file/page.html"), "<p>page</p>\n".repeat(200))?;
        let user = if nix::unistd::Uid::effective().is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; worker_processes 1; {user} pid {path}/pid; error_log {path}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; sendfile on; keepalive_requests 100000000;\n\
               client_body_temp_path {path}/t1; proxy_temp_path {path}/t2; fastcgi_temp_path {path}/t3;\n\
               uwsgi_temp_path {path}/t4; scgi_temp_path {path}/t5; default_type text/plain;\n\
               server {{ listen {address};\n\
                 location /missing {{ return 404; }}\n\
                 location /file/ {{ root {path}; }}\n\
                 location / {{ return 200 \"ok\\n\"; }} }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config)?;
        let mut command = Command::new(programs::find("nginx").context("nginx")?);
        command.arg("-c").arg(&file).arg("-p").arg(folder.path());
        Self::start(command, address, folder)
    }

    /// Python's `http.server` over a folder with `page.html`.
    pub fn python(ip: IpAddr, protocol: &str) -> Result<Self> {
        let (folder, address) = (folder()?, free(ip)?);
        fs::write(folder.path().join("page.html"), "<p>page</p>\n")?;
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", &address.port().to_string(), "--bind", &ip.to_string()]);
        command.args(["--protocol", protocol]).current_dir(folder.path());
        Self::start(command, address, folder)
    }

    /// A Node server that answers in chunks, with JSON.
    pub fn node(ip: IpAddr) -> Result<Self> {
        let (folder, address) = (folder()?, free(ip)?);
        let file = folder.path().join("server.js");
        fs::write(&file, NODE)?;
        let mut command = Command::new("node");
        command.arg(&file).arg(ip.to_string()).arg(address.port().to_string());
        Self::start(command, address, folder)
    }

    /// A Go server, built with the standard library's.
    pub fn go(ip: IpAddr) -> Result<Self> {
        let (folder, address) = (folder()?, free(ip)?);
        let (source, program) = (folder.path().join("main.go"), folder.path().join("go-server"));
        fs::write(&source, GO)?;
        let mut build = Command::new(programs::find("go").context("go")?);
        let built = build.arg("build").arg("-o").arg(&program).arg(&source).current_dir(folder.path()).output()?;
        ensure!(built.status.success(), "go build: {}", String::from_utf8_lossy(&built.stderr));
        let mut command = Command::new(program);
        command.arg(address.to_string());
        Self::start(command, address, folder)
    }

    /// memcached, with one thread.
    pub fn memcached(ip: IpAddr) -> Result<Self> {
        let (folder, address) = (folder()?, free(ip)?);
        let mut command = Command::new(programs::find("memcached").context("memcached")?);
        command.args(["-l", &ip.to_string(), "-p", &address.port().to_string(), "-U", "0", "-t", "1"]);
        if nix::unistd::Uid::effective().is_root() {
            command.args(["-u", "nobody"]);
        }
        Self::start(command, address, folder)
    }

    /// The root of a URL.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn pid(&self) -> Pid {
        Pid::from(&self.child)
    }

    fn start(mut command: Command, address: SocketAddr, folder: TempDir) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = folder.path().join("output");
        let file = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("{name} does not start"))?;
        let mut server = Self { child, address, _folder: folder };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} has ended ({status}):\n{}", read(&log));
            }
            ensure!(start.elapsed() < LISTENING_MAX, "{name} does not listen on {address}:\n{}", read(&log));
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx's workers go when their master is asked politely, not when it is killed.
        let pid = nix::unistd::Pid::from_raw(self.pid().0);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(3) {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The shop, open until dropped.
pub struct Shop {
    child: Child,
    pub frontend: SocketAddr,
}

impl Shop {
    pub fn open(rate: u32) -> Result<Self> {
        let mut command = Command::new(programs::folder().join("shop"));
        command.args(["--rate", &rate.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the shop does not start")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("asked for a pipe")).read_line(&mut line)?;
        let frontend = line.trim().parse().context("the shop says where it is")?;
        Ok(Self { child, frontend })
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("pyxis-server-").tempdir_in("/tmp")?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(folder)
}

fn free(ip: IpAddr) -> Result<SocketAddr> {
    Ok(TcpListener::bind((ip, 0)).with_context(|| format!("no free port on {ip}"))?.local_addr()?)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
