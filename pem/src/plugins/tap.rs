//! The ingest thread's end of a plugin: which connections are its own, and where their bytes go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use ebpf_abi::role;
use host::manifest::Manifest;
use host::manifest::protocol::Protocol as Declared;

use super::queue::{Batch, Item, QUEUE_BATCHES, What};
use super::{Pace, Plugins, Status};
use crate::conns::Facts;
use crate::core::loss::Entry;
use crate::probes::wire::{Beginning, Port};
use crate::protocols::{Context, Direction, End, Parser};

/// What a plugin listens to, in the kernel's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listens {
    pub(super) beginnings: Vec<Beginning>,
    pub(super) ports: Vec<Port>,
}

impl Listens {
    pub(super) fn of(declared: &Declared, protocol: u8) -> Result<Self, host::error::Error> {
        let word = |beginning: &host::manifest::protocol::Beginning| {
            let word = beginning.word().map_err(|e| host::error::Error::Invalid {
                message: e.message,
                hint: e.hint,
                position: None,
            })?;
            Ok(Beginning { word: word.word, mask: word.mask, protocol })
        };
        Ok(Self {
            beginnings: declared.beginnings.iter().map(word).collect::<Result<_, host::error::Error>>()?,
            ports: declared.ports.iter().map(|port| Port { port: *port, protocol }).collect(),
        })
    }

    /// Whether the kernel programs would have taken this call's bytes for the plugin. Asked again here, since a number in a
    /// record may be of another agent's time, or of a recording made with other plugins.
    fn hears(&self, facts: &Facts, bytes: &[u8]) -> bool {
        let mut word = [0; 8];
        let count = bytes.len().min(8);
        word[..count].copy_from_slice(&bytes[..count]);
        let word = u64::from_le_bytes(word);
        let seen = if count == 8 { u64::MAX } else { (1 << (8 * count)) - 1 };
        if count > 0 && self.beginnings.iter().any(|b| (word ^ b.word) & b.mask & seen == 0) {
            return true;
        }
        self.ports.iter().any(|port| {
            port.port == facts.local.port && facts.role != role::CLIENT
                || port.port == facts.remote.port && facts.role != role::SERVER
        })
    }
}

/// A plugin as the connection tracker sees it.
pub struct Tap {
    name: String,
    digest: String,
    number: u8,
    listens: Listens,
    table: &'static str,
    pace: Pace,
    off: AtomicBool,
    filling: Mutex<Filling>,
    queue: Mutex<Option<SyncSender<Batch>>>,
    started: (Mutex<bool>, Condvar),
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Filling {
    batch: Batch,
    /// Connections opened in an earlier epoch must be opened anew.
    epoch: u64,
    next: u32,
    /// A batch went between two ticks; its rows wait for the next.
    unseen: bool,
    dropped: (u64, u64),
}

impl Tap {
    pub(super) fn new(
        manifest: &Manifest,
        digest: String,
        number: u8,
        listens: Listens,
        table: &'static str,
        pace: Pace,
    ) -> (Self, Receiver<Batch>) {
        let (sender, receiver) = sync_channel(QUEUE_BATCHES);
        let tap = Self {
            name: manifest.name.clone(),
            digest,
            number,
            listens,
            table,
            pace,
            off: AtomicBool::new(false),
            filling: Mutex::new(Filling { batch: Batch::default(), epoch: 0, next: 0, unseen: false, dropped: (0, 0) }),
            queue: Mutex::new(Some(sender)),
            started: (Mutex::new(false), Condvar::new()),
            thread: Mutex::new(None),
        };
        (tap, receiver)
    }

    /// Name of the plugin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `sha256:<hex>`
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its number among protocols, as long as this agent runs.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its table.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// Whether it was switched off.
    pub fn off(&self) -> bool {
        self.off.load(Ordering::Acquire)
    }

    pub(super) fn listens(&self) -> &Listens {
        &self.listens
    }

    pub(super) fn switch_off(&self) {
        self.off.store(true, Ordering::Release);
    }

    pub(super) fn set_started(&self) {
        *self.started.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.started.1.notify_all();
    }

    pub(super) fn wait_started(&self) {
        let mut started = self.started.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*started {
            started = self.started.1.wait(started).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn set_thread(&self, thread: JoinHandle<()>) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    /// Ends its thread and waits for it: at most as long as one call may take.
    pub(super) fn end(&self) {
        self.switch_off();
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The thread itself may hold the last handle.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }

    /// A parser for a connection.
    pub(crate) fn relay(self: &Arc<Self>) -> Box<dyn Parser> {
        Box::new(Relay { tap: self.clone(), opened: None, facts: Facts::default(), deaf: Arc::default() })
    }

    fn push(&self, relay: &mut RelayState<'_>, time_ns: i64, what: What, bytes: &[u8]) {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let filling = &mut *filling;
        let connection = match *relay.opened {
            Some((connection, epoch)) if epoch == filling.epoch => connection,
            opened => {
                if matches!(what, What::Closed) {
                    return;
                }
                let connection = filling.next;
                filling.next = filling.next.wrapping_add(1);
                // Opened before, it is now taken up in its middle.
                let mut facts = relay.now.clone();
                facts.existing |= opened.is_some();
                let what = What::Opened(Box::new(facts), relay.deaf.clone());
                filling.batch.items.push(Item { connection, time_ns, what });
                *relay.opened = Some((connection, filling.epoch));
                relay.facts.clone_from(relay.now);
                connection
            }
        };
        if relay.facts != relay.now {
            relay.facts.clone_from(relay.now);
            let what = What::Known(Box::new(relay.now.clone()));
            filling.batch.items.push(Item { connection, time_ns, what });
        }
        filling.batch.items.push(Item { connection, time_ns, what });
        filling.batch.bytes.extend_from_slice(bytes);
        if filling.batch.full() {
            self.send(filling, None);
        }
    }

    /// Hands over what came together.
    fn send(&self, filling: &mut Filling, tick_ns: Option<i64>) {
        let due = tick_ns.is_some() && filling.unseen;
        if filling.batch.items.is_empty() && !filling.batch.restart && !due {
            return;
        }
        filling.unseen = tick_ns.is_none();
        let mut batch = std::mem::take(&mut filling.batch);
        batch.tick_ns = tick_ns;
        if self.off() {
            return;
        }
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return };
        match self.pace {
            Pace::Exact => {
                let (done, wait) = sync_channel(1);
                batch.done = tick_ns.map(|_| done);
                if queue.send(batch).is_ok() && tick_ns.is_some() {
                    // An error: it was switched off meanwhile, and said so.
                    let _ = wait.recv();
                }
            }
            Pace::Live => {
                if let Err(TrySendError::Full(batch)) = queue.try_send(batch) {
                    filling.dropped.0 += batch.items.len() as u64;
                    filling.dropped.1 += batch.bytes.len() as u64;
                    // Whatever was open goes on with a hole of unknown size: it is opened anew.
                    filling.epoch += 1;
                    filling.batch.restart = true;
                }
            }
        }
    }

    fn tick(&self, now_ns: i64) {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(&mut filling, Some(now_ns));
    }

    /// Connections of before are not told of any more.
    fn restart(&self) {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        filling.epoch += 1;
        filling.batch = Batch { restart: true, ..Batch::default() };
    }

    fn take_dropped(&self) -> (u64, u64) {
        std::mem::take(&mut self.filling.lock().unwrap_or_else(PoisonError::into_inner).dropped)
    }
}

/// The parser of a connection that is a plugin's: hands on what it is given.
struct Relay {
    tap: Arc<Tap>,
    /// Number of the connection, and the epoch in which it was given.
    opened: Option<(u32, u64)>,
    /// What was last told of it.
    facts: Facts,
    deaf: Arc<AtomicBool>,
}

struct RelayState<'a> {
    opened: &'a mut Option<(u32, u64)>,
    facts: &'a mut Facts,
    now: &'a Facts,
    deaf: &'a Arc<AtomicBool>,
}

impl Relay {
    fn push(&mut self, cx: &Context<'_>, time_ns: u64, what: What, bytes: &[u8]) {
        let Self { tap, opened, facts, deaf } = self;
        let mut state = RelayState { opened, facts, now: cx.conn, deaf };
        tap.push(&mut state, cx.epoch_ns(time_ns), what, bytes);
    }
}

impl Parser for Relay {
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], time_ns: u64) {
        self.push(cx, time_ns, What::Data(direction, bytes.len()), bytes);
    }

    fn gap(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: u64, time_ns: u64) {
        self.push(cx, time_ns, What::Gap(direction, bytes), &[]);
    }

    fn tick(&mut self, _: &mut Context<'_>, _: u64) {}

    fn wants_tick(&self) -> bool {
        false
    }

    fn close(&mut self, cx: &mut Context<'_>, time_ns: u64, _: End) {
        if self.opened.is_some() {
            self.push(cx, time_ns, What::Closed, &[]);
        }
    }

    fn role(&self) -> Option<u8> {
        None
    }

    fn done(&self) -> bool {
        self.tap.off() || self.deaf.load(Ordering::Relaxed)
    }

    fn bytes_held(&self) -> usize {
        size_of::<Self>()
    }
}

/// The taps of this moment, as the core holds them.
pub struct Taps {
    plugins: Plugins,
    version: u64,
    taps: Vec<Arc<Tap>>,
}

impl Taps {
    pub(super) fn new(plugins: Plugins) -> Self {
        let mut taps = Self { version: 0, taps: Vec::new(), plugins };
        taps.look();
        // A core that begins knows nothing of the connections of the one before.
        taps.taps.iter().for_each(|tap| tap.restart());
        taps
    }

    fn look(&mut self) {
        let version = self.plugins.version();
        if version != self.version {
            self.version = version;
            self.taps = self.plugins.current();
        }
    }

    /// The plugin that wants this connection.
    pub(crate) fn find(&self, facts: &Facts, bytes: &[u8]) -> Option<&Arc<Tap>> {
        self.taps.iter().find(|tap| !tap.off() && tap.listens.hears(facts, bytes))
    }

    /// Tables of all plugins.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.taps.iter().map(|tap| tap.table)
    }

    /// Rows in the tables of all plugins.
    pub(crate) fn rows_appended(&self) -> u64 {
        self.plugins.rows_appended()
    }

    /// Hands over what came since the last tick. `now_ns` is since the epoch.
    pub(crate) fn tick(&mut self, now_ns: i64) {
        self.taps.iter().for_each(|tap| tap.tick(now_ns));
        self.look();
    }

    /// Takes what is to be told in `probe_status`.
    pub(crate) fn statuses(&self) -> Vec<Status> {
        self.plugins.take_statuses()
    }

    /// Takes what is to be told in `data_loss`.
    pub(crate) fn losses(&self) -> Vec<Entry> {
        let mut losses = self.plugins.take_losses();
        for tap in &self.taps {
            let (events, bytes) = tap.take_dropped();
            if events > 0 {
                let source = crate::core::loss::Source::Parser;
                losses.push(Entry { source, table: tap.table, reason: "plugin_queue_full", events, bytes });
            }
        }
        losses
    }
}
