//! What a run has used, and the most it may use. Shared by the guest's store, the host functions and the engine, so that
//! work done on a guest's behalf counts against the same budget as the guest's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Exhausted};
use crate::tenant::Tenant;

/// The most a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Guest CPU time.
    pub guest_cpu_ns: u64,
    /// Guest memory, all linear memories and tables together.
    pub memory_bytes: u64,
    /// Rows read from tables on its behalf.
    pub rows_scanned: u64,
    /// Rows over all output tables.
    pub output_rows: u64,
    /// Arrow bytes over all output tables.
    pub output_bytes: u64,
    /// Output tables.
    pub output_tables: u64,
    /// Bytes of log text.
    pub log_bytes: u64,
    /// Calls into the host.
    pub host_calls: u64,
    /// Wall clock.
    pub wall_ns: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            guest_cpu_ns: 2_000_000_000,
            memory_bytes: 256 << 20,
            rows_scanned: 1_000_000_000,
            output_rows: 1_000_000,
            output_bytes: 256 << 20,
            output_tables: 64,
            log_bytes: 64 << 10,
            host_calls: 1_000_000,
            wall_ns: 30_000_000_000,
        }
    }
}

/// Counters of a run against its [`Budget`].
#[derive(Debug, Default)]
pub struct Meter {
    /// The limits.
    pub budget: Budget,
    /// Whose sums it counts against too.
    pub tenant: Option<Arc<Tenant>>,
    /// Used so far.
    pub guest_cpu_ns: AtomicU64,
    /// Highest so far.
    pub memory_peak_bytes: AtomicU64,
    /// Used so far.
    pub rows_scanned: AtomicU64,
    /// Used so far.
    pub bytes_scanned: AtomicU64,
    /// Used so far.
    pub output_rows: AtomicU64,
    /// Used so far.
    pub output_bytes: AtomicU64,
    /// Used so far.
    pub output_tables: AtomicU64,
    /// Used so far.
    pub log_bytes: AtomicU64,
    /// Used so far.
    pub host_calls: AtomicU64,
}

impl Meter {
    /// A meter at zero.
    pub fn new(budget: Budget) -> Self {
        Self { budget, ..Self::default() }
    }

    /// A meter at zero, of a run of this tenant.
    pub fn of(tenant: Arc<Tenant>, budget: Budget) -> Self {
        Self { tenant: Some(tenant), ..Self::new(budget) }
    }

    /// Rows and bytes read from tables.
    pub fn charge_scan(&self, rows: u64, bytes: u64) -> Result<(), Error> {
        self.bytes_scanned.fetch_add(bytes, Ordering::Relaxed);
        charge(&self.rows_scanned, rows, self.budget.rows_scanned, Exhausted::Rows)?;
        self.tenant.as_ref().map_or(Ok(()), |tenant| tenant.charge_rows(rows))
    }

    /// Rows and bytes put out.
    pub fn charge_output(&self, rows: u64, bytes: u64) -> Result<(), Error> {
        charge(&self.output_rows, rows, self.budget.output_rows, Exhausted::Output)?;
        charge(&self.output_bytes, bytes, self.budget.output_bytes, Exhausted::Output)?;
        self.tenant.as_ref().map_or(Ok(()), |tenant| tenant.charge_output(bytes))
    }

    /// One call into the host.
    pub fn charge_call(&self) -> Result<(), Error> {
        charge(&self.host_calls, 1, self.budget.host_calls, Exhausted::Calls)
    }
}

fn charge(used: &AtomicU64, by: u64, most: u64, which: Exhausted) -> Result<(), Error> {
    let now = used.fetch_add(by, Ordering::Relaxed).saturating_add(by);
    if now > most { Err(Error::Exhausted(which)) } else { Ok(()) }
}
