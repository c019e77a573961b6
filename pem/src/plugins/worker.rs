//! The thread of a plugin: takes batches, asks the sandboxed parser, appends rows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use host::protocol::{Event, Fault, Instance, Limits, Messages, Protocols};
use nix::time::{ClockId, clock_gettime};

use super::conns::Conns;
use super::guard::{Flood, Share};
use super::queue::{Batch, What};
use super::table::{Known, Rows};
use super::{Outbox, Pace, Status, Tap, code};

/// How long a plugin that rests may keep an agent that ends waiting.
const REST: Duration = Duration::from_millis(20);

/// What a worker is made of.
pub(super) struct Parts {
    pub tap: Arc<Tap>,
    pub queue: Receiver<Batch>,
    pub rows: Rows,
    pub outbox: Arc<Outbox>,
    pub pace: Pace,
    pub limits: Limits,
}

pub(super) struct Worker {
    parts: Parts,
    conns: Conns,
    flood: Flood,
    /// Who waits for the batch at hand. Last: when it is dropped all else is done.
    done: Option<SyncSender<()>>,
}

/// Why the plugin is switched off.
struct Off {
    code: i64,
    why: String,
}

impl From<Fault> for Off {
    fn from(fault: Fault) -> Self {
        let code = match &fault {
            Fault::Stalled(_) | Fault::Memory(_) | Fault::Flooded(_) => code::RESOURCE_EXHAUSTED,
            Fault::Trapped(_) | Fault::GaveUp(_) => code::ABORTED,
            Fault::Broken(_) => code::FAILED_PRECONDITION,
            Fault::Internal(_) => code::INTERNAL,
        };
        Self { code, why: fault.to_string() }
    }
}

impl Worker {
    pub fn new(parts: Parts) -> Self {
        Self { parts, conns: Conns::default(), flood: Flood::default(), done: None }
    }

    /// Until the queue is closed, or the plugin did something that ends it.
    pub fn run(mut self, protocols: &Protocols, component: &[u8]) {
        let started = self.start(protocols, component);
        let ended = match started {
            Ok(instance) => {
                self.parts.tap.set_started();
                self.serve(instance)
            }
            Err(off) => Err(off),
        };
        let tap = self.parts.tap.clone();
        // Told before it is off, so that who sees the one sees the other.
        if let Err(Off { code, why }) = ended {
            tracing::warn!(plugin = tap.name(), %why, "a protocol plugin is switched off");
            self.parts.outbox.status(Status {
                plugin: tap.name().into(),
                code,
                error: format!("switched off: {why}"),
                info: self.info(),
            });
        }
        tap.switch_off();
        tap.set_started();
        // Whoever waits for a batch sees that nobody answers, and all that there was to tell.
        drop(self);
    }

    fn start(&self, protocols: &Protocols, component: &[u8]) -> Result<Instance, Off> {
        let loaded = protocols.load(component).map_err(|error| {
            let hint = match &error {
                host::error::Error::Invalid { hint: Some(hint), .. } => format!(" ({hint})"),
                _ => String::new(),
            };
            Off { code: code::INVALID_ARGUMENT, why: format!("{error}{hint}") }
        })?;
        let instance = loaded.start(self.parts.limits)?;
        self.parts.outbox.status(Status {
            plugin: self.parts.tap.name().into(),
            code: 0,
            error: String::new(),
            info: self.info(),
        });
        Ok(instance)
    }

    fn info(&self) -> String {
        let tap = &self.parts.tap;
        serde_json::json!({ "protocol": tap.number(), "table": tap.table(), "digest": tap.digest() }).to_string()
    }

    fn serve(&mut self, mut instance: Instance) -> Result<(), Off> {
        let mut share = Share::new();
        while let Ok(mut batch) = self.parts.queue.recv() {
            if self.parts.tap.off() {
                return Ok(());
            }
            let began = cpu_ns();
            self.done = batch.done.take();
            self.take(&mut instance, &batch)?;
            if let Some(now_ns) = batch.tick_ns {
                self.parts.rows.publish(now_ns);
            }
            drop(batch);
            if let Some(done) = self.done.take() {
                // Whoever waited may have gone.
                let _ = done.send(());
            }
            if self.parts.pace == Pace::Live {
                self.rest(share.pause(cpu_ns().saturating_sub(began)));
            }
        }
        Ok(())
    }

    /// Sleeps, unless it is to end.
    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.parts.tap.off() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(REST));
        }
    }

    fn take(&mut self, instance: &mut Instance, batch: &Batch) -> Result<(), Off> {
        let mut events: Vec<Event> = Vec::with_capacity(batch.items.len());
        let mut closed = Vec::new();
        if batch.restart {
            let time_ns = batch.items.first().map_or(0, |item| item.time_ns);
            closed = self.conns.close_all(time_ns, &mut events);
        }
        let mut bytes = batch.bytes.as_slice();
        for item in &batch.items {
            let (number, time_ns) = (item.connection, item.time_ns);
            match &item.what {
                What::Opened(facts, deaf) => self.conns.open(number, (**facts).clone(), deaf.clone()),
                What::Known(facts) => self.conns.know(number, (**facts).clone()),
                What::Data(direction, len) => {
                    let (data, rest) = bytes.split_at(*len);
                    bytes = rest;
                    self.conns.data(number, time_ns, *direction, data, &mut events, |bytes| instance.infer(bytes))?;
                }
                What::Gap(direction, len) => self.conns.gap(number, time_ns, *direction, *len, &mut events),
                What::Closed => {
                    self.conns.close(number, time_ns, &mut events);
                    closed.push(number);
                }
            }
        }
        if !events.is_empty() {
            let last_ns = batch.items.last().map_or(0, |item| item.time_ns);
            let messages = instance.parse(&events)?;
            self.append(&messages, last_ns)?;
        }
        closed.into_iter().for_each(|number| self.conns.forget(number));
        Ok(())
    }

    fn append(&mut self, messages: &Messages, now_ns: i64) -> Result<(), Off> {
        let (mut bytes, mut refused) = (0, 0);
        for (row, (connection, time_ns)) in messages.connections.iter().zip(&messages.times).enumerate() {
            // The host has checked that it is open.
            let Some(conn) = self.conns.get(*connection) else { continue };
            let known = Known { time_ns: *time_ns, facts: &conn.facts, role: conn.role() };
            match self.parts.rows.append(&known, &messages.columns, row) {
                Ok(more) => bytes += more,
                Err(_) => refused += 1,
            }
        }
        let rows = messages.connections.len() as u64;
        self.parts.outbox.rows.fetch_add(rows - refused, Ordering::Relaxed);
        let table = self.parts.tap.table();
        if messages.skipped > 0 {
            self.parts.outbox.loss(table, "plugin_skipped", messages.skipped, 0);
        }
        if refused > 0 {
            self.parts.outbox.loss(table, "row_refused", refused, 0);
        }
        self.flood.note(now_ns, rows, bytes).map_err(|why| Fault::Flooded(why).into())
    }
}

/// Processor time of this thread.
fn cpu_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}
