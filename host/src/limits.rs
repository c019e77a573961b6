//! Memory of a guest, counted against its budget.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use crate::engine::MEMORY_BYTES_MAX;
use crate::meter::{Held, Meter};

/// Bytes one table entry takes in the host.
const TABLE_ENTRY_BYTES: usize = 8;

/// Counts linear memories and tables of one store against its run.
pub(crate) struct Limits {
    held: Held,
    /// Growth was refused: a trap that follows is most likely the guest's allocator giving up.
    pub(crate) refused: bool,
}

impl Limits {
    pub(crate) fn new(meter: Arc<Meter>) -> Self {
        Self { held: Held::nothing(meter), refused: false }
    }

    /// Bytes of its memories and tables.
    pub(crate) fn used(&self) -> u64 {
        self.held.bytes()
    }

    fn grow(&mut self, by: usize, maximum_reached: bool) -> bool {
        let by = by as u64;
        let fits = !maximum_reached && self.held.bytes().saturating_add(by) <= MEMORY_BYTES_MAX as u64;
        let grown = fits && self.held.grow(by).is_ok();
        self.refused |= !grown;
        grown
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
