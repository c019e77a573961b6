//! Whom runs count against together: what one tenant's runs may use in sum, on top of what each may use by itself.
//!
//! Memory and runs are counted as they are held. Processor time, rows and bytes refill: a tenant may use a minute's worth at
//! once, and then as much as comes back. The same accounts decide who computes first: see [`Tenant::credit`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::error::{Error, Exhausted};

/// Time in which the accounts of a tenant refill.
const WINDOW_NS: u64 = 60_000_000_000;

/// What all runs of a tenant together may compute at normal priority before they compute when nobody else wants to, and how
/// long it takes to come back: a tenth of a core. A thousand scripts a second that plan use half of it.
const CREDIT_NS: u64 = 50_000_000;
const CREDIT_WINDOW_NS: u64 = 500_000_000;

/// What the runs of one tenant may use in sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Runs at once; more wait.
    pub runs: usize,
    /// Guest memory at once.
    pub memory_bytes: u64,
    /// Guest processor time a minute.
    pub guest_cpu_ns: u64,
    /// Rows read from tables a minute.
    pub rows_scanned: u64,
    /// Bytes put out a minute.
    pub output_bytes: u64,
}

impl Budget {
    /// No bound but those of each run.
    pub const UNLIMITED: Self = Self {
        runs: usize::MAX,
        memory_bytes: u64::MAX,
        guest_cpu_ns: u64::MAX,
        rows_scanned: u64::MAX,
        output_bytes: u64::MAX,
    };
}

/// One tenant.
#[derive(Debug)]
pub struct Tenant {
    id: u64,
    name: String,
    budget: Budget,
    memory_bytes: AtomicU64,
    accounts: Mutex<Accounts>,
}

#[derive(Debug)]
struct Accounts {
    cpu: Account,
    rows: Account,
    output: Account,
    credit: Account,
}

/// What is left; less than nothing when more was used than there was.
#[derive(Debug)]
struct Account {
    left: i64,
    most: u64,
    window_ns: u64,
    at: Instant,
}

impl Account {
    fn new(most: u64, window_ns: u64, now: Instant) -> Self {
        Self { left: i64::try_from(most).unwrap_or(i64::MAX), most, window_ns, at: now }
    }

    /// Takes so much, and says whether there was any left.
    fn take(&mut self, by: u64, now: Instant) -> bool {
        if self.most == u64::MAX {
            return true;
        }
        let most = i64::try_from(self.most).unwrap_or(i64::MAX);
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let back = (passed * u128::from(self.most) / u128::from(self.window_ns)).min(most as u128 * 2) as i64;
        // What is less than one stays to be counted the next time.
        if back > 0 {
            self.at = now;
            self.left = self.left.saturating_add(back).min(most);
        }
        // A debt is bounded, so that one mistake does not shut a tenant out for hours.
        self.left = self.left.saturating_sub(i64::try_from(by).unwrap_or(i64::MAX)).max(most.saturating_neg());
        self.left > 0
    }
}

impl Tenant {
    /// With nothing used yet.
    pub fn new(name: impl Into<String>, budget: Budget) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let now = Instant::now();
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            budget,
            memory_bytes: AtomicU64::new(0),
            accounts: Mutex::new(Accounts {
                cpu: Account::new(budget.guest_cpu_ns, WINDOW_NS, now),
                rows: Account::new(budget.rows_scanned, WINDOW_NS, now),
                output: Account::new(budget.output_bytes, WINDOW_NS, now),
                credit: Account::new(CREDIT_NS, CREDIT_WINDOW_NS, now),
            }),
        }
    }

    /// As it is told of.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may use.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Guest memory its runs have now.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// The account that is empty, so that a run would end as soon as it began.
    pub fn exhausted(&self) -> Option<Exhausted> {
        let now = Instant::now();
        let mut accounts = self.accounts();
        let Accounts { cpu, rows, output, .. } = &mut *accounts;
        [(cpu, Exhausted::Cpu), (rows, Exhausted::Rows), (output, Exhausted::Output)]
            .into_iter()
            .find_map(|(account, which)| (!account.take(0, now)).then_some(which))
    }

    /// Not shared by two tenants of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Processor time its runs have used. False: more than they may.
    pub(crate) fn charge_cpu(&self, ns: u64) -> bool {
        let mut accounts = self.accounts();
        let now = Instant::now();
        accounts.credit.take(ns, now);
        accounts.cpu.take(ns, now)
    }

    /// Whether its runs have used little of late, and so compute before those of others that have used much.
    pub(crate) fn credit(&self) -> bool {
        self.accounts().credit.take(0, Instant::now())
    }

    pub(crate) fn charge_rows(&self, rows: u64) -> Result<(), Error> {
        let enough = self.accounts().rows.take(rows, Instant::now());
        if enough { Ok(()) } else { Err(Error::Exhausted(Exhausted::Rows)) }
    }

    pub(crate) fn charge_output(&self, bytes: u64) -> Result<(), Error> {
        let enough = self.accounts().output.take(bytes, Instant::now());
        if enough { Ok(()) } else { Err(Error::Exhausted(Exhausted::Output)) }
    }

    /// More memory for one of its runs. False: there is none left for it.
    pub(crate) fn grow(&self, by: u64) -> bool {
        let grown = self.memory_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(by).filter(|used| *used <= self.budget.memory_bytes)
        });
        grown.is_ok()
    }

    pub(crate) fn shrink(&self, by: u64) {
        self.memory_bytes.fetch_sub(by, Ordering::Relaxed);
    }

    fn accounts(&self) -> std::sync::MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_account_refills_and_its_debt_is_bounded() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut account = Account::new(600, WINDOW_NS, start);
        assert!(account.take(599, start));
        assert!(!account.take(1, start));
        // Ten a second come back.
        assert!(account.take(9, after(1)));
        assert!(!account.take(1, after(1)));
        // However much is taken at once, two windows later there is some again.
        assert!(!account.take(1_000_000, after(1)));
        assert!(!account.take(0, after(50)));
        assert!(account.take(0, after(62)));
        // And never more than the most.
        assert!(account.take(599, after(10_000)));
        assert!(!account.take(1, after(10_000)));
    }

    #[test]
    fn memory_is_held_and_given_back() {
        let tenant = Tenant::new("t", Budget { memory_bytes: 100, ..Budget::UNLIMITED });
        assert!(tenant.grow(60) && !tenant.grow(50) && tenant.grow(40));
        tenant.shrink(60);
        assert!(tenant.grow(50));
        assert_eq!(tenant.memory_bytes(), 90);
    }

    #[test]
    fn one_without_bounds_never_runs_out_but_of_credit() {
        let tenant = Tenant::new("t", Budget::UNLIMITED);
        assert!(tenant.charge_cpu(u64::MAX / 4) && tenant.exhausted().is_none());
        assert!(!tenant.credit());
    }
}
