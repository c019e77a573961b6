//! Which runs there are: how many at once, who waits, which can be cancelled. What became of them is a table
//! ([`history`]).

pub mod history;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use host::slots::{Slot, Slots};
use host::tenant::Tenant;
use rand::Rng;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::status::Refusal;
use crate::tenants::Tenants;

pub use history::{History, Record, Used};

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

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "pid:{pid}"),
            Self::Address(addr) => write!(f, "{addr}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// All runs of one Vizier.
#[derive(Debug)]
pub struct Runs {
    places: Slots,
    tenants: Tenants,
    limits: Limits,
    state: Mutex<State>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    per_client: HashMap<Client, usize>,
    active: BTreeMap<String, CancellationToken>,
    waiting: usize,
    waiting_per_tenant: HashMap<u64, usize>,
}

/// A run's right to go on; given back when dropped.
#[derive(Debug)]
pub struct Place {
    runs: Arc<Runs>,
    /// Who asked for it.
    pub client: Client,
    /// Whose sums it counts against.
    pub tenant: Arc<Tenant>,
    /// Id of the run.
    pub run_id: String,
    /// Stops the run.
    pub cancel: CancellationToken,
    _slot: Option<Slot>,
}

impl Runs {
    /// None yet. `stop` cancels all.
    pub fn new(limits: &Limits, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            places: Slots::new(limits.runs.max(1)),
            tenants: Tenants::new(limits.tenant),
            limits: limits.clone(),
            state: Mutex::default(),
            stop,
        })
    }

    /// A place for one more run, at once, after some waiting, or not at all.
    pub async fn admit(self: &Arc<Self>, client: Client, tenant: &str) -> Result<Place, Refusal> {
        if self.stop.is_cancelled() {
            return Err(Refusal::stopping());
        }
        let tenant = self.tenants.get(tenant);
        if let Some(which) = tenant.exhausted() {
            return Err(Refusal::busy(format!("the runs of {} have used up their {which} for now", tenant.name())));
        }
        // Counted before it waits: a client's waiting runs fill the queue as its running ones fill the places.
        let mut place = self.claim(client, tenant)?;
        place._slot = Some(self.slot(&place.tenant).await?);
        Ok(place)
    }

    fn claim(self: &Arc<Self>, client: Client, tenant: Arc<Tenant>) -> Result<Place, Refusal> {
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
        Ok(Place { runs: self.clone(), client, tenant, run_id, cancel, _slot: None })
    }

    async fn slot(&self, tenant: &Tenant) -> Result<Slot, Refusal> {
        let _waiting = Waiting::join(self, tenant)?;
        let acquired = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Refusal::stopping()),
            acquired = timeout(self.limits.waiting_time, self.places.acquire(tenant.id(), tenant.budget().runs)) => acquired,
        };
        match acquired {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(host::slots::Full(waiting))) => {
                Err(Refusal::busy(format!("vizier is busy: {waiting} runs of {} are waiting already", tenant.name())))
            }
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

/// A run that has no place yet.
struct Waiting<'a> {
    runs: &'a Runs,
    tenant: u64,
}

impl<'a> Waiting<'a> {
    fn join(runs: &'a Runs, tenant: &Tenant) -> Result<Self, Refusal> {
        let mut state = runs.lock();
        // One more than may wait: the one that is let through at once passes here too.
        let most = runs.limits.runs_waiting + 1;
        if state.waiting >= most {
            return Err(Refusal::busy(format!("vizier is busy: {} runs are waiting already", most - 1)));
        }
        let of_tenant = state.waiting_per_tenant.get(&tenant.id()).copied().unwrap_or(0);
        // So that there is room for another's.
        if of_tenant > (most / 2).max(1) {
            return Err(Refusal::busy(format!(
                "vizier is busy: {of_tenant} runs of {} are waiting already",
                tenant.name()
            )));
        }
        state.waiting += 1;
        *state.waiting_per_tenant.entry(tenant.id()).or_default() += 1;
        Ok(Self { runs, tenant: tenant.id() })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.runs.lock();
        state.waiting -= 1;
        if let Some(count) = state.waiting_per_tenant.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                state.waiting_per_tenant.remove(&self.tenant);
            }
        }
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
        let first = runs.admit(client(1), "uid:1").await.unwrap();
        let _second = runs.admit(client(1), "uid:1").await.unwrap();
        let refused = runs.admit(client(1), "uid:1").await.unwrap_err();
        assert_eq!(refused.code, tonic::Code::ResourceExhausted);
        let _other = runs.admit(client(2), "uid:2").await.unwrap();
        drop(first);
        runs.admit(client(1), "uid:1").await.unwrap();
    }

    #[tokio::test]
    async fn the_queue_is_bounded_in_length_and_time() {
        let limits = Limits { runs: 1, runs_waiting: 1, waiting_time: Duration::from_millis(300), ..Limits::default() };
        let runs = runs(limits);
        let place = runs.admit(client(1), "uid:1").await.unwrap();
        let waiter = tokio::spawn({
            let runs = runs.clone();
            async move { runs.admit(client(2), "uid:2").await.map(|_| ()) }
        });
        while runs.lock().waiting == 0 {
            tokio::task::yield_now().await;
        }
        let refused = runs.admit(client(3), "uid:3").await.unwrap_err();
        assert!(refused.message.contains("busy"), "{refused}");
        let late = waiter.await.unwrap().unwrap_err();
        assert!(late.message.contains("no place came free"), "{late}");
        drop(place);
        runs.admit(client(2), "uid:2").await.unwrap();
        assert_eq!(runs.active(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn cancel_finds_runs_by_id_and_stop_ends_all() {
        let stop = CancellationToken::new();
        let runs = Runs::new(&Limits::default(), stop.clone());
        let place = runs.admit(client(1), "uid:1").await.unwrap();
        let other = runs.admit(client(1), "uid:1").await.unwrap();
        assert!(!runs.cancel("nonsense"));
        assert!(runs.cancel(&place.run_id));
        assert!(place.cancel.is_cancelled() && !other.cancel.is_cancelled());
        stop.cancel();
        assert!(other.cancel.is_cancelled());
        assert_eq!(runs.admit(client(1), "uid:1").await.unwrap_err().code, tonic::Code::Unavailable);
    }

    #[tokio::test]
    async fn a_tenant_leaves_room_for_another_however_many_processes_it_has() {
        let tenant = host::tenant::Budget { runs: 3, ..host::tenant::Budget::UNLIMITED };
        let limits = Limits { runs: 4, runs_waiting: 8, tenant, ..Limits::default() };
        let runs = runs(limits);
        let mut held = Vec::new();
        for n in 0..3 {
            held.push(runs.admit(client(n), "greedy").await.unwrap());
        }
        // One place is free, and not for it: its other runs wait, and are refused once they fill half of the queue.
        let mut waits = Vec::new();
        let mut refused = 0;
        for n in 3..20 {
            let runs = runs.clone();
            let mut wait = Box::pin(async move { runs.admit(client(n), "greedy").await });
            match futures::poll!(wait.as_mut()) {
                std::task::Poll::Pending => waits.push(wait),
                std::task::Poll::Ready(Err(e)) => {
                    assert!(e.message.contains("runs of greedy are waiting already"), "{e}");
                    refused += 1;
                }
                std::task::Poll::Ready(Ok(_)) => panic!("more places than it may have"),
            }
        }
        assert!(waits.len() >= 4 && refused > 0, "{} wait, {refused} are refused", waits.len());
        let _other = runs.admit(client(50), "modest").await.unwrap();
    }

    #[tokio::test]
    async fn a_tenant_that_has_used_up_its_account_is_told_which() {
        let tenant = host::tenant::Budget { rows_scanned: 10, ..host::tenant::Budget::UNLIMITED };
        let runs = runs(Limits { tenant, ..Limits::default() });
        let place = runs.admit(client(1), "greedy").await.unwrap();
        let meter = host::meter::Meter::of(place.tenant.clone(), host::meter::Budget::default());
        assert!(meter.charge_scan(11, 0).is_err());
        let refused = runs.admit(client(1), "greedy").await.unwrap_err();
        assert!(refused.message.contains("greedy have used up their rows"), "{refused}");
        runs.admit(client(2), "modest").await.unwrap();
    }
}
