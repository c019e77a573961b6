//! Threads for guests.
//!
//! A guest is polled here and never on a worker of the embedder's runtime, so that a guest can hold up no one but guests. There
//! are two classes of threads. A run starts in the first: as many threads as there are cores, at normal priority. A run that
//! has used [`FIRST_CLASS_NS`] of processor time moves to the second: half as many threads, which the operating system lets
//! run when nothing else wants the core. Within a class, runs take turns at every epoch. So a script that loops for ever
//! costs others next to nothing, and a script that plans (tens of microseconds) never waits behind one that computes.
//!
//! The turns are tenants': each tenant with runs in a queue has one run polled, then the next tenant has. A tenant whose runs
//! together have computed much of late starts in the second class, however new the run ([`Tenant::credit`]).

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::error::Error;
use crate::tenant::Tenant;

/// Processor time after which a run is second class. Planning takes well under 1 ms, so this is ten times what a script needs
/// that only plans.
pub const FIRST_CLASS_NS: u64 = 10_000_000;

/// Stack of a thread: SQL is planned on it, and deep expressions recurse. Only what is touched becomes memory.
const STACK_BYTES: usize = 16 << 20;

/// Priority of second-class threads in the crate's 0..100, where 100 is the highest: nice 14, a twentieth of a normal thread's
/// weight. Not 0 (nice 19, a seventieth): a script that computes for good reason must get on under load.
const SECOND_CLASS_PRIORITY: u8 = 11;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The threads. Dropping it lets them end after what they poll at the moment.
pub(crate) struct Pool(Arc<Shared>);

/// Which threads a run is polled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    First = 0,
    Second = 1,
}

struct Shared {
    queues: [Queue; 2],
    stop: AtomicBool,
}

#[derive(Default)]
struct Queue {
    tasks: Mutex<Turns>,
    waiting: AtomicUsize,
    ready: Condvar,
}

/// Runs that are to be polled, by tenant. Bounded by the number of runs, which the runtime bounds.
#[derive(Default)]
struct Turns {
    by_tenant: HashMap<u64, VecDeque<Arc<Task>>>,
    /// Each tenant of the map once.
    order: VecDeque<u64>,
    len: usize,
}

impl Turns {
    fn push(&mut self, task: Arc<Task>) {
        let tenant = task.tenant;
        let tasks = self.by_tenant.entry(tenant).or_default();
        if tasks.is_empty() {
            self.order.push_back(tenant);
        }
        tasks.push_back(task);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<Arc<Task>> {
        let tenant = self.order.pop_front()?;
        let tasks = self.by_tenant.get_mut(&tenant)?;
        let task = tasks.pop_front()?;
        if tasks.is_empty() {
            self.by_tenant.remove(&tenant);
        } else {
            self.order.push_back(tenant);
        }
        self.len -= 1;
        Some(task)
    }
}

/// A run as the pool sees it.
pub(crate) struct Task {
    work: Mutex<Option<Work>>,
    state: AtomicU8,
    class: Arc<AtomicU8>,
    tenant: u64,
    shared: Arc<Shared>,
}

/// Of one run: tells whether others wait for its thread, and moves it to the second class.
#[derive(Clone)]
pub(crate) struct Place {
    class: Arc<AtomicU8>,
    tenant: u64,
    shared: Arc<Shared>,
}

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const POLLED: u8 = 2;
/// Polled, and woken since.
const AGAIN: u8 = 3;

impl Pool {
    pub(crate) fn spawn(threads: usize) -> Result<Self, Error> {
        let shared = Arc::new(Shared { queues: Default::default(), stop: AtomicBool::new(false) });
        let pool = Self(Arc::clone(&shared));
        let counts = [(Class::First, threads.max(1)), (Class::Second, (threads / 2).max(1))];
        for (class, count) in counts {
            for i in 0..count {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("guest-{}-{i}", class as u8 + 1))
                    .stack_size(STACK_BYTES)
                    .spawn(move || {
                        if class == Class::Second {
                            yield_priority();
                        }
                        serve(&shared, class);
                    })
                    .map_err(|e| Error::Internal(format!("cannot start a guest thread: {e}")))?;
            }
        }
        Ok(pool)
    }

    /// A place for a run that is spawned later. Runs without a tenant are one tenant, with all the credit there is.
    pub(crate) fn place(&self, tenant: Option<&Tenant>) -> Place {
        let class = if tenant.is_none_or(Tenant::credit) { Class::First } else { Class::Second };
        Place {
            class: Arc::new(AtomicU8::new(class as u8)),
            tenant: tenant.map_or(0, Tenant::id),
            shared: Arc::clone(&self.0),
        }
    }

    /// Polls the work until it is done.
    pub(crate) fn spawn_task(&self, place: &Place, work: Work) -> Arc<Task> {
        let task = Arc::new(Task {
            work: Mutex::new(Some(work)),
            state: AtomicU8::new(IDLE),
            class: Arc::clone(&place.class),
            tenant: place.tenant,
            shared: Arc::clone(&self.0),
        });
        Arc::clone(&task).wake();
        task
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
        for queue in &self.0.queues {
            // Under the lock, so that no thread is between looking at `stop` and waiting.
            let mut tasks = queue.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            let left = std::mem::take(&mut *tasks);
            queue.ready.notify_all();
            drop(tasks);
            // Runs that were cancelled and not polled since: dropping them stops what they read. Not under the lock, since
            // that may wake others.
            drop(left);
        }
    }
}

impl Place {
    /// Whether another run waits for this one's thread.
    pub(crate) fn wanted(&self) -> bool {
        let class = self.class.load(Ordering::Relaxed);
        self.shared.queues[usize::from(class)].waiting.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn first_class(&self) -> bool {
        self.class.load(Ordering::Relaxed) == Class::First as u8
    }

    /// From the next yield on.
    pub(crate) fn degrade(&self) {
        self.class.store(Class::Second as u8, Ordering::Relaxed);
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        loop {
            let state = self.state.load(Ordering::SeqCst);
            let next = match state {
                IDLE => QUEUED,
                POLLED => AGAIN,
                _ => return,
            };
            if self.state.compare_exchange(state, next, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                if next == QUEUED {
                    let shared = Arc::clone(&self.shared);
                    shared.push(self);
                }
                return;
            }
        }
    }
}

impl Shared {
    fn push(&self, task: Arc<Task>) {
        let queue = &self.queues[usize::from(task.class.load(Ordering::Relaxed))];
        let mut tasks = queue.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stop.load(Ordering::SeqCst) {
            // Nobody is left to poll it.
            drop(tasks);
            return drop(task);
        }
        tasks.push(task);
        queue.waiting.store(tasks.len, Ordering::Relaxed);
        drop(tasks);
        queue.ready.notify_one();
    }

    fn pop(&self, class: Class) -> Option<Arc<Task>> {
        let queue = &self.queues[class as usize];
        let mut tasks = queue.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(task) = tasks.pop() {
                queue.waiting.store(tasks.len, Ordering::Relaxed);
                return Some(task);
            }
            tasks = queue.ready.wait(tasks).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn serve(shared: &Arc<Shared>, class: Class) {
    while let Some(task) = shared.pop(class) {
        task.state.store(POLLED, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&task));
        let mut work = task.work.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(future) = work.as_mut() else { continue };
        // A panic would be ours; it ends the run it happened in (whoever waits for it is told) and not the thread.
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            future.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        if !matches!(polled, Ok(Poll::Pending)) {
            *work = None;
            continue;
        }
        drop(work);
        let idle = task.state.compare_exchange(POLLED, IDLE, Ordering::SeqCst, Ordering::SeqCst);
        if idle.is_err() {
            // Woken while polled: to the end of the line, which may be the other class's by now.
            task.state.store(QUEUED, Ordering::SeqCst);
            shared.push(task);
        }
    }
}

pub(crate) fn yield_priority() {
    use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
    let value = ThreadPriorityValue::try_from(SECOND_CLASS_PRIORITY).expect("the constant is below 100");
    if let Err(reason) = set_current_thread_priority(ThreadPriority::Crossplatform(value)) {
        tracing::warn!(?reason, "scripts that compute for long run at normal priority");
    }
}
