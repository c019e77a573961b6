//! The process that makes traffic: it does what it is told.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::exchange::{pair, play_exchange, take};
use crate::process::{Killed, start};
use crate::{endings, uring};

/// Obeys commands from its standard input, one a line; each is answered by `done` when all its bytes have moved.
pub fn play() {
    let stdin = std::io::stdin();
    let mut open: Option<(TcpStream, TcpStream)> = None;
    let mut blocked: Option<JoinHandle<()>> = None;
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
            "exec_in_thread" | "main_ends_first" => python(name),
            "reuse" => reuse(),
            "threads" => threads(open.as_ref().expect("connected first")),
            "uring" => {
                let (client, server) = open.as_mut().expect("connected first");
                uring::play(client, server);
            }
            "block" => {
                let mut client = open.as_ref().expect("connected first").0.try_clone().unwrap();
                blocked = Some(std::thread::spawn(move || client.write_all(&upload()).unwrap()));
                // Until the buffers of both ends are full.
                std::thread::sleep(Duration::from_millis(200));
            }
            "unblock" => {
                take(&mut open.as_mut().expect("connected first").1, upload().len());
                blocked.take().expect("blocked first").join().unwrap();
            }
            "half_closed" | "reset" | "never_read" | "reset_idle" => assert!(endings::play(name)),
            exchange => {
                let (client, server) = open.as_mut().expect("connected first");
                play_exchange(exchange, client, server);
            }
        }
        println!("done");
    }
}

/// More than two sockets buffer.
pub const UPLOAD_BYTES: usize = 32 << 20;

/// A request with a body that no buffer holds.
fn upload() -> Vec<u8> {
    let head = format!("PUT /x HTTP/1.1\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + UPLOAD_BYTES, b'u');
    bytes
}

/// One connection after the other, each with the numbers of the one before.
fn reuse() {
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let (mut client, mut server) = pair("127.0.0.1");
        numbers.push((client.as_raw_fd(), server.as_raw_fd()));
        play_exchange("plain", &mut client, &mut server);
    }
    assert!(numbers.iter().all(|pair| *pair == numbers[0]), "{numbers:?}");
}

/// Threads that share the sockets of one connection: each exchange is another one's.
fn threads(open: &(TcpStream, TcpStream)) {
    let turn = Arc::new(Mutex::new(()));
    let exchanges = |_| {
        let (mut client, mut server) = (open.0.try_clone().unwrap(), open.1.try_clone().unwrap());
        let turn = turn.clone();
        std::thread::spawn(move || {
            for _ in 0..THREAD_EXCHANGES {
                let _turn = turn.lock().unwrap();
                play_exchange("plain", &mut client, &mut server);
            }
        })
    };
    let threads: Vec<_> = (0..THREADS).map(exchanges).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// What `threads` does.
pub const THREADS: usize = 4;
pub const THREAD_EXCHANGES: usize = 25;

/// Programs whose main thread is not their last.
fn python(name: &str) {
    let (program, code) = match name {
        "exec_in_thread" => {
            ("threading.Thread(target=lambda: os.execv('/bin/sh', ['sh', '-c', 'exit 9'])).start()\ntime.sleep(5)", 9)
        }
        _ => (
            "threading.Thread(target=lambda: (time.sleep(0.3), os._exit(5))).start()\n\
             import ctypes; ctypes.CDLL(None).syscall(60, 0)",
            5,
        ),
    };
    let program = format!("import os, threading, time\n{program}");
    let status = Command::new("python3").args(["-c", &program]).status().unwrap();
    assert_eq!(status.code(), Some(code), "{name}");
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

/// It, as its test sees it.
pub struct Traffic {
    child: Killed,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Traffic {
    pub fn start() -> Self {
        let mut child = start("traffic", &[], None);
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut traffic = Self { child: Killed(child), stdin, stdout };
        traffic.until("ready");
        traffic
    }

    pub fn run(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
        self.until("done");
    }

    pub fn until(&mut self, word: &str) {
        let mut line = String::new();
        // The test harness prints its own lines, and the first word may stand behind one of them.
        while !line.trim_end().ends_with(word) {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the traffic process ended before `{word}`");
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }
}
