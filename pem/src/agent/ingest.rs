//! The one place through which everything enters the core, and the recording if there is one.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ebpf_abi::counter;

use super::{Error, Shared};
use crate::core::Core;
use crate::input::{AgentError, Input};
use crate::recording::{WriteError, Writer};

/// gRPC's `DATA_LOSS`, as `stirling_error` numbers failures.
const DATA_LOSS: i64 = 15;
/// A recording is on disk after this many ticks (about 5 s), so that a crash costs no more.
const TICKS_PER_FLUSH: u32 = 100;

/// Owns the core.
pub struct Ingest {
    core: Option<Core>,
    make_core: Option<Box<dyn Fn() -> Core + Send>>,
    recorder: Option<Recorder>,
    shared: Arc<Shared>,
    events: u64,
    /// Records lost in the ring, by CPU.
    lost: Vec<Lost>,
    /// The same of programs that are no more.
    lost_before: u64,
    now_ns: u64,
}

/// Records lost in the ring on one CPU, since the programs were loaded.
#[derive(Clone, Copy, Default)]
struct Lost {
    now: u64,
    /// In the time of another agent.
    before: u64,
}

/// The recording, while it can be written.
pub struct Recorder {
    writer: Writer<File>,
    ticks: u32,
}

impl Recorder {
    /// Begins a recording.
    pub fn new(file: File) -> Result<Self, Error> {
        Ok(Self { writer: Writer::new(file)?, ticks: 0 })
    }
}

impl Ingest {
    /// Over a new core.
    pub fn new(make_core: Box<dyn Fn() -> Core + Send>, recorder: Option<Recorder>, shared: Arc<Shared>) -> Self {
        let core = Some(make_core());
        Self { core, make_core: Some(make_core), ..Self::empty(recorder, shared) }
    }

    /// Only records.
    pub fn without_core(recorder: Recorder, shared: Arc<Shared>) -> Self {
        Self::empty(Some(recorder), shared)
    }

    fn empty(recorder: Option<Recorder>, shared: Arc<Shared>) -> Self {
        Self { core: None, make_core: None, recorder, shared, events: 0, lost: Vec::new(), lost_before: 0, now_ns: 0 }
    }

    /// What others may see of this.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// One record of the ring.
    pub fn record(&mut self, bytes: &[u8]) {
        self.events += 1;
        self.put(Input::Record(bytes));
    }

    /// Anything that enters the core.
    pub fn apply(&mut self, input: Input<'_>) {
        match &input {
            Input::Record(_) => self.events += 1,
            Input::Clock(clock) => self.shared.update(|state| {
                // Of a replay, these are the recording's.
                state.asid = clock.asid;
                state.hostname.clone_from(&clock.hostname);
                state.kernel.clone_from(&clock.kernel);
            }),
            Input::Loss(loss) => {
                let cpu = loss.cpu as usize;
                if cpu < ebpf_abi::CPUS_MAX as usize {
                    self.lost.resize(self.lost.len().max(cpu + 1), Lost::default());
                    let (lost, count) = (&mut self.lost[cpu], loss.slots[counter::LOST_RING_FULL]);
                    match loss.told {
                        true if lost.now == 0 => *lost = Lost { now: count, before: count },
                        true => {}
                        false => lost.now = count,
                    }
                }
            }
            Input::Gap(gap) if gap.reloaded => {
                self.lost_before = self.events_lost();
                self.lost.clear();
            }
            Input::Tick { now_ns } => self.ticked(*now_ns),
            _ => {}
        }
        self.put(input);
    }

    /// The last tick.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Vizier may see the tables from now on.
    pub fn ready(&self) {
        self.shared.ready.send_replace(true);
    }

    /// Goes on with a core that knows no connection and no process, over the same tables.
    pub fn renew(&mut self) {
        // The old one gives the tables' writers back first.
        self.core = None;
        self.core = self.make_core.as_ref().map(|make| make());
    }

    /// What came last of a replay becomes rows without waiting.
    pub fn settle(&mut self) {
        if let Some(core) = &mut self.core {
            core.finish();
        }
    }

    fn events_lost(&self) -> u64 {
        let lost = self.lost.iter().map(|lost| lost.now.saturating_sub(lost.before));
        lost.fold(self.lost_before, u64::saturating_add)
    }

    /// Ends the recording.
    pub fn finish(mut self) -> Result<(u64, u64), WriteError> {
        let Some(recorder) = self.recorder.take() else { return Ok((0, 0)) };
        let inputs = recorder.writer.inputs();
        let file = recorder.writer.finish()?;
        Ok((inputs, file.metadata().map_or(0, |meta| meta.len())))
    }

    fn ticked(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.shared.events.store(self.events, Ordering::Relaxed);
        self.shared.events_lost.store(self.events_lost(), Ordering::Relaxed);
        let Some(recorder) = &mut self.recorder else { return };
        recorder.ticks += 1;
        if recorder.ticks.is_multiple_of(TICKS_PER_FLUSH)
            && let Err(error) = recorder.writer.flush()
        {
            self.give_up_recording(&error);
        }
    }

    fn put(&mut self, input: Input<'_>) {
        if let Some(recorder) = &mut self.recorder {
            match recorder.writer.write(&input) {
                Ok(()) => {}
                Err(error @ WriteError::TooLarge(_)) => {
                    tracing::warn!(%error, "an input is missing from the recording")
                }
                Err(error) => self.give_up_recording(&error),
            }
        }
        if let Some(core) = &mut self.core {
            core.apply(input);
        }
    }

    /// The agent goes on without: what it sees matters more than what it writes down.
    fn give_up_recording(&mut self, error: &WriteError) {
        tracing::error!(%error, "the recording ends here");
        self.recorder = None;
        let error = AgentError {
            time_ns: self.now_ns,
            source_connector: "recording".into(),
            status: DATA_LOSS,
            error: format!("the recording ended early: {error}"),
            context: String::new(),
        };
        if let Some(core) = &mut self.core {
            core.apply(Input::AgentError(error));
        }
    }
}
