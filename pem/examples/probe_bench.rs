//! What the kernel programs cost: BPF time per request, server CPU with and without, tax on unrelated system calls.
//!
//! Needs root, nginx and wrk. `probe_bench [seconds per run] [rounds] [captures…] [only-paced|only-full]`; prints a
//! table, and JSON with `--json FILE`. `paced` is 5,000 requests a second, `full` as many as go. A run with programs and
//! one without alternate; figures are medians. BPF time is that of the server's side. It carries what the kernel's own
//! statistics cost (55-80 ns for each run of a program); the CPU figures do not, as the statistics are on in runs of their
//! own.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use ebpf_abi::{Data, Header, Kind, counter};
use pem::probes::{
    Capture, Counters, Reader,
    load::{Config, Probes},
};

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const CONNECTIONS: usize = 50;
const PACED_PER_SECOND: u64 = 5_000;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "--getppid") {
        return println!("{}", getppid_ns());
    }
    let json = arguments.iter().position(|argument| argument == "--json").map(|at| {
        arguments.remove(at);
        arguments.remove(at)
    });
    let json = json.or_else(|| std::env::var("PYXIS_BENCH_JSON").ok());
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse::<u64>().ok());
    let (seconds, rounds) = (numbers.next().unwrap_or(4), numbers.next().unwrap_or(5));
    let mut captures: Vec<Capture> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if captures.is_empty() {
        captures = vec![Capture::Socket, Capture::SysExit, Capture::Syscalls];
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: loading kernel programs needs root");
        return;
    }
    let server = match Nginx::start() {
        Ok(server) => server,
        Err(error) => return eprintln!("SKIPPED: no nginx: {error}"),
    };
    let _stats = StatsRestored(std::fs::read_to_string(STATS).unwrap_or_default());
    let length = Duration::from_secs(seconds);
    let mut lines = Vec::new();
    println!(
        "{:9} {:9} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>6} {:>9}",
        "capture",
        "load",
        "req/s",
        "cpu off",
        "cpu on",
        "cpu +µs",
        "bpf ns",
        "reader µs",
        "records",
        "lost",
        "getppid +"
    );
    for capture in captures {
        for load in [Load::Paced, Load::Full] {
            if arguments.iter().any(|only| only.starts_with("only-") && only[5..] != *load.name()) {
                continue;
            }
            let (mut off, mut on, mut readers, mut rates) = (vec![], vec![], vec![], vec![]);
            let (mut lost, mut wanted) = (0, 0);
            for _ in 0..rounds {
                off.push(server.run(load, length, None).cpu_us);
                let traced = server.run(load, length, Some((capture, false)));
                on.push(traced.cpu_us);
                readers.push(traced.reader_us);
                rates.push(traced.requests as f64 / length.as_secs_f64());
                lost += traced.lost;
                wanted += traced.records;
            }
            let mut counted = server.run(load, length, Some((capture, true)));
            // The client's calls run the programs too, though nothing is done for it: what they take is the half of what
            // is left when the server is ignored as well.
            let ignored = server.run_ignoring(load, length, Some((capture, true)), true);
            counted.bpf_ns -= ignored.bpf_ns / 2.0;
            let tax = if load == Load::Paced { getppid_tax(capture) } else { f64::NAN };
            let difference: Vec<f64> = on.iter().zip(&off).map(|(on, off)| on - off).collect();
            println!(
                "{:9} {:9} {:9.0} {:8.2} {:8.2} {:+9.2} {:9.0} {:9.2} {:9} {:6} {:+9.1}",
                capture.name(),
                load.name(),
                median(&rates),
                median(&off),
                median(&on),
                median(&difference),
                counted.bpf_ns,
                median(&readers),
                wanted,
                lost,
                tax,
            );
            for (program, ns, runs) in &counted.programs {
                println!("            {program:14} {ns:6.0} ns x {runs:.2} per request");
            }
            lines.push(serde_json::json!({
                "capture": capture.name(), "load": load.name(), "requests_per_second": median(&rates),
                "server_cpu_off_us": median(&off), "server_cpu_on_us": median(&on),
                "server_cpu_added_us": median(&difference), "bpf_ns_per_request": counted.bpf_ns,
                "reader_us_per_request": median(&readers), "records": wanted, "lost": lost,
                "getppid_added_ns": if tax.is_nan() { None } else { Some(tax) },
            }));
        }
    }
    if let Some(path) = json {
        std::fs::write(&path, serde_json::to_vec_pretty(&lines).expect("plain values")).expect("writable");
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[derive(Clone, Copy, PartialEq)]
enum Load {
    Paced,
    Full,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Paced => "paced",
            Self::Full => "full",
        }
    }
}

/// Puts the setting back as it was.
struct StatsRestored(String);

impl Drop for StatsRestored {
    fn drop(&mut self) {
        let _ = std::fs::write(STATS, self.0.trim());
    }
}

#[derive(Default)]
struct Run {
    requests: u64,
    /// Server CPU per request.
    cpu_us: f64,
    reader_us: f64,
    bpf_ns: f64,
    programs: Vec<(String, f64, f64)>,
    records: u64,
    lost: u64,
}

struct Nginx {
    child: Child,
    worker: u32,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Nginx {
    fn start() -> std::io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let prefix = folder.path().display();
        let config = folder.path().join("nginx.conf");
        std::fs::write(
            &config,
            format!(
                "daemon off; worker_processes 1; user root; pid {prefix}/pid; error_log {prefix}/error.log;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{ access_log off; keepalive_requests 1000000000;\n\
                   server {{ listen 127.0.0.1:{port}; location / {{ return 200 'hello from the bench, thirty-two by\\n'; }} }} }}\n"
            ),
        )?;
        let child =
            Command::new("nginx").arg("-p").arg(folder.path()).arg("-c").arg(&config).stderr(Stdio::null()).spawn()?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                return Err(std::io::Error::other("it did not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let worker = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id()))?
            .split_ascii_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok())
            .ok_or_else(|| std::io::Error::other("it has no worker"))?;
        Ok(Self { child, worker, port, _folder: folder })
    }

    fn run(&self, load: Load, length: Duration, tracing: Option<(Capture, bool)>) -> Run {
        self.run_ignoring(load, length, tracing, false)
    }

    fn run_ignoring(&self, load: Load, length: Duration, tracing: Option<(Capture, bool)>, itself: bool) -> Run {
        let stop = AtomicBool::new(false);
        let requests = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let mut probes = tracing.map(|(capture, stats)| {
                std::fs::write(STATS, if stats { "1" } else { "0" }).expect("root");
                let config = Config { capture, ignore_pids: vec![std::process::id()], ..Config::new(object()) };
                let mut probes = Probes::load(&config).expect("loads");
                if itself {
                    probes.ignore(&[self.worker]).expect("room");
                }
                probes
            });
            let reader = probes.as_ref().map(|probes| {
                let ring = probes.ring().try_clone_to_owned().expect("a descriptor");
                let counters =
                    Counters::new(probes.counters().try_clone_to_owned().expect("a descriptor")).expect("maps");
                let mut reader = Reader::new(ring, ebpf_abi::RING_BYTES).expect("maps");
                let stop = &stop;
                (scope.spawn(move || drain(&mut reader, stop)), counters)
            });
            let mut wrk = (load == Load::Full).then(|| self.wrk(length + Duration::from_secs(1)));
            if let (Some(probes), Some(wrk)) = (probes.as_mut(), wrk.as_ref()) {
                // Only the server's side counts here.
                probes.ignore(&[wrk.id()]).expect("room");
            }
            if load == Load::Paced {
                for _ in 0..10 {
                    let (stop, requests) = (&stop, &requests);
                    scope.spawn(move || paced(self.port, PACED_PER_SECOND / 10, stop, requests));
                }
            }
            std::thread::sleep(Duration::from_millis(500));
            let sums = |probes: &Option<Probes>| probes.as_ref().map(|probes| probes.stats()).unwrap_or_default();
            let (before, cpu, served) = (sums(&probes), cpu_ns(self.worker), requests.load(Ordering::Relaxed));
            std::thread::sleep(length);
            let (after, cpu, served) =
                (sums(&probes), cpu_ns(self.worker) - cpu, requests.load(Ordering::Relaxed) - served);
            let mut run = Run { requests: served, ..Run::default() };
            stop.store(true, Ordering::Relaxed);
            if let Some(mut wrk) = wrk.take() {
                let mut text = String::new();
                wrk.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
                wrk.wait().expect("ends");
                let rate = text
                    .lines()
                    .find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse::<f64>().ok())
                    .expect("wrk tells its rate");
                run.requests = (rate * length.as_secs_f64()) as u64;
            }
            run.cpu_us = cpu as f64 / 1e3 / run.requests as f64;
            if let Some((reader, counters)) = reader {
                let reader_ns = reader.join().expect("reads");
                let sum = counters.sum().slots;
                run.records = sum[counter::RECORDS];
                // The reader also read what came before and after the time that is measured: two records a request.
                run.reader_us = reader_ns as f64 / 1e3 / (run.records as f64 / 2.0).max(1.0);
                run.lost = sum[counter::LOST_RING_FULL];
            }
            for (after, before) in after.iter().zip(&before) {
                let (ns, runs) = (after.run_time_ns - before.run_time_ns, after.runs - before.runs);
                run.bpf_ns += ns as f64 / run.requests as f64;
                if runs > 0 {
                    run.programs.push((
                        after.program.clone(),
                        ns as f64 / runs as f64,
                        runs as f64 / run.requests as f64,
                    ));
                }
            }
            run
        })
    }

    fn wrk(&self, length: Duration) -> Child {
        Command::new("wrk")
            .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{}s", length.as_secs())])
            .arg(format!("http://127.0.0.1:{}/path/of/a/request?id=12345", self.port))
            .stdout(Stdio::piped())
            .spawn()
            .expect("wrk is installed")
    }
}

/// Reads until told to stop; the CPU it took.
fn drain(reader: &mut Reader, stop: &AtomicBool) -> u64 {
    let mut bytes = 0usize;
    while !stop.load(Ordering::Relaxed) {
        let _ = reader.wait(Duration::from_millis(ebpf_abi::READER_PERIOD_MS));
        let _ = reader.for_each(usize::MAX, |record| {
            // As little as a reader can do: look at each record's head.
            let kind = u16::from_ne_bytes([record[0], record[1]]);
            bytes +=
                usize::from(kind == Kind::Data as u16) * (record.len() - size_of::<Header>().min(size_of::<Data>()));
        });
    }
    std::hint::black_box(bytes);
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock).map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

fn cpu_ns(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("schedstat");
    text.split_ascii_whitespace().next().and_then(|ns| ns.parse().ok()).expect("a number")
}

/// Requests at a fixed rate over some connections, whatever the answers take.
fn paced(port: u16, per_second: u64, stop: &AtomicBool, requests: &AtomicU64) {
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS / 10)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
            stream.set_nodelay(true).expect("a socket");
            stream
        })
        .collect();
    let mut buffer = [0; 4096];
    let period = Duration::from_nanos(1_000_000_000 / per_second);
    let mut next = Instant::now();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if next > now {
            std::thread::sleep(next - now);
        }
        next += period;
        let index = turn % streams.len();
        let stream = &mut streams[index];
        turn += 1;
        stream
            .write_all(b"GET /path/of/a/request?id=12345 HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: paced\r\n\r\n")
            .expect("sends");
        if stream.read(&mut buffer).expect("receives") == 0 {
            return;
        }
        requests.fetch_add(1, Ordering::Relaxed);
    }
}

/// Time of a system call that has nothing to do with sockets, in a process that nothing is known of.
fn getppid_ns() -> f64 {
    const CALLS: u32 = 2_000_000;
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                std::hint::black_box(nix::unistd::getppid());
            }
            start.elapsed().as_nanos() as f64 / CALLS as f64
        })
        .fold(f64::INFINITY, f64::min);
    (best * 10.0).round() / 10.0
}

fn getppid_tax(capture: Capture) -> f64 {
    let measure = || -> f64 {
        let output = Command::new(std::env::current_exe().expect("runs")).arg("--getppid").output().expect("starts");
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
    };
    let _ = std::fs::write(STATS, "0");
    let mut differences = Vec::new();
    for _ in 0..3 {
        let off = measure();
        let probes = Probes::load(&Config { capture, ..Config::new(object()) }).expect("loads");
        differences.push(measure() - off);
        drop(probes);
    }
    median(&differences)
}

fn object() -> PathBuf {
    let lib = std::env::var_os("PYXIS_LIB_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let exe = std::env::current_exe().expect("runs");
        exe.ancestors()
            .map(|folder| folder.join("pyxis"))
            .find(|lib| lib.join("ebpf").is_dir())
            .unwrap_or_else(|| Path::new("target/pyxis").to_owned())
    });
    lib.join("ebpf/pyxis.bpf.o")
}
