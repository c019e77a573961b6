//! What a run has used, and the most it may use. Shared by the guest's store, the host functions and the engine, so that
//! work done on a guest's behalf counts against the same budget as the guest's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Exhausted};
use crate::tenant::Tenant;

/// What a log line costs beside its text: its time, its level and its message to the client. Without it empty lines would be free.
pub const LINE_COSTS_BYTES: u64 = 32;

/// The most a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Guest CPU time.
    pub guest_cpu_ns: u64,
    /// Guest memory, all linear memories and tables together, and the rows that a guest handed over and that are still held.
    pub memory_bytes: u64,
    /// Rows read from tables on its behalf.
    pub rows_scanned: u64,
    /// Rows over all output tables.
    pub output_rows: u64,
    /// Arrow bytes over all output tables.
    pub output_bytes: u64,
    /// Output tables.
    pub output_tables: u64,
    /// Bytes of log text, with [`LINE_COSTS_BYTES`] for each line.
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
    /// Held now: memories of guests, and what guests handed over.
    memory_bytes: AtomicU64,
    /// Highest so far.
    pub memory_peak_bytes: AtomicU64,
    /// Part of it that is held until the meter goes.
    kept: Kept,
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
        let kept = Kept { tenant: Some(Arc::clone(&tenant)), bytes: AtomicU64::new(0) };
        Self { tenant: Some(tenant), kept, ..Self::new(budget) }
    }

    /// Processor time of guest code.
    pub fn charge_cpu(&self, ns: u64) -> Result<(), Error> {
        charge(&self.guest_cpu_ns, ns, self.budget.guest_cpu_ns, Exhausted::Cpu)?;
        match self.tenant.as_ref().is_none_or(|tenant| tenant.charge_cpu(ns)) {
            true => Ok(()),
            false => Err(Error::Exhausted(Exhausted::Cpu)),
        }
    }

    /// Memory that counts against the run, and its tenant, until what is given back is dropped.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Result<Held, Error> {
        let mut held = Held::nothing(Arc::clone(self));
        held.grow(bytes)?;
        Ok(held)
    }

    /// Memory that counts until the run is over: nobody knows when the last plan that reads it goes.
    pub fn keep(&self, bytes: u64) -> Result<(), Error> {
        self.take_memory(bytes)?;
        self.kept.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn take_memory(&self, bytes: u64) -> Result<(), Error> {
        let now = self.memory_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let fits = now <= self.budget.memory_bytes && self.tenant.as_ref().is_none_or(|tenant| tenant.grow(bytes));
        if !fits {
            self.memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Error::Exhausted(Exhausted::Memory));
        }
        self.memory_peak_bytes.fetch_max(now, Ordering::Relaxed);
        Ok(())
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

    /// A line of log. False: there is no room for it, and it costs nothing.
    pub fn charge_log(&self, line: &str) -> bool {
        let bytes = line.len() as u64 + LINE_COSTS_BYTES;
        let fits = charge(&self.log_bytes, bytes, self.budget.log_bytes, Exhausted::Logs).is_ok();
        if !fits {
            // Given back, so that a short line after a long one still fits and the counter says what was written.
            self.log_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// One call into the host.
    pub fn charge_call(&self) -> Result<(), Error> {
        charge(&self.host_calls, 1, self.budget.host_calls, Exhausted::Calls)
    }
}

/// Memory of a run, given back when dropped.
#[derive(Debug)]
pub struct Held {
    meter: Arc<Meter>,
    bytes: u64,
}

impl Held {
    /// Nothing yet.
    pub fn nothing(meter: Arc<Meter>) -> Self {
        Self { meter, bytes: 0 }
    }

    /// So much more.
    pub fn grow(&mut self, by: u64) -> Result<(), Error> {
        self.meter.take_memory(by)?;
        self.bytes += by;
        Ok(())
    }

    /// So much it is now.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.memory_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(tenant) = &self.meter.tenant {
            tenant.shrink(self.bytes);
        }
    }
}

/// What goes back to the tenant with the meter.
#[derive(Debug, Default)]
struct Kept {
    tenant: Option<Arc<Tenant>>,
    bytes: AtomicU64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(tenant) = &self.tenant {
            tenant.shrink(*self.bytes.get_mut());
        }
    }
}

fn charge(used: &AtomicU64, by: u64, most: u64, which: Exhausted) -> Result<(), Error> {
    let now = used.fetch_add(by, Ordering::Relaxed).saturating_add(by);
    if now > most { Err(Error::Exhausted(which)) } else { Ok(()) }
}
