//! Memory of a guest, counted against its budget.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wasmtime::ResourceLimiter;

use crate::engine::MEMORY_BYTES_MAX;
use crate::meter::Meter;

/// Bytes one table entry takes in the host.
const TABLE_ENTRY_BYTES: usize = 8;

/// Counts linear memories and tables of one store.
pub(crate) struct Limits {
    meter: Arc<Meter>,
    used: usize,
    most: usize,
    /// Growth was refused: a trap that follows is most likely the guest's allocator giving up.
    pub(crate) refused: bool,
}

impl Limits {
    pub(crate) fn new(meter: Arc<Meter>) -> Self {
        let most = usize::try_from(meter.budget.memory_bytes).unwrap_or(usize::MAX).min(MEMORY_BYTES_MAX);
        Self { meter, used: 0, most, refused: false }
    }

    fn grow(&mut self, by: usize, maximum_reached: bool) -> bool {
        let used = self.used.saturating_add(by);
        let tenant = self.meter.tenant.as_ref();
        if used > self.most || maximum_reached || !tenant.is_none_or(|tenant| tenant.grow(by as u64)) {
            self.refused = true;
            return false;
        }
        self.used = used;
        self.meter.memory_peak_bytes.fetch_max(used as u64, Ordering::Relaxed);
        true
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        if let Some(tenant) = &self.meter.tenant {
            tenant.shrink(self.used as u64);
        }
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current), maximum.is_some_and(|m| desired > m)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let by = desired.saturating_sub(current).saturating_mul(TABLE_ENTRY_BYTES);
        Ok(self.grow(by, maximum.is_some_and(|m| desired > m)))
    }
}
