//! The ingest thread of an agent that captures: drains the ring, takes what the sampler brings, ticks.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use ebpf_abi::counter::RUNS_SKIPPED;
use ebpf_abi::{Kind, READER_PERIOD_MS};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::gap::Gaps;
use super::ingest::Ingest;
use super::sampler::{Message, Sampler};
use crate::core::HELPER;
use crate::identity::Identity;
use crate::input::{Input, Loss, ProbeStatus};
use crate::probes::client::Handover;
use crate::probes::wire::Token;
use crate::probes::{Counters, Reader};
use crate::sources::clock;

/// How often rows become visible while there are any.
const TICK: Duration = Duration::from_millis(READER_PERIOD_MS);
/// And while nothing happens: half the wakeups, within what the core's tick may take.
const TICK_IDLE: Duration = Duration::from_millis(2 * READER_PERIOD_MS);
/// Records taken in one go, so that a flood does not keep the tick waiting: some 10 ms of work.
const RECORDS_PER_PASS: usize = 4096;
/// How long a flood may delay the tick.
const TICK_LATE_MAX_NS: u64 = 100_000_000;
/// Which part of the agent probes belong to, as `probe_status` names it.
const SOCKET_TRACER: &str = "socket_tracer";
/// gRPC's `UNAVAILABLE` and `INTERNAL`, as `probe_status` numbers states.
const UNAVAILABLE: i64 = 14;
const INTERNAL: i64 = 13;

/// Captures through the helper until `stop`. `first` is a helper that is connected already.
pub fn run(
    mut ingest: Ingest,
    socket: &Path,
    token: &Token,
    first: Option<Handover>,
    identity: &Identity,
    stop: &CancellationToken,
) -> Result<Ingest, Error> {
    let now_ns = begin(&mut ingest, identity);
    let helper = (socket.to_owned(), token.clone(), first);
    let sampler = Sampler::spawn(Some(helper), identity.asid).map_err(Error::Thread)?;
    drive(ingest, Ring::new(Gaps::expecting(now_ns)), sampler, stop)
}

/// Samples `/proc` and nothing else until `stop`.
pub fn idle(mut ingest: Ingest, identity: &Identity, stop: &CancellationToken) -> Result<Ingest, Error> {
    begin(&mut ingest, identity);
    let sampler = Sampler::spawn(None, identity.asid).map_err(Error::Thread)?;
    // That nothing is captured is what was asked for here.
    drive(ingest, Ring::new(Gaps::default()), sampler, stop)
}

fn begin(ingest: &mut Ingest, identity: &Identity) -> u64 {
    let (now_ns, boot_to_epoch_ns) = (clock::boot_ns(), clock::boot_to_epoch_ns());
    ingest.shared().update(|state| state.since_ns = Some(now_ns as i64 + boot_to_epoch_ns));
    ingest.apply(Input::Clock(clock::describe(boot_to_epoch_ns, identity.asid)));
    ingest.apply(Input::Tick { now_ns });
    ingest.ready();
    now_ns
}

fn drive(mut ingest: Ingest, mut ring: Ring, sampler: Sampler, stop: &CancellationToken) -> Result<Ingest, Error> {
    let mut next_tick_ns = clock::boot_ns();
    let mut events = 0;
    while !stop.is_cancelled() {
        let left_ns = next_tick_ns.saturating_sub(clock::boot_ns());
        ring.wait(Duration::from_nanos(left_ns), &sampler.messages, &mut ingest);
        events += ring.drain(&mut ingest, &sampler);
        let now_ns = clock::boot_ns();
        if now_ns < next_tick_ns {
            // Woken for room in the ring alone.
            continue;
        }
        let messages = take_messages(&mut ingest, &mut ring, &sampler.messages)?;
        ring.losses(&mut ingest);
        if let Some(gap) = ring.gaps.tick(now_ns) {
            ingest.apply(Input::Gap(gap));
        }
        ingest.apply(Input::Tick { now_ns });
        let pause = if events + messages > 0 { TICK } else { TICK_IDLE };
        next_tick_ns = now_ns + pause.as_nanos() as u64;
        events = 0;
    }
    // What the ring still holds belongs to the recording.
    ring.drain(&mut ingest, &sampler);
    ring.losses(&mut ingest);
    let now_ns = clock::boot_ns();
    if let Some(gap) = ring.gaps.end(now_ns) {
        ingest.apply(Input::Gap(gap));
    }
    ingest.apply(Input::Tick { now_ns });
    Ok(ingest)
}

/// An error when the sampler has ended: without it no helper would be found again and no process seen, while the tables looked
/// well.
fn take_messages(ingest: &mut Ingest, ring: &mut Ring, messages: &Receiver<Message>) -> Result<usize, Error> {
    let mut taken = 0;
    loop {
        match messages.try_recv() {
            Ok(message) => {
                handle(ingest, ring, message);
                taken += 1;
            }
            Err(TryRecvError::Empty) => return Ok(taken),
            Err(TryRecvError::Disconnected) => return Err(Error::Ended("sampler")),
        }
    }
}

fn handle(ingest: &mut Ingest, ring: &mut Ring, message: Message) {
    match message {
        Message::Inputs(inputs) => inputs.into_iter().for_each(|input| ingest.apply(input)),
        Message::Attached { reader, counters, hello } => {
            ingest.shared().update(|state| state.capture = hello.capture.name().into());
            tracing::info!(capture = hello.capture.name(), "the probe helper is there");
            let now_ns = clock::boot_ns();
            for probe in &hello.probes {
                ingest.apply(Input::ProbeStatus(status_of(probe, now_ns)));
            }
            // Of the time since when all programs stand: the core trusts no payload from before.
            ingest.apply(Input::ProbeStatus(helper_status(hello.attached_ns, 0, String::new())));
            if let Some(gap) = ring.gaps.attached(hello.attached_ns, now_ns) {
                ingest.apply(Input::Gap(gap));
            }
            for told in hello.told {
                if told.cpu == 0 {
                    ring.skipped = told.slots[RUNS_SKIPPED];
                }
                ingest.apply(Input::Loss(Loss { time_ns: now_ns, cpu: told.cpu, slots: told.slots, told: true }));
            }
            ring.attach(reader, counters);
        }
        Message::Skipped(runs) => ring.skipped = runs,
        Message::Detached { reason, seen_ns } => {
            tracing::warn!(%reason, "nothing is captured until the probe helper is back");
            ingest.shared().update(|state| state.capture = "none".into());
            let now_ns = clock::boot_ns();
            let error = format!("nothing is captured until the probe helper is back: {reason}");
            ingest.apply(Input::ProbeStatus(helper_status(now_ns, UNAVAILABLE, error)));
            ring.detach(ingest);
            if let Some(seen_ns) = seen_ns {
                ring.gaps.detached(seen_ns);
            }
        }
    }
}

fn status_of(probe: &crate::probes::ProbeStatus, time_ns: u64) -> ProbeStatus {
    ProbeStatus {
        time_ns,
        source_connector: SOCKET_TRACER.into(),
        tracepoint: probe.hook.clone(),
        status: if probe.status == crate::probes::Status::Attached { 0 } else { INTERNAL },
        error: probe.error.clone(),
        info: serde_json::json!({ "program": probe.program, "detail": probe.info }).to_string(),
    }
}

fn helper_status(time_ns: u64, status: i64, error: String) -> ProbeStatus {
    ProbeStatus {
        time_ns,
        source_connector: SOCKET_TRACER.into(),
        tracepoint: HELPER.into(),
        status,
        error,
        info: String::new(),
    }
}

/// The ring and the counters, while there is a helper.
struct Ring {
    probes: Option<Probes>,
    /// By CPU, the counters as last told.
    lost_seen: Vec<[u64; ebpf_abi::counter::SLOTS]>,
    /// Runs of the programs that were skipped, as last heard.
    skipped: u64,
    gaps: Gaps,
}

/// What a helper handed over.
struct Probes {
    reader: Reader,
    counters: Counters,
    wakeups: Option<Wakeups>,
}

/// Wakeups by the kernel programs, which ask for one when the ring fills up. Edge-triggered: a level would be raised by any
/// byte in the ring, and so wake us for each event instead of each mebibyte.
struct Wakeups(Epoll);

impl Wakeups {
    fn of(reader: &Reader) -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(reader.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
        Ok(Self(epoll))
    }

    fn wait(&self, timeout: Duration) {
        // Rounded up: at 0 it would spin through the last millisecond.
        let millis = timeout.as_nanos().div_ceil(1_000_000) as u16;
        let mut events = [EpollEvent::empty()];
        // An error here is a signal that interrupted; the loop comes back.
        let _ = self.0.wait(&mut events, EpollTimeout::from(millis));
    }
}

impl Ring {
    fn new(gaps: Gaps) -> Self {
        Self { probes: None, lost_seen: Vec::new(), skipped: 0, gaps }
    }

    fn attach(&mut self, reader: Reader, counters: Counters) {
        let wakeups = Wakeups::of(&reader)
            .inspect_err(|error| tracing::warn!(%error, "cannot wait for the ring; it is looked at every tick"))
            .ok();
        self.probes = Some(Probes { reader, counters, wakeups });
    }

    /// Sleeps until the ring wants to be read, or for `timeout`. Without a ring, until the sampler has something.
    fn wait(&mut self, timeout: Duration, messages: &Receiver<Message>, ingest: &mut Ingest) {
        let Some(probes) = &self.probes else {
            match messages.recv_timeout(timeout) {
                Ok(message) => handle(ingest, self, message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(timeout),
            }
            return;
        };
        match &probes.wakeups {
            Some(wakeups) => wakeups.wait(timeout),
            None => std::thread::sleep(timeout),
        }
    }

    /// Takes what waits. A flood is interrupted for the tick's sake; the next round goes on at once, since the ring still
    /// holds more than it wakes for.
    fn drain(&mut self, ingest: &mut Ingest, sampler: &Sampler) -> usize {
        let Some(Probes { reader, .. }) = &mut self.probes else { return 0 };
        sampler.ring_bytes(reader.waiting());
        let began = clock::boot_ns();
        let mut taken = 0;
        loop {
            let pass = reader.for_each(RECORDS_PER_PASS, |bytes| {
                if is_process(bytes) {
                    sampler.observe(bytes);
                }
                ingest.record(bytes);
            });
            match pass {
                Ok(n) => {
                    taken += n;
                    if n < RECORDS_PER_PASS || clock::boot_ns() - began > TICK_LATE_MAX_NS {
                        return taken;
                    }
                }
                Err(error) => {
                    // A ring that contradicts itself cannot be read on.
                    let reason = format!("the event ring is damaged: {error}");
                    handle(ingest, self, Message::Detached { reason, seen_ns: Some(clock::boot_ns()) });
                    return taken;
                }
            }
        }
    }

    /// Tells the counters that changed. Read after the ring was drained, so that they include every gap in it.
    fn losses(&mut self, ingest: &mut Ingest) {
        let Some(Probes { counters, .. }) = &self.probes else { return };
        let time_ns = clock::boot_ns();
        for (cpu, mut counters) in counters.active() {
            if cpu == 0 {
                counters.slots[RUNS_SKIPPED] = self.skipped;
            }
            let index = cpu as usize;
            if self.lost_seen.len() <= index {
                self.lost_seen.resize(index + 1, [0; ebpf_abi::counter::SLOTS]);
            }
            let losses = |slots: &[u64; ebpf_abi::counter::SLOTS]| LOSSES.map(|slot| slots[slot]);
            // Counts of work change with every event; only losses are news.
            if losses(&self.lost_seen[index]) != losses(&counters.slots) {
                self.lost_seen[index] = counters.slots;
                ingest.apply(Input::Loss(Loss { time_ns, cpu, slots: counters.slots, told: false }));
            }
        }
    }

    /// The helper is gone, and with it the programs: what the ring still holds is the last there is.
    fn detach(&mut self, ingest: &mut Ingest) {
        if let Some(Probes { reader, .. }) = &mut self.probes {
            while matches!(reader.for_each(RECORDS_PER_PASS, |bytes| ingest.record(bytes)), Ok(n) if n > 0) {}
            self.losses(ingest);
        }
        self.probes = None;
        // The next helper's counters begin at 0.
        self.lost_seen.clear();
        self.skipped = 0;
    }
}

/// Slots that count what is missing.
const LOSSES: [usize; 7] = {
    use ebpf_abi::counter::*;
    [LOST_RING_FULL, LOST_FAULT, LOST_NO_STATE, BYTES_OPAQUE, BYTES_OVER_CAP, LOST_RING_BYTES, RUNS_SKIPPED]
};

/// Of interest to the sampler: programs that began or ended.
fn is_process(bytes: &[u8]) -> bool {
    let Some(kind) = bytes.first_chunk().map(|kind| u16::from_ne_bytes(*kind)) else { return false };
    kind == Kind::ProcExec as u16 || kind == Kind::ProcExit as u16
}
