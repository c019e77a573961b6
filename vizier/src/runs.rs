//! Which runs there are: how many at once, who waits, which can be cancelled, and what became of the last ones.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::status::Refusal;

/// Who a run counts against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// A process on this machine, as the kernel names it.
    Process(i32),
    /// The other end of a TCP connection.
    Address(SocketAddr),
    /// Cannot be told apart (in-process tests).
    Unknown,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Id, as in `Started`.
    pub run_id: String,
    /// Name of the script, or `sql`.
    pub name: String,
    /// Digest of the component, empty for SQL.
    pub digest: String,
    /// ns since the epoch.
    pub started_time_ns: i64,
    /// How long it took.
    pub total_ns: u64,
    /// How it ended.
    pub status: vizier_api::Status,
    /// What it used, over all rounds.
    pub statistics: vizier_api::Statistics,
    /// Agents missing in its last round.
    pub missing: usize,
    /// Rounds, 1 without follow.
    pub rounds: u64,
}

/// All runs of one Vizier.
#[derive(Debug)]
pub struct Runs {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    limits: Limits,
    state: Mutex<State>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    per_client: HashMap<Client, usize>,
    active: BTreeMap<String, CancellationToken>,
    history: VecDeque<Record>,
}

/// A run's right to go on; given back when dropped.
#[derive(Debug)]
pub struct Place {
    runs: Arc<Runs>,
    client: Client,
    /// Id of the run.
    pub run_id: String,
    /// Stops the run.
    pub cancel: CancellationToken,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Runs {
    /// None yet. `stop` cancels all.
    pub fn new(limits: &Limits, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(limits.runs.max(1))),
            waiting: AtomicUsize::new(0),
            limits: limits.clone(),
            state: Mutex::default(),
            stop,
        })
    }

    /// A place for one more run, at once, after some waiting, or not at all.
    pub async fn admit(self: &Arc<Self>, client: Client) -> Result<Place, Refusal> {
        if self.stop.is_cancelled() {
            return Err(Refusal::stopping());
        }
        // Counted before it waits: a client's waiting runs fill the queue as its running ones fill the places.
        let mut place = self.claim(client)?;
        place._permit = Some(self.permit().await?);
        Ok(place)
    }

    fn claim(self: &Arc<Self>, client: Client) -> Result<Place, Refusal> {
        let mut state = self.lock();
        let count = state.per_client.entry(client.clone()).or_default();
        if *count >= self.limits.runs_per_client {
            return Err(Refusal::busy(format!(
                "this client has {count} runs going, at most {} are allowed at once",
                self.limits.runs_per_client
            )));
        }
        *count += 1;
        let run_id = format!("{:016x}", rand::rng().random::<u64>());
        let cancel = self.stop.child_token();
        state.active.insert(run_id.clone(), cancel.clone());
        Ok(Place { runs: self.clone(), client, run_id, cancel, _permit: None })
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::join(&self.waiting, self.limits.runs_waiting)?;
        let acquired = tokio::select! {
            () = self.stop.cancelled() => return Err(Refusal::stopping()),
            acquired = timeout(self.limits.waiting_time, self.places.clone().acquire_owned()) => acquired,
        };
        match acquired {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Refusal::stopping()),
            Err(_) => Err(Refusal::busy(format!(
                "vizier is busy: {} runs are going, and no place came free within {} ms",
                self.limits.runs,
                self.limits.waiting_time.as_millis()
            ))),
        }
    }

    /// Stops a run. False: there is none of that id.
    pub fn cancel(&self, run_id: &str) -> bool {
        match self.lock().active.get(run_id) {
            Some(token) => {
                token.cancel();
                true
            }
            None => false,
        }
    }

    /// Ids of runs that go on or wait.
    pub fn active(&self) -> Vec<String> {
        self.lock().active.keys().cloned().collect()
    }

    /// Keeps what became of a run, at the expense of the oldest.
    pub fn record(&self, record: Record) {
        let mut state = self.lock();
        if state.history.len() >= self.limits.history {
            state.history.pop_front();
        }
        if self.limits.history > 0 {
            state.history.push_back(record);
        }
    }

    /// The last runs, oldest first.
    pub fn history(&self) -> Vec<Record> {
        self.lock().history.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.runs.lock();
        state.active.remove(&self.run_id);
        if let Some(count) = state.per_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                state.per_client.remove(&self.client);
            }
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(count: &'a AtomicUsize, most: usize) -> Result<Self, Refusal> {
        if count.fetch_add(1, Ordering::Relaxed) >= most {
            count.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::busy(format!("vizier is busy: {most} runs are waiting already")));
        }
        Ok(Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn runs(limits: Limits) -> Arc<Runs> {
        Runs::new(&limits, CancellationToken::new())
    }

    fn client(n: i32) -> Client {
        Client::Process(n)
    }

    #[tokio::test]
    async fn one_client_cannot_take_every_place() {
        let runs = runs(Limits { runs: 4, runs_per_client: 2, ..Limits::default() });
        let first = runs.admit(client(1)).await.unwrap();
        let _second = runs.admit(client(1)).await.unwrap();
        let refused = runs.admit(client(1)).await.unwrap_err();
        assert_eq!(refused.code, tonic::Code::ResourceExhausted);
        let _other = runs.admit(client(2)).await.unwrap();
        drop(first);
        runs.admit(client(1)).await.unwrap();
    }

    #[tokio::test]
    async fn the_queue_is_bounded_in_length_and_time() {
        let limits = Limits { runs: 1, runs_waiting: 1, waiting_time: Duration::from_millis(300), ..Limits::default() };
        let runs = runs(limits);
        let place = runs.admit(client(1)).await.unwrap();
        let waiter = tokio::spawn({
            let runs = runs.clone();
            async move { runs.admit(client(2)).await.map(|_| ()) }
        });
        while runs.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let refused = runs.admit(client(3)).await.unwrap_err();
        assert!(refused.message.contains("busy"), "{refused}");
        let late = waiter.await.unwrap().unwrap_err();
        assert!(late.message.contains("no place came free"), "{late}");
        drop(place);
        runs.admit(client(2)).await.unwrap();
        assert_eq!(runs.active(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn cancel_finds_runs_by_id_and_stop_ends_all() {
        let stop = CancellationToken::new();
        let runs = Runs::new(&Limits::default(), stop.clone());
        let place = runs.admit(client(1)).await.unwrap();
        let other = runs.admit(client(1)).await.unwrap();
        assert!(!runs.cancel("nonsense"));
        assert!(runs.cancel(&place.run_id));
        assert!(place.cancel.is_cancelled() && !other.cancel.is_cancelled());
        stop.cancel();
        assert!(other.cancel.is_cancelled());
        assert_eq!(runs.admit(client(1)).await.unwrap_err().code, tonic::Code::Unavailable);
    }

    #[test]
    fn history_forgets_the_oldest() {
        let runs = runs(Limits { history: 2, ..Limits::default() });
        for n in 0..3 {
            runs.record(Record {
                run_id: n.to_string(),
                name: "sql".into(),
                digest: String::new(),
                started_time_ns: n,
                total_ns: 0,
                status: Default::default(),
                statistics: Default::default(),
                missing: 0,
                rounds: 1,
            });
        }
        let ids: Vec<_> = runs.history().into_iter().map(|r| r.run_id).collect();
        assert_eq!(ids, ["1", "2"]);
    }
}
