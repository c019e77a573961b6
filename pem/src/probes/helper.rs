//! The privileged process: loads, attaches, hands over, and then reads a short list of files for the PEM.

use std::{
    fs,
    io::{self, IoSlice},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt, chown},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use ebpf_abi::counter;

use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt::PeerCredentials};

use super::{
    counters::Counters,
    load::{self, Capture, ProbeStatus, Probes, Survey},
    privileges::{self, capability},
    procfs,
    wire::{self, Greeting, Hello, Request, Response, Token, Told},
};

/// A client that begins a frame must end it in this time, and take its answer in it.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// A client must say who it is in this time: until then no other is served.
const GREETING_TIMEOUT: Duration = Duration::from_millis(500);

/// The walks may take one part in so many of the time; on a machine with very many open files they come less often.
const SURVEY_SHARE: u32 = 200;

/// What the helper is told at its start.
#[derive(Clone, Debug)]
pub struct HelperConfig {
    /// Where it listens. The folder must exist and be writable for nobody else.
    pub socket_path: PathBuf,
    /// The user that may connect: the one the PEM runs as.
    pub allowed_uid: u32,
    /// What it must show.
    pub token: Token,
    /// What to load.
    pub load: load::Config,
    /// Process id of the supervisor. The helper ends with it; it and all it started are not traced.
    pub supervisor: Option<u32>,
}

/// Why the helper could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Load(#[from] load::Error),
    #[error("cannot listen at {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("{} exists and is not a socket: remove it, or choose another place", path.display())]
    Occupied { path: PathBuf },
    #[error("cannot read the programs' counters")]
    Counters(#[source] io::Error),
    #[error("cannot tie the helper to its supervisor")]
    Tie(#[source] io::Error),
    #[error("cannot give up privileges")]
    Drop(#[source] io::Error),
    #[error("cannot start the thread that goes through open sockets")]
    Survey(#[source] io::Error),
    #[error("cannot accept a connection")]
    Accept(#[source] io::Error),
}

/// Loaded, attached, listening, without the privileges that took.
pub struct Helper {
    probes: Probes,
    listener: UnixListener,
    config: HelperConfig,
    attached_ns: u64,
    counters: Counters,
    /// See [`Hello::told`].
    told: Vec<Told>,
    /// Has the thread that goes through open sockets do so at once.
    survey: Option<SyncSender<()>>,
}

/// Starts the helper and serves until it is killed.
pub fn run(config: HelperConfig) -> Result<(), Error> {
    Helper::start(config)?.serve()
}

impl Helper {
    /// Loads and attaches, listens, and gives up what is no longer needed.
    pub fn start(mut config: HelperConfig) -> Result<Self, Error> {
        if config.supervisor.is_some() {
            privileges::die_with_parent(config.supervisor).map_err(Error::Tie)?;
        }
        config.load.ignore_pids.push(std::process::id());
        config.load.ignore_pids.extend(config.supervisor);
        let mut probes = Probes::load(&config.load)?;
        let (attached_ns, _) = wire::clocks();
        // Children from now on are ignored by the fork probe; those that exist already must be named.
        let descendants = descendants(&config.load.ignore_pids);
        if let Err(error) = probes.ignore(&descendants) {
            tracing::warn!(%error, "cannot exclude running children from tracing");
        }
        let listener = listen(&config.socket_path, config.allowed_uid)?;
        // For /proc of other users: links and io need ptrace access, folders to be searched need the other.
        let mut keep = vec![capability::SYS_PTRACE, capability::DAC_READ_SEARCH];
        if !load::kernel_at_least(6, 0) {
            // Before, the bpf call was closed to others as a whole, also for descriptors they hold.
            keep.push(capability::BPF);
        }
        privileges::keep_only(&keep).map_err(Error::Drop)?;
        let counters = probes.counters().try_clone_to_owned().and_then(Counters::new).map_err(Error::Counters)?;
        let mut survey = None;
        if let Some(sockets) = probes.take_survey() {
            let period = config.load.survey_period;
            let (sender, wanted) = sync_channel(1);
            std::thread::Builder::new()
                .name("survey".to_owned())
                .spawn(move || survey_for_ever(&sockets, period, &wanted))
                .map_err(Error::Survey)?;
            survey = Some(sender);
        }
        Ok(Self { probes, listener, config, attached_ns, counters, told: Vec::new(), survey })
    }

    /// The tier in use.
    pub fn capture(&self) -> Capture {
        self.probes.tier()
    }

    /// What became of each program.
    pub fn statuses(&self) -> &[ProbeStatus] {
        self.probes.statuses()
    }

    /// Serves one client after the other, for ever. Each gets the same ring, which goes on from where the last stopped.
    pub fn serve(&mut self) -> Result<(), Error> {
        loop {
            let (stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Accept(error)),
            };
            if let Err(error) = self.admit(&stream) {
                tracing::warn!(%error, "a client of the helper was refused");
                continue;
            }
            if let Err(error) = self.serve_one(&stream)
                && error.kind() != io::ErrorKind::UnexpectedEof
            {
                tracing::warn!(%error, "a client of the helper was let go");
            }
            self.reader_gone();
        }
    }

    /// Whoever comes next is told of each connection again: at once of those that are open, since what waits in the ring for
    /// him may be of those, and he shall know whose it is.
    fn reader_gone(&mut self) {
        let skipped: u64 = self.probes.stats().iter().map(|stats| stats.misses).sum();
        self.told = self.counters.active().map(|(cpu, counters)| Told { cpu, slots: counters.slots }).collect();
        if let Some(first) = self.told.iter_mut().find(|told| told.cpu == 0) {
            first.slots[counter::RUNS_SKIPPED] = skipped;
        }
        if let Err(error) = self.probes.forget_reader() {
            tracing::warn!(%error, "the next reader will not be told of connections that are open now");
        }
        if let Some(survey) = &self.survey {
            // One that is asked for already does as well.
            let _ = survey.try_send(());
        }
    }

    /// Looks who it is.
    fn admit(&self, stream: &UnixStream) -> io::Result<()> {
        let peer = getsockopt(stream, PeerCredentials)?;
        if peer.uid() != self.config.allowed_uid {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "refused process {} of user {}: only user {} may connect",
                    peer.pid(),
                    peer.uid(),
                    self.config.allowed_uid
                ),
            ));
        }
        stream.set_read_timeout(Some(GREETING_TIMEOUT))?;
        let greeting: Greeting = wire::read(stream)?;
        if !greeting.token.matches(&self.config.token) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("refused process {}: it was not started by this helper's supervisor", peer.pid()),
            ));
        }
        Ok(())
    }

    fn serve_one(&mut self, stream: &UnixStream) -> io::Result<()> {
        let peer = getsockopt(stream, PeerCredentials)?;
        // Usually known already as a child of the supervisor.
        let _ = self.probes.ignore(&[peer.pid() as u32]);
        stream.set_write_timeout(Some(FRAME_TIMEOUT))?;
        let hello = Hello::new(
            self.probes.tier(),
            self.probes.settings(),
            self.config.load.ring_bytes,
            self.attached_ns,
            self.probes.statuses().to_vec(),
            self.told.clone(),
        );
        send_with(stream, &wire::frame(&hello)?, &[self.probes.ring(), self.probes.counters()])?;
        loop {
            // Between requests the client may be silent as long as it likes; inside one it may not.
            stream.set_read_timeout(None)?;
            if peek(stream)? == 0 {
                return Ok(());
            }
            stream.set_read_timeout(Some(FRAME_TIMEOUT))?;
            let response = match wire::read(stream) {
                Ok(request) => self.answer(request),
                Err(error) if error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::Other => {
                    wire::write(stream, &Response::Refused(error.to_string()))?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            wire::write(stream, &response)?;
        }
    }

    fn answer(&self, request: Request) -> Response {
        match request {
            Request::Inspect { processes, want } => match procfs::inspect(&processes, want) {
                Ok(facts) => Response::Inspected(facts),
                Err(reason) => Response::Refused(reason),
            },
            Request::Programs => Response::Programs(self.probes.stats()),
        }
    }
}

/// Goes through all open sockets at once, and then every `period`, or when it is wanted.
fn survey_for_ever(survey: &Survey, period: Duration, wanted: &Receiver<()>) {
    loop {
        let start = Instant::now();
        if let Err(error) = survey.run() {
            tracing::warn!(%error, "cannot go through open sockets, so silent connections are told late");
            return;
        }
        match wanted.recv_timeout(period.max(start.elapsed() * SURVEY_SHARE)) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Listens at `path`, for `uid` alone.
fn listen(path: &Path, uid: u32) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(Error::Occupied { path: path.to_owned() }),
        Err(_) => {}
    }
    // Nobody may connect before owner and mode are set.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    let listener = listener.map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    chown(path, Some(uid), None).map_err(failed)?;
    Ok(listener)
}

/// Sends bytes with descriptors beside the first of them.
fn send_with(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    use std::io::Write;
    let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    (&*stream).write_all(&bytes[sent..])
}

/// Waits for the next byte without taking it; 0 at the end.
fn peek(stream: &UnixStream) -> io::Result<usize> {
    loop {
        match nix::sys::socket::recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Processes these have started, directly or not, as far as /proc tells now.
fn descendants(of: &[u32]) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found: Vec<u32> = of.to_vec();
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        let children: Vec<u32> =
            parents.iter().filter(|(pid, of)| *of == parent && !found.contains(pid)).map(|(pid, _)| *pid).collect();
        found.extend(children);
        at += 1;
    }
    found.split_off(of.len())
}
