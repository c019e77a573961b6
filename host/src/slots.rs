//! Slots that tenants share: whoever waits gets the next one by how few its tenant holds, not by how early it came.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Runs of one tenant that may wait. One more is refused: whoever asks had better wait elsewhere.
const WAITING_MAX: usize = 256;

/// The slots.
#[derive(Debug)]
pub struct Slots(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    /// By tenant; those that hold none are not in it.
    held: HashMap<u64, usize>,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    tenant: u64,
    most: usize,
    grant: oneshot::Sender<Slot>,
}

/// One slot; given on when dropped.
#[derive(Debug)]
pub struct Slot {
    state: Arc<Mutex<State>>,
    tenant: u64,
}

/// So many of the tenant's runs wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full(pub usize);

impl Slots {
    /// All free.
    pub fn new(slots: usize) -> Self {
        let state = State { free: slots, held: HashMap::new(), waiting: VecDeque::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A slot for a run of this tenant, of which it may hold `most`; waits for one.
    pub async fn acquire(&self, tenant: u64, most: usize) -> Result<Slot, Full> {
        let granted = {
            let mut state = lock(&self.0);
            state.waiting.retain(|waiter| !waiter.grant.is_closed());
            let held = state.held.get(&tenant).copied().unwrap_or(0);
            if state.free > 0 && state.waiting.is_empty() && held < most.max(1) {
                state.free -= 1;
                *state.held.entry(tenant).or_default() += 1;
                return Ok(Slot { state: Arc::clone(&self.0), tenant });
            }
            let waiting = state.waiting.iter().filter(|waiter| waiter.tenant == tenant).count();
            if waiting >= WAITING_MAX {
                return Err(Full(waiting));
            }
            let (grant, granted) = oneshot::channel();
            state.waiting.push_back(Waiter { tenant, most: most.max(1), grant });
            granted
        };
        settle(&self.0);
        // The sender is gone only with all slots.
        granted.await.map_err(|_| Full(0))
    }

    /// Runs that wait.
    pub fn waiting(&self) -> usize {
        lock(&self.0).waiting.iter().filter(|waiter| !waiter.grant.is_closed()).count()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.state);
            state.free += 1;
            if let Some(held) = state.held.get_mut(&self.tenant) {
                *held -= 1;
                if *held == 0 {
                    state.held.remove(&self.tenant);
                }
            }
        }
        settle(&self.state);
    }
}

/// Gives free slots to those that wait. Whoever gave up meanwhile gets none: dropping its slot gives it on.
fn settle(shared: &Arc<Mutex<State>>) {
    loop {
        let waiter = {
            let mut state = lock(shared);
            match state.next() {
                Some(waiter) => waiter,
                None => return,
            }
        };
        let slot = Slot { state: Arc::clone(shared), tenant: waiter.tenant };
        // Not under the lock: a slot that comes back takes it.
        drop(waiter.grant.send(slot));
    }
}

impl State {
    fn next(&mut self) -> Option<Waiter> {
        self.waiting.retain(|waiter| !waiter.grant.is_closed());
        if self.free == 0 {
            return None;
        }
        let held = |waiter: &Waiter| self.held.get(&waiter.tenant).copied().unwrap_or(0);
        // The first of those whose tenant holds the fewest.
        let waiting = self.waiting.iter().enumerate().filter(|(_, waiter)| held(waiter) < waiter.most);
        let (at, _) = waiting.min_by_key(|(_, waiter)| held(waiter))?;
        let waiter = self.waiting.remove(at)?;
        self.free -= 1;
        *self.held.entry(waiter.tenant).or_default() += 1;
        Some(waiter)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn now<F: Future>(future: F) -> Option<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_slot_goes_to_the_tenant_that_holds_the_fewest() {
        let slots = Arc::new(Slots::new(4));
        let mut greedy = Vec::new();
        for _ in 0..4 {
            greedy.push(slots.acquire(1, 9).await.unwrap());
        }
        let waits: Vec<_> = [1, 1, 2]
            .map(|tenant| {
                let slots = slots.clone();
                tokio::spawn(async move { slots.acquire(tenant, 9).await.unwrap() })
            })
            .into();
        while slots.waiting() < 3 {
            tokio::task::yield_now().await;
        }
        greedy.pop();
        let mut waits = waits.into_iter();
        let (first, second, other) = (waits.next().unwrap(), waits.next().unwrap(), waits.next().unwrap());
        // The last to come.
        let other = other.await.unwrap();
        assert!(!first.is_finished() && slots.waiting() == 2);
        greedy.pop();
        let _first = first.await.unwrap();
        second.abort();
        drop(other);
        drop(greedy);
    }

    #[tokio::test]
    async fn a_tenant_holds_no_more_than_its_most_though_slots_are_free() {
        let slots = Slots::new(4);
        let one = slots.acquire(1, 1).await.unwrap();
        assert!(now(slots.acquire(1, 1)).is_none());
        let _other = now(slots.acquire(2, 1)).unwrap().unwrap();
        drop(one);
        now(slots.acquire(1, 1)).unwrap().unwrap();
    }

    #[tokio::test]
    async fn whoever_gives_up_costs_no_slot() {
        let slots = Slots::new(1);
        let held = slots.acquire(1, 1).await.unwrap();
        {
            let mut waits = pin!(slots.acquire(2, 1));
            assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            // Granted, and not taken.
            drop(held);
        }
        now(slots.acquire(3, 1)).unwrap().unwrap();
        assert_eq!(slots.waiting(), 0);
    }

    #[tokio::test]
    async fn those_that_wait_are_bounded_by_tenant() {
        let slots = Arc::new(Slots::new(1));
        let _held = slots.acquire(1, 1).await.unwrap();
        let mut waits = Vec::new();
        for _ in 0..WAITING_MAX {
            let mut wait = Box::pin(slots.acquire(1, 1));
            assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            waits.push(wait);
        }
        assert_eq!(slots.acquire(1, 1).await.unwrap_err(), Full(WAITING_MAX));
        assert!(now(slots.acquire(2, 1)).is_none(), "another tenant may wait");
    }
}
