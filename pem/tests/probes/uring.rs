//! A program that receives by io_uring: its completions may run on the way out of an unrelated call.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ebpf_abi::{data_flags, role};
use pem::probes::Capture;

use crate::exchange::{REQUEST, RESPONSE, play_exchange, take};
use crate::lab::Lab;
use crate::skip_or_lock;
use crate::traffic::Traffic;

/// `struct io_uring_params`, of which only the offsets are of interest.
#[repr(C)]
#[derive(Default)]
struct Params {
    entries: [u32; 2],
    flags: u32,
    rest: [u32; 7],
    /// head, tail, mask, entries, flags, dropped, array; reserved.
    submit: [u32; 10],
    /// head, tail, mask, entries, overflow, completions, flags; reserved.
    complete: [u32; 10],
}

const ENTRIES: u32 = 4;
const OP_RECV: u8 = 27;
const OFF_SUBMIT: i64 = 0;
const OFF_COMPLETE: i64 = 0x800_0000;
const OFF_ENTRIES: i64 = 0x1000_0000;
const ENTRY_BYTES: usize = 64;
const PAGE: usize = 4096;

/// A ring of its own.
pub struct Ring {
    fd: OwnedFd,
    params: Params,
    submit: *mut u8,
    complete: *mut u8,
    entries: *mut u8,
}

impl Ring {
    /// `None` where the kernel has none, or allows none.
    pub fn new() -> Option<Self> {
        let mut params = Params::default();
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params) };
        if fd < 0 {
            return None;
        }
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let map = |offset| {
            let (protection, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
            let at = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, shared, fd.as_raw_fd(), offset) };
            assert_ne!(at, libc::MAP_FAILED);
            at.cast::<u8>()
        };
        let (submit, complete, entries) = (map(OFF_SUBMIT), map(OFF_COMPLETE), map(OFF_ENTRIES));
        Some(Self { fd, params, submit, complete, entries })
    }

    fn word(base: *mut u8, offset: u32) -> &'static AtomicU32 {
        // Mapped until this process ends.
        unsafe { &*base.add(offset as usize).cast::<AtomicU32>() }
    }

    /// Asks for bytes of a socket; they come when they come.
    pub fn receive(&mut self, socket: &TcpStream, into: &mut [u8]) {
        let mut entry = [0u8; ENTRY_BYTES];
        entry[0] = OP_RECV;
        entry[4..8].copy_from_slice(&socket.as_raw_fd().to_ne_bytes());
        entry[16..24].copy_from_slice(&(into.as_mut_ptr() as u64).to_ne_bytes());
        entry[24..28].copy_from_slice(&(into.len() as u32).to_ne_bytes());
        unsafe { std::ptr::copy_nonoverlapping(entry.as_ptr(), self.entries, ENTRY_BYTES) };
        let tail = Self::word(self.submit, self.params.submit[1]);
        let slot = tail.load(Ordering::Relaxed) & (ENTRIES - 1);
        // The array names entries by their place; ours is the first.
        Self::word(self.submit, self.params.submit[6] + 4 * slot).store(0, Ordering::Relaxed);
        tail.fetch_add(1, Ordering::Release);
        let none = std::ptr::null::<u8>();
        let sent = unsafe { libc::syscall(libc::SYS_io_uring_enter, self.fd.as_raw_fd(), 1, 0, 0, none, 0) };
        assert_eq!(sent, 1, "{}", std::io::Error::last_os_error());
    }

    /// Whether something has come.
    pub fn completed(&self) -> bool {
        let [head, tail] = [0, 1].map(|at| Self::word(self.complete, self.params.complete[at]).load(Ordering::Acquire));
        head != tail
    }
}

/// The server receives the second request by io_uring, while its thread is in a read of something else.
pub fn play(client: &mut TcpStream, server: &mut TcpStream) {
    play_exchange("plain", client, server);
    let mut ring = Ring::new().expect("the test has looked");
    let mut pipe = [0; 2];
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let [mut reads, mut writes] = pipe.map(|fd| unsafe { std::fs::File::from_raw_fd(fd) });
    let mut into = vec![0; REQUEST.len()];
    ring.receive(server, &mut into);
    let mut other = client.try_clone().unwrap();
    let asking = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        other.write_all(REQUEST).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        writes.write_all(b"x").unwrap();
    });
    // What a hook would find that takes this call for the one that moved the bytes.
    let mut unrelated = vec![b'!'; REQUEST.len()];
    assert_eq!(reads.read(&mut unrelated).unwrap(), 1);
    asking.join().unwrap();
    assert!(ring.completed());
    assert_eq!(into, REQUEST);
    server.write_all(RESPONSE).unwrap();
    take(client, RESPONSE.len());
}

#[test]
fn the_arguments_of_an_unrelated_call_are_not_believed() {
    let _one = skip_or_lock!();
    if Ring::new().is_none() {
        return eprintln!("SKIPPED: this kernel gives us no io_uring");
    }
    let traffic = &mut Traffic::start();
    let lab = &mut Lab::start(Capture::Socket, 4 << 20);
    traffic.run("connect 127.0.0.1");
    traffic.run("uring");
    traffic.run("close");
    let view = lab.view(traffic.pid());
    let server = view.by_role(role::SERVER);
    let (last, payload) = server.received.parts.values().last().unwrap();
    assert_eq!((last.pos, last.total as usize), (REQUEST.len() as u64, REQUEST.len()), "it moved, and where is known");
    assert_eq!((last.captured, payload.len()), (0, 0), "{}", String::from_utf8_lossy(payload));
    assert_ne!(last.flags & data_flags::OPAQUE, 0);
    assert_eq!(server.close.unwrap().recv_bytes, 2 * REQUEST.len() as u64);
    assert_eq!(view.by_role(role::CLIENT).sent.payload(), [REQUEST, REQUEST].concat());
}
