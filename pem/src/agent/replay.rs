//! Feeds a recording to the core instead of the kernel. Nothing else is fed then, so that the tables follow from the file.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::config::{Replay, Speed};
use super::ingest::Ingest;
use crate::input::Input;
use crate::recording::{End, ReadError, Reader};
use crate::sources::clock;

/// Inputs between looks at whether to stop.
const INPUTS_PER_LOOK: u64 = 4096;
/// Longest sleep between looks at whether to stop.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Replays until the end or `stop`.
pub fn run(mut ingest: Ingest, replay: &Replay, mut file: File, stop: &CancellationToken) -> Result<Ingest, ReadError> {
    // Rows that are moved to the present and come at their pace belong to the wall clock: Vizier takes "now" from the end
    // of a recording only when it is told so.
    let live = replay.speed == Speed::RealTime && (replay.shift || replay.repeat);
    ingest.shared().update(|state| state.capture = if live { "replay_live" } else { "replay" }.into());
    loop {
        // In real time the span is needed to know when things happened, otherwise only to move them.
        let span = match (replay.shift, replay.speed) {
            (false, Speed::Full) => None,
            _ => Some(Span::scan(&mut file)?),
        };
        file.seek(SeekFrom::Start(0))?;
        let now_ns = wall_ns();
        let moved = match (span, replay.shift || replay.repeat) {
            (Some(span), true) => match replay.speed {
                Speed::Full => now_ns.wrapping_sub(span.last_ns),
                Speed::RealTime => now_ns.wrapping_sub(span.first_ns),
            },
            _ => 0,
        };
        let pace = span.filter(|_| replay.speed == Speed::RealTime).map(|span| now_ns.wrapping_sub(span.first_ns));
        let whole = Player { ingest: &mut ingest, moved_ns: moved, pace_ns: pace, stop }.play(&file)?;
        if whole && replay.speed == Speed::Full {
            ingest.ready();
        }
        if !replay.repeat || stop.is_cancelled() {
            return Ok(ingest);
        }
        ingest.renew();
    }
}

fn wall_ns() -> i64 {
    clock::boot_ns() as i64 + clock::boot_to_epoch_ns()
}

/// First and last moment of a recording, ns since the epoch.
#[derive(Clone, Copy, Debug)]
struct Span {
    first_ns: i64,
    last_ns: i64,
}

impl Span {
    fn scan(file: &mut File) -> Result<Self, ReadError> {
        file.seek(SeekFrom::Start(0))?;
        let mut reader = Reader::new(file)?;
        let mut boot_to_epoch_ns = 0;
        let mut span = None;
        while let Some(input) = reader.next()? {
            match input {
                Input::Clock(clock) => boot_to_epoch_ns = clock.boot_to_epoch_ns,
                Input::Tick { now_ns } => {
                    let at = (now_ns as i64).wrapping_add(boot_to_epoch_ns);
                    let span = span.get_or_insert(Self { first_ns: at, last_ns: at });
                    span.last_ns = span.last_ns.max(at);
                }
                _ => {}
            }
        }
        // Without a single tick nothing ever becomes visible, whenever it was.
        Ok(span.unwrap_or(Self { first_ns: 0, last_ns: 0 }))
    }
}

struct Player<'a> {
    ingest: &'a mut Ingest,
    /// Added to every time.
    moved_ns: i64,
    /// In real time: what to add to a recorded moment to get the moment at which it is due.
    pace_ns: Option<i64>,
    stop: &'a CancellationToken,
}

impl Player<'_> {
    /// False: stopped before the end.
    fn play(self, file: &File) -> Result<bool, ReadError> {
        let mut reader = Reader::new(file)?;
        let mut recorded_offset = 0;
        let (mut count, mut waits_for_tick) = (0u64, false);
        while let Some(input) = reader.next()? {
            count += 1;
            if count.is_multiple_of(INPUTS_PER_LOOK) && self.stop.is_cancelled() {
                return Ok(false);
            }
            match input {
                Input::Clock(mut clock) => {
                    recorded_offset = clock.boot_to_epoch_ns;
                    clock.boot_to_epoch_ns = recorded_offset.wrapping_add(self.moved_ns);
                    self.ingest.apply(Input::Clock(clock));
                }
                Input::Tick { now_ns } => {
                    if !self.wait_until((now_ns as i64).wrapping_add(recorded_offset)) {
                        return Ok(false);
                    }
                    self.ingest.apply(Input::Tick { now_ns });
                    if self.pace_ns.is_some() {
                        self.ingest.ready();
                    }
                    waits_for_tick = false;
                    continue;
                }
                other => self.ingest.apply(other),
            }
            waits_for_tick = true;
        }
        if waits_for_tick {
            // Cut off between two ticks: what came last becomes visible all the same, at a time that the file gives.
            self.ingest.apply(Input::Tick { now_ns: self.ingest.now_ns() });
        }
        self.ingest.settle();
        if reader.end() == Some(End::Truncated) {
            tracing::warn!("the recording is cut off; what was there is replayed");
        }
        Ok(true)
    }

    fn wait_until(&self, recorded_ns: i64) -> bool {
        let Some(pace_ns) = self.pace_ns else { return true };
        let due_ns = recorded_ns.wrapping_add(pace_ns);
        loop {
            let left_ns = due_ns.saturating_sub(wall_ns());
            if self.stop.is_cancelled() {
                return false;
            }
            if left_ns <= 0 {
                return true;
            }
            std::thread::sleep(Duration::from_nanos(left_ns as u64).min(SLEEP_MAX));
        }
    }
}
