//! One run of a script: what it is asked, and how it is driven.
//!
//! A run is a future on a guest thread. Inside it, wasmtime runs the guest on a stack of its own (a fibre). Host calls that plan
//! or that may be slow are handed out of the fibre to the thread's own stack ([`Offload`]): planning recurses, and the fibre is
//! small on purpose. Everything the thread does for the run counts as the run's processor time; waiting does not.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use nix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, UpdateDeadline};

use crate::backend::{Backend, Sink, TimeRange};
use crate::bindings::{ScriptPre, pyxis::common::types};
use crate::convert;
use crate::error::{Error, Exhausted};
use crate::meter::{Budget, Meter};
use crate::pool::{FIRST_CLASS_NS, Place};
use crate::state::{HANDLES_MAX, State, stop};
use crate::tenant::Tenant;

/// Bytes a guest may hand over in one call: lists and texts are copied into the host before any check of ours.
const CALL_BYTES_MAX: usize = 64 << 20;

/// What a run is asked to do, and with what.
pub struct RunRequest {
    /// Arguments as given; the manifest says how they are read.
    pub args: BTreeMap<String, String>,
    /// The query's now, ns since the epoch.
    pub now_ns: i64,
    /// What `table` reads when the script gives no range.
    pub range: TimeRange,
    /// The budget, and what is used of it. The same meter goes to every frame the run collects, and should go to the frames
    /// it displays.
    pub meter: Arc<Meter>,
    /// Where frames come from. The host wraps it so that only tables the manifest names can be read.
    pub backend: Arc<dyn Backend>,
    /// Where output goes.
    pub sink: Arc<dyn Sink>,
    /// Stops the run.
    pub cancel: CancellationToken,
    /// Instructions the guest may use, on a runtime with [`crate::Config::fuel`]: a cost that is the same every time.
    pub fuel: Option<u64>,
}

impl RunRequest {
    /// No arguments, the default budget, now and the five minutes before it.
    pub fn new(backend: Arc<dyn Backend>, sink: Arc<dyn Sink>) -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now_ns = i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX);
        const FIVE_MINUTES_NS: i64 = 300_000_000_000;
        Self {
            args: BTreeMap::new(),
            now_ns,
            range: TimeRange { start_ns: now_ns - FIVE_MINUTES_NS, end_ns: now_ns },
            meter: Arc::new(Meter::new(Budget::default())),
            backend,
            sink,
            cancel: CancellationToken::new(),
            fuel: None,
        }
    }
}

/// What the run and whoever waits for it share.
#[derive(Default)]
pub(crate) struct Control {
    stop: AtomicU8,
    /// Of earlier polls.
    thread_ns: AtomicU64,
    /// Part of the processor time that the tenant was told of.
    charged_ns: AtomicU64,
    /// Thread clock when the current poll began.
    poll_started_ns: AtomicU64,
    /// Part of it that the host used.
    pub(crate) host_ns: AtomicU64,
    pub(crate) instantiate_ns: AtomicU64,
    pub(crate) fuel_used: AtomicU64,
    pub(crate) memory_refused: AtomicU8,
    pub(crate) marks: Mutex<Marks>,
}

/// What is to be told about a run.
#[derive(Default)]
pub(crate) struct Marks {
    pub(crate) truncated: BTreeSet<String>,
    pub(crate) logs_dropped: u64,
    pub(crate) last_error: Option<String>,
}

const GO_ON: u8 = 0;
const CANCELLED: u8 = 1;
const DEADLINE: u8 = 2;

impl Control {
    pub(crate) fn stop(&self, why: &Error) {
        let why = if matches!(why, Error::Exhausted(Exhausted::Deadline)) { DEADLINE } else { CANCELLED };
        // The first reason holds.
        let _ = self.stop.compare_exchange(GO_ON, why, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(crate) fn stopped(&self) -> Option<Error> {
        match self.stop.load(Ordering::SeqCst) {
            GO_ON => None,
            DEADLINE => Some(Error::Exhausted(Exhausted::Deadline)),
            _ => Some(Error::Cancelled),
        }
    }

    /// Processor time of finished polls.
    pub(crate) fn thread_ns(&self) -> u64 {
        self.thread_ns.load(Ordering::Relaxed)
    }

    /// Processor time so far; only on the thread that polls.
    fn used_ns(&self) -> u64 {
        let since = thread_clock_ns().saturating_sub(self.poll_started_ns.load(Ordering::Relaxed));
        self.thread_ns.load(Ordering::Relaxed) + since
    }

    fn check(&self, meter: &Meter) -> Result<u64, Error> {
        if let Some(why) = self.stopped() {
            return Err(why);
        }
        let used = self.used_ns();
        let enough = used <= meter.budget.guest_cpu_ns && self.charge(used, meter.tenant.as_deref());
        if enough { Ok(used) } else { Err(Error::Exhausted(Exhausted::Cpu)) }
    }

    /// Tells the tenant what was used since it was told last.
    fn charge(&self, used_ns: u64, tenant: Option<&Tenant>) -> bool {
        let Some(tenant) = tenant else { return true };
        let before = self.charged_ns.swap(used_ns, Ordering::Relaxed);
        tenant.charge_cpu(used_ns.saturating_sub(before))
    }
}

/// Processor time of this thread.
pub(crate) fn thread_clock_ns() -> u64 {
    // Linux always has this clock.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

type Work = Box<dyn FnOnce() + Send>;

/// Takes work from the guest's stack to the thread's: whoever awaits [`Offload::run`] there is suspended, [`Driver`] does the
/// work and goes on.
#[derive(Clone, Default)]
pub(crate) struct Offload(Arc<Mutex<Option<Work>>>);

impl Offload {
    pub(crate) fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, Error> + Send + 'static,
    ) -> impl Future<Output = Result<R, Error>> + Send + 'static {
        let slot = Arc::clone(&self.0);
        let result: Arc<Mutex<Option<Result<R, Error>>>> = Arc::default();
        let mut work = Some(work);
        std::future::poll_fn(move |_| {
            if let Some(work) = work.take() {
                let result = Arc::clone(&result);
                let work = move || {
                    // An engine that panics is our failure and ends this run alone.
                    let done = std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                        Err(Error::Internal(format!("planning panicked: {}", panic_text(&*panic))))
                    });
                    *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
                };
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(work));
                // No waker: the driver looks into the slot whenever the guest is suspended.
                return Poll::Pending;
            }
            match result.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(done) => Poll::Ready(done),
                None => Poll::Pending,
            }
        })
    }

    fn take(&self) -> Option<Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Polls a guest's future: meters it, does its host work, and ends it when it is stopped.
pub(crate) struct Driver<F> {
    pub(crate) inner: Pin<Box<F>>,
    pub(crate) control: Arc<Control>,
    pub(crate) offload: Offload,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) tenant: Option<Arc<Tenant>>,
}

impl<F: Future> Future for Driver<F> {
    /// Error: why it was stopped.
    type Output = Result<F::Output, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(why) = this.control.stopped() {
            return Poll::Ready(Err(why));
        }
        // The engine may want to spawn, or to sleep.
        let _entered = this.runtime.enter();
        let started = thread_clock_ns();
        this.control.poll_started_ns.store(started, Ordering::Relaxed);
        let polled = loop {
            match this.inner.as_mut().poll(context) {
                Poll::Ready(output) => break Poll::Ready(Ok(output)),
                Poll::Pending => match this.offload.take() {
                    None => break Poll::Pending,
                    Some(work) => {
                        // The same clock as the whole: taken off it, what is left is the guest's, however often this thread waits.
                        let began = thread_clock_ns();
                        work();
                        let took = thread_clock_ns().saturating_sub(began);
                        this.control.host_ns.fetch_add(took, Ordering::Relaxed);
                        if let Some(why) = this.control.stopped() {
                            break Poll::Ready(Err(why));
                        }
                    }
                },
            }
        };
        let took = thread_clock_ns().saturating_sub(started);
        let used = this.control.thread_ns.fetch_add(took, Ordering::Relaxed) + took;
        // Whether that was too much is asked at the next epoch, or of the next run.
        this.control.charge(used, this.tenant.as_deref());
        polled
    }
}

/// Instantiates and calls. The store lives and dies in here.
pub(crate) async fn call(
    engine: wasmtime::Engine,
    script: ScriptPre<State>,
    state: State,
    place: Place,
    fuel: Option<u64>,
) -> wasmtime::Result<Result<(), types::Error>> {
    let began = Instant::now();
    let control = Arc::clone(&state.control);
    let meter = Arc::clone(&state.meter);
    let args: Vec<_> = state.args.iter().map(|(name, value)| (name.clone(), convert::scalar_out(value))).collect();
    let mut store = Store::new(&engine, state);
    store.limiter(|state| &mut state.limits);
    store.set_hostcall_fuel(CALL_BYTES_MAX);
    // Frames, streams and batches, and the borrows of a call.
    store.set_max_component_handles(2 * HANDLES_MAX);
    let fuel = fuel.unwrap_or(u64::MAX);
    // Without `Config::fuel` there is none to set.
    let metered = store.set_fuel(fuel).is_ok();
    store.set_epoch_deadline(1);
    let of_epochs = Arc::clone(&control);
    store.epoch_deadline_callback(move |_| {
        let used = of_epochs.check(&meter).map_err(stop)?;
        let much = used > FIRST_CLASS_NS || !meter.tenant.as_deref().is_none_or(Tenant::credit);
        let demoted = much && place.first_class();
        if demoted {
            place.degrade();
        }
        Ok(if demoted || place.wanted() { UpdateDeadline::Yield(1) } else { UpdateDeadline::Continue(1) })
    });
    let result = async {
        let instance = script.instantiate_async(&mut store).await?;
        control.instantiate_ns.store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        instance.call_run(&mut store, &args).await
    }
    .await;
    if metered {
        control.fuel_used.store(fuel.saturating_sub(store.get_fuel().unwrap_or(0)), Ordering::Relaxed);
    }
    control.memory_refused.store(u8::from(store.data().limits.refused), Ordering::Relaxed);
    result
}
