//! A thread for what may wait: the helper's answers and the files of `/proc`. The ingest thread must not, or the ring
//! overflows.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::input::Input;
use crate::probes::client::{Error, Handover};
use crate::probes::wire::{Hello, PROCESSES_MAX, ProcessRef, Token, Want};
use crate::probes::{Counters, Helper, Reader};
use crate::sources::proc::{Stat, TEXT_BYTES_MAX, read_into};
use crate::sources::{self, IoCounters, LocalProc, ProcReader, Sources, clock};

/// Messages on their way to the ingest thread, which takes them with every tick; a full queue makes the sampler wait.
const MESSAGES_MAX: usize = 64;
/// Inputs of one message: the first round of a machine with thousands of processes comes in several.
const INPUTS_PER_MESSAGE: usize = 256;
/// Records about processes on their way to the sampler. One that does not fit is found by the next scan.
const RECORDS_MAX: usize = 1024;
/// Between rounds when nothing happens. Execs shorten it.
const PERIOD: Duration = Duration::from_millis(250);
/// After an exec: as soon as the sources look it up.
const PERIOD_AFTER_EXEC: Duration = Duration::from_millis(20);
/// How often the helper is asked for what the kernel counts of its programs.
const PROGRAMS: Duration = Duration::from_secs(5);
/// How often it is made sure that the helper lives.
const PING: Duration = Duration::from_secs(1);
/// How long one attempt to reach the helper takes at most.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// First and longest pause between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What the sampler tells the ingest thread.
pub enum Message {
    /// For the core.
    Inputs(Vec<Input<'static>>),
    /// There is a helper: read this.
    Attached { reader: Reader, counters: Counters, hello: Hello },
    /// Runs of the kernel programs that were skipped, since they were loaded.
    Skipped(u64),
    /// It is gone; it last answered at `seen_ns` (boot time), if it ever was there.
    Detached { reason: String, seen_ns: Option<u64> },
}

/// The ingest thread's handle. The thread ends soon after this is dropped.
pub struct Sampler {
    pub messages: Receiver<Message>,
    records: SyncSender<Vec<u8>>,
    ring_bytes: Arc<AtomicU64>,
}

impl Sampler {
    /// Starts it. `helper` is where the helper listens and what it wants to be shown, and a first connection to it if there is
    /// one.
    pub fn spawn(helper: Option<(PathBuf, Token, Option<Handover>)>, asid: u32) -> io::Result<Self> {
        let (sender, messages) = sync_channel(MESSAGES_MAX);
        let (records, observed) = sync_channel(RECORDS_MAX);
        let ring_bytes = Arc::new(AtomicU64::new(0));
        let (socket, first) = helper.map(|(socket, token, first)| ((socket, token), first)).unzip();
        let thread = Thread {
            sources: Sources::new(sources::Config { asid, ..sources::Config::default() }),
            eyes: Eyes {
                helper: None,
                failed: None,
                seen_ns: 0,
                starts: HashMap::new(),
                local: LocalProc::default(),
                buffer: Vec::new(),
            },
            socket,
            to: sender,
            records: observed,
            ring_bytes: ring_bytes.clone(),
            retry: RETRY_FIRST,
            retry_at: Instant::now(),
            ping_at: Instant::now(),
            programs_at: Instant::now(),
            said: String::new(),
        };
        std::thread::Builder::new().name("pem-sampler".into()).spawn(move || thread.run(first.flatten()))?;
        Ok(Self { messages, records, ring_bytes })
    }

    /// A record about a process.
    pub fn observe(&self, bytes: &[u8]) {
        let _ = self.records.try_send(bytes.to_vec());
    }

    /// Bytes that wait in the ring, for the agent's own statistics.
    pub fn ring_bytes(&self, waiting: u64) {
        self.ring_bytes.store(waiting, Ordering::Relaxed);
    }
}

/// Nobody listens any more.
struct Ended;

struct Thread {
    sources: Sources,
    eyes: Eyes,
    socket: Option<(PathBuf, Token)>,
    to: SyncSender<Message>,
    records: Receiver<Vec<u8>>,
    ring_bytes: Arc<AtomicU64>,
    retry: Duration,
    retry_at: Instant,
    ping_at: Instant,
    programs_at: Instant,
    said: String,
}

impl Thread {
    fn run(mut self, first: Option<Handover>) {
        let attached = first.map_or(Ok(()), |handover| self.attach(handover));
        if attached.is_err() {
            return;
        }
        let mut period = Duration::ZERO;
        loop {
            match self.records.recv_timeout(period) {
                Ok(record) => {
                    self.sources.observe(&record);
                    while let Ok(record) = self.records.try_recv() {
                        self.sources.observe(&record);
                    }
                    // Let the exec settle; a burst of them is looked up together.
                    std::thread::sleep(PERIOD_AFTER_EXEC);
                    period = PERIOD_AFTER_EXEC;
                }
                Err(RecvTimeoutError::Timeout) => period = PERIOD,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.tend_helper().and_then(|()| self.poll()).is_err() {
                return;
            }
        }
    }

    fn poll(&mut self) -> Result<(), Ended> {
        let mut inputs = Vec::new();
        let mut sent = Ok(());
        let to = &self.to;
        let eyes = &mut self.eyes;
        // The closure cannot touch what the reader has, so starts are noted afterwards.
        let mut starts = Vec::new();
        self.sources.poll(clock::boot_ns(), self.ring_bytes.load(Ordering::Relaxed), eyes, &mut |input| {
            match &input {
                Input::Process(process) => starts.push((process.pid, Some(process.start_ticks))),
                Input::ProcessGone { pid, .. } => starts.push((*pid, None)),
                _ => {}
            }
            inputs.extend(owned(input));
            if inputs.len() >= INPUTS_PER_MESSAGE && sent.is_ok() {
                sent = to.send(Message::Inputs(std::mem::take(&mut inputs))).map_err(|_| Ended);
            }
        });
        for (pid, start) in starts {
            match start {
                Some(start_ticks) => eyes.starts.insert(pid, start_ticks),
                None => eyes.starts.remove(&pid),
            };
        }
        if !inputs.is_empty() && sent.is_ok() {
            sent = self.to.send(Message::Inputs(inputs)).map_err(|_| Ended);
        }
        sent
    }

    /// Connects to the helper when there is none, and notices when it is gone.
    fn tend_helper(&mut self) -> Result<(), Ended> {
        let Some((socket, token)) = &self.socket else { return Ok(()) };
        let now = Instant::now();
        if let Some(helper) = &mut self.eyes.helper {
            if self.eyes.failed.is_none() && now >= self.ping_at {
                self.ping_at = now + PING;
                let asked_ns = clock::boot_ns();
                match helper.inspect(&[], Want::default()) {
                    Err(error) if is_fatal(&error) => self.eyes.failed = Some(chain(&error)),
                    Ok(_) | Err(_) => self.eyes.seen_ns = asked_ns,
                }
            }
            if self.eyes.failed.is_none() && now >= self.programs_at {
                self.programs_at = now + PROGRAMS;
                match helper.programs() {
                    Ok(programs) => {
                        let skipped = programs.iter().fold(0u64, |sum, stats| sum.saturating_add(stats.misses));
                        self.to.send(Message::Skipped(skipped)).map_err(|_| Ended)?;
                    }
                    Err(error) if is_fatal(&error) => self.eyes.failed = Some(chain(&error)),
                    Err(_) => {}
                }
            }
            return match self.eyes.failed.take() {
                Some(reason) => self.detach(reason),
                None => Ok(()),
            };
        }
        if now < self.retry_at {
            return Ok(());
        }
        match Helper::connect(socket, token, CONNECT_PATIENCE) {
            Ok(handover) => self.attach(handover),
            Err(error) => {
                self.retry_at = Instant::now() + self.retry;
                self.retry = (self.retry * 2).min(RETRY_MAX);
                let reason = chain(&error);
                // Said once; a helper that is slow to start is no news.
                if reason != self.said {
                    self.said.clone_from(&reason);
                    return self.to.send(Message::Detached { reason, seen_ns: None }).map_err(|_| Ended);
                }
                Ok(())
            }
        }
    }

    fn attach(&mut self, handover: Handover) -> Result<(), Ended> {
        let Handover { helper, reader, counters } = handover;
        let hello = helper.hello().clone();
        self.eyes.helper = Some(helper);
        self.eyes.failed = None;
        self.eyes.seen_ns = clock::boot_ns();
        self.retry = RETRY_FIRST;
        self.said.clear();
        self.to.send(Message::Attached { reader, counters, hello }).map_err(|_| Ended)
    }

    fn detach(&mut self, reason: String) -> Result<(), Ended> {
        self.eyes.helper = None;
        self.retry_at = Instant::now();
        self.said.clone_from(&reason);
        self.to.send(Message::Detached { reason, seen_ns: Some(self.eyes.seen_ns) }).map_err(|_| Ended)
    }
}

/// Reads of other users' processes: by the helper, else with what rights there are.
struct Eyes {
    helper: Option<Helper>,
    /// Why the helper cannot be used any more.
    failed: Option<String>,
    /// Boot time at which it last answered.
    seen_ns: u64,
    /// Start of each process, by pid: the helper wants to know which one is meant.
    starts: HashMap<u32, u64>,
    local: LocalProc,
    buffer: Vec<u8>,
}

impl Eyes {
    fn reference(&mut self, pid: u32) -> Option<ProcessRef> {
        if let Some(start_ticks) = self.starts.get(&pid) {
            return Some(ProcessRef { pid, start_ticks: *start_ticks });
        }
        read_into(format!("/proc/{pid}/stat").as_ref(), &mut self.buffer, TEXT_BYTES_MAX).ok()?;
        let start_ticks = Stat::parse(&self.buffer)?.start_ticks;
        Some(ProcessRef { pid, start_ticks })
    }

    fn inspect(
        &mut self,
        processes: &[ProcessRef],
        want: Want,
    ) -> Option<Vec<Option<crate::probes::wire::ProcessFacts>>> {
        if self.failed.is_some() {
            return None;
        }
        let asked_ns = clock::boot_ns();
        match self.helper.as_mut()?.inspect(processes, want) {
            Ok(facts) => {
                self.seen_ns = asked_ns;
                Some(facts)
            }
            Err(error) => {
                if is_fatal(&error) {
                    self.failed = Some(chain(&error));
                } else {
                    tracing::debug!(%error, "the helper did not answer about processes");
                }
                None
            }
        }
    }
}

impl ProcReader for Eyes {
    fn exe(&mut self, pid: u32) -> io::Result<PathBuf> {
        let Some(process) = self.reference(pid) else { return Err(io::ErrorKind::NotFound.into()) };
        match self.inspect(&[process], Want { exe: true, ..Want::default() }) {
            Some(facts) => {
                let exe = facts.into_iter().next().flatten().and_then(|facts| facts.exe);
                exe.map(PathBuf::from).ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            None => self.local.exe(pid),
        }
    }

    fn io(&mut self, pids: &[u32], out: &mut Vec<Option<IoCounters>>) {
        if self.helper.is_none() || self.failed.is_some() {
            return self.local.io(pids, out);
        }
        out.clear();
        for some in pids.chunks(PROCESSES_MAX) {
            let known: Vec<Option<ProcessRef>> = some.iter().map(|pid| self.reference(*pid)).collect();
            let asked: Vec<ProcessRef> = known.iter().copied().flatten().collect();
            let answers = self.inspect(&asked, Want { io: true, ..Want::default() }).unwrap_or_default();
            let mut answers = answers.into_iter();
            out.extend(known.iter().map(|process| {
                let io = process.and_then(|_| answers.next().flatten())?.io?;
                Some(IoCounters {
                    rchar_bytes: io.rchar,
                    wchar_bytes: io.wchar,
                    read_bytes: io.read_bytes,
                    write_bytes: io.write_bytes,
                })
            }));
        }
    }

    fn net_dev(&mut self, pid: u32) -> io::Result<Vec<u8>> {
        self.local.net_dev(pid)
    }
}

/// After these the connection is of no use.
fn is_fatal(error: &Error) -> bool {
    !matches!(error, Error::Refused(_))
}

/// An input that outlives what it was read from. Records do not come from here.
fn owned(input: Input<'_>) -> Option<Input<'static>> {
    Some(match input {
        Input::Record(_) => return None,
        Input::Clock(value) => Input::Clock(value),
        Input::Process(value) => Input::Process(value),
        Input::ProcessGone { time_ns, pid, start_ticks } => Input::ProcessGone { time_ns, pid, start_ticks },
        Input::ProcessSample(value) => Input::ProcessSample(value),
        Input::NetworkSample(value) => Input::NetworkSample(value),
        Input::ProbeStatus(value) => Input::ProbeStatus(value),
        Input::Loss(value) => Input::Loss(value),
        Input::Gap(value) => Input::Gap(value),
        Input::AgentError(value) => Input::AgentError(value),
        Input::AgentSample(value) => Input::AgentSample(value),
        Input::Tick { now_ns } => Input::Tick { now_ns },
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut level = error.source();
    while let Some(error) = level {
        text.push_str(": ");
        text.push_str(&error.to_string());
        level = error.source();
    }
    text
}
