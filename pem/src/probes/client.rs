//! The PEM's side of the helper's socket.

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::{
    counters::Counters,
    load::ProgramStats,
    ring::Reader,
    wire::{self, Greeting, Hello, ProcessFacts, ProcessRef, Request, Response, Token, Want},
};

/// How often a helper that is not there yet is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// The helper reads files of /proc and nothing else; what takes longer hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the helper cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no probe helper at {}: it starts with `px up`, as root or through sudo", path.display())]
    Absent { path: PathBuf, source: io::Error },
    #[error("the probe helper ended or does not answer")]
    Gone(#[source] io::Error),
    #[error(
        "the probe helper refused this process: it serves only the user it was started for, and the PEM that `px up` started with it"
    )]
    Denied,
    #[error("the probe helper is of another version ({theirs}, this is {ours}): start both from one build")]
    Version { theirs: u32, ours: u32 },
    #[error("the probe helper refused the request: {0}")]
    Refused(String),
    #[error("the probe helper did not hand over ring and counters")]
    Descriptors,
    #[error("cannot map the event ring or the counters")]
    Map(#[source] io::Error),
}

/// A connection to the helper.
pub struct Helper {
    stream: UnixStream,
    hello: Hello,
}

/// What the helper hands over.
pub struct Handover {
    /// For requests.
    pub helper: Helper,
    /// The event ring, which this process now reads alone.
    pub reader: Reader,
    /// Losses and work of the kernel programs.
    pub counters: Counters,
}

impl Helper {
    /// Connects, waiting up to `timeout` for the helper to be there, and takes ring and counters.
    pub fn connect(path: &Path, token: &Token, timeout: Duration) -> Result<Handover, Error> {
        let deadline = Instant::now() + timeout;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(source) if Instant::now() >= deadline => {
                    return Err(Error::Absent { path: path.to_owned(), source });
                }
                Err(_) => std::thread::sleep(RETRY),
            }
        };
        let left = deadline.saturating_duration_since(Instant::now()).max(RETRY);
        stream.set_read_timeout(Some(left)).map_err(Error::Gone)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(Error::Gone)?;
        // One that refuses us unheard has closed already; it shows below.
        let _ = wire::write(&stream, &Greeting { token: token.clone() });
        let (hello, fds) = receive_hello(&stream)?;
        if hello.version != wire::VERSION {
            return Err(Error::Version { theirs: hello.version, ours: wire::VERSION });
        }
        if hello.abi_version != ebpf_abi::ABI_VERSION {
            return Err(Error::Version { theirs: hello.abi_version, ours: ebpf_abi::ABI_VERSION });
        }
        let [ring, counters]: [OwnedFd; 2] = fds.try_into().map_err(|_| Error::Descriptors)?;
        let reader = Reader::new(ring, hello.ring_bytes).map_err(Error::Map)?;
        let counters = Counters::new(counters).map_err(Error::Map)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(Error::Gone)?;
        Ok(Handover { helper: Self { stream, hello }, reader, counters })
    }

    /// What the helper said of itself: tier, programs, clocks.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Facts about other processes, in the order asked; at most [`wire::PROCESSES_MAX`]. `None` for one that is gone.
    pub fn inspect(&mut self, processes: &[ProcessRef], want: Want) -> Result<Vec<Option<ProcessFacts>>, Error> {
        match self.ask(&Request::Inspect { processes: processes.to_vec(), want })? {
            Response::Inspected(facts) => Ok(facts),
            Response::Refused(reason) => Err(Error::Refused(reason)),
            Response::Programs(_) => Err(unexpected()),
        }
    }

    /// What the kernel counted of each program.
    pub fn programs(&mut self) -> Result<Vec<ProgramStats>, Error> {
        match self.ask(&Request::Programs)? {
            Response::Programs(stats) => Ok(stats),
            Response::Refused(reason) => Err(Error::Refused(reason)),
            Response::Inspected(_) => Err(unexpected()),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Response, Error> {
        wire::write(&self.stream, request).map_err(Error::Gone)?;
        wire::read(&self.stream).map_err(Error::Gone)
    }
}

fn unexpected() -> Error {
    Error::Gone(io::Error::new(io::ErrorKind::InvalidData, "the answer to another question"))
}

/// Reads the first frame and the descriptors beside its first bytes.
fn receive_hello(stream: &UnixStream) -> Result<(Hello, Vec<OwnedFd>), Error> {
    let mut len = [0; 4];
    let mut fds = Vec::new();
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 2]);
    let got = {
        let mut parts = [IoSliceMut::new(&mut len)];
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .map_err(|error| match error {
                // Closed with our greeting unread.
                nix::errno::Errno::ECONNRESET => Error::Denied,
                error => Error::Gone(error.into()),
            })?;
        for control in message.cmsgs().map_err(|error| Error::Gone(error.into()))? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else knows their numbers.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        message.bytes
    };
    if got == 0 {
        // It accepts, looks at who we are, and closes.
        return Err(Error::Denied);
    }
    let rest = &len[..got];
    let hello = wire::read(io::Read::chain(rest, stream)).map_err(Error::Gone)?;
    Ok((hello, fds))
}
