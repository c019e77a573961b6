//! `shop-load --target ADDR`: numbered requests at a fixed rate, whatever the answers take (open loop).
//!
//! Each request carries its number in its path (`/seq/RUN/000042`), so that rows in a table can be counted against what
//! was sent. Latency counts from the moment a request was due, so that a stall is seen by all who waited behind it.
//! Prints one JSON object.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use shop::program;

const USAGE: &str = "shop-load --target ADDR [--rate N] [--requests N] [--connections N] [--run NAME] [--path PREFIX]";
/// Marks the timer among the events; connections are numbered from 0.
const TIMER: u64 = u64::MAX;
/// A server that says nothing for this long is taken for dead: the test should fail, not hang.
const SILENCE_MAX: Duration = Duration::from_secs(10);

fn main() {
    let options = program::Options::from_args(USAGE);
    let connections: usize = options.get("connections", 50);
    let rate: u32 = options.get("rate", 5_000);
    if connections == 0 || rate == 0 {
        program::fail("--rate and --connections take at least 1");
    }
    let target: SocketAddr = options.require("target");
    let run: String = options.get("run", "load".to_owned());
    let prefix: String = options.get("path", "/seq".to_owned());
    let requests: u64 = options.get("requests", 10_000);

    let load = Load::connect(target, connections, format!("{prefix}/{run}"), requests, rate);
    let outcome = load.and_then(Load::run);
    match outcome {
        Ok(report) => println!("{report}"),
        Err(error) => {
            eprintln!("{target}: {error}");
            std::process::exit(1);
        }
    }
}

struct Load {
    target: SocketAddr,
    epoll: Epoll,
    timer: TimerFd,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    prefix: String,
    requests: u64,
    interval: Duration,
    latencies_ns: Vec<u64>,
    errors: u64,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// When the request under way was due.
    due: Option<Instant>,
}

impl Load {
    fn connect(target: SocketAddr, count: usize, prefix: String, requests: u64, rate: u32) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            connections.push(Connection::open(target, &epoll, index)?);
        }
        Ok(Self {
            target,
            epoll,
            timer,
            connections,
            idle: (0..count).collect(),
            prefix,
            requests,
            interval: Duration::from_secs(1) / rate,
            latencies_ns: Vec::with_capacity(usize::try_from(requests).unwrap_or(0)),
            errors: 0,
        })
    }

    fn run(mut self) -> io::Result<String> {
        let start = Instant::now();
        let mut next = 0;
        let mut events = [EpollEvent::empty(); 64];
        while (self.latencies_ns.len() as u64) + self.errors < self.requests {
            let mut wait = None;
            while next < self.requests {
                let due = start + self.interval.mul_f64(next as f64);
                let now = Instant::now();
                if due > now {
                    wait = Some(due - now);
                    break;
                }
                let Some(index) = self.idle.pop_front() else { break };
                self.send(index, next, due)?;
                next += 1;
            }
            if let Some(wait) = wait {
                let wait = TimeSpec::from_duration(wait.max(Duration::from_nanos(1)));
                self.timer.set(Expiration::OneShot(wait), TimerSetTimeFlags::empty())?;
            }
            let timeout = EpollTimeout::try_from(SILENCE_MAX).expect("ten seconds fit");
            let ready = self.epoll.wait(&mut events, timeout)?;
            if ready == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer for ten seconds"));
            }
            for event in &events[..ready] {
                match event.data() {
                    TIMER => {
                        // Non-blocking: a timer that was set again since is simply not due.
                        let _ = self.timer.wait();
                    }
                    index => self.receive(usize::try_from(index).expect("our own small number"))?,
                }
            }
        }
        Ok(self.report(start.elapsed()))
    }

    fn send(&mut self, index: usize, number: u64, due: Instant) -> io::Result<()> {
        let request = format!(
            "GET {}/{number:06} HTTP/1.1\r\nHost: {}\r\nUser-Agent: shop-load\r\nX-Sequence: {number}\r\n\r\n",
            self.prefix, self.target
        );
        let connection = &mut self.connections[index];
        connection.due = Some(due);
        // A request fits any socket buffer, and only one is under way per connection.
        if connection.stream.write_all(request.as_bytes()).is_err() {
            self.fail(index)?;
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let mut buffer = [0; 16 << 10];
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => return self.fail(index),
                Ok(read) => connection.received.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.fail(index),
            }
            if connection.complete() {
                break;
            }
        }
        if connection.complete() {
            let closing = connection.closing();
            connection.received.clear();
            if let Some(due) = connection.due.take() {
                self.latencies_ns.push(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            if closing {
                self.connections[index] = Connection::open(self.target, &self.epoll, index)?;
            }
            self.idle.push_back(index);
        }
        Ok(())
    }

    /// Counts the request under way as failed and gives its place to a new connection.
    fn fail(&mut self, index: usize) -> io::Result<()> {
        if self.connections[index].due.is_some() {
            self.errors += 1;
            self.idle.push_back(index);
        }
        self.connections[index] = Connection::open(self.target, &self.epoll, index)?;
        Ok(())
    }

    fn report(mut self, took: Duration) -> String {
        self.latencies_ns.sort_unstable();
        let at = |share: f64| {
            let rank =
                ((self.latencies_ns.len() as f64 * share) as usize).min(self.latencies_ns.len().saturating_sub(1));
            self.latencies_ns.get(rank).copied().unwrap_or(0) as f64 / 1_000.0
        };
        let (answered, seconds) = (self.latencies_ns.len(), took.as_secs_f64());
        format!(
            r#"{{"requests":{},"answered":{answered},"errors":{},"seconds":{seconds:.3},"rate":{:.1},"p50_us":{:.1},"p90_us":{:.1},"p99_us":{:.1},"max_us":{:.1}}}"#,
            self.requests,
            self.errors,
            answered as f64 / seconds,
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        )
    }
}

impl Connection {
    fn open(target: SocketAddr, epoll: &Epoll, index: usize) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target, SILENCE_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        // Closing the descriptor of an older connection has taken it out of the epoll set.
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        Ok(Self { stream, received: Vec::new(), due: None })
    }

    fn head(&self) -> Option<&str> {
        let end = self.received.windows(4).position(|window| window == b"\r\n\r\n")?;
        std::str::from_utf8(&self.received[..end + 4]).ok()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head()?.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn complete(&self) -> bool {
        let Some(head) = self.head() else { return false };
        let length = self.header("content-length").and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
        self.received.len() >= head.len() + length
    }

    fn closing(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}
