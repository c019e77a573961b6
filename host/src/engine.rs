//! The wasmtime engine and its clock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::{Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::error::Error;
use crate::runtime::Config;

/// Most memory one guest may have whatever its budget says: what a slot of the pool reserves. QuickJS and Python guests with
/// their working set stay below half of it.
pub(crate) const MEMORY_BYTES_MAX: usize = 512 << 20;

/// Core instances, memories and tables of one component. wit-component makes three core instances of a Rust guest (the module,
/// its shim, the shim's fix-up) with one memory and two tables; interpreters need a few more.
const CORE_INSTANCES_MAX: u32 = 8;
const MEMORIES_MAX: u32 = 2;
const TABLES_MAX: u32 = 4;

/// Entries of one table: functions that a guest calls indirectly. Rust guests have hundreds, QuickJS 4,000.
const TABLE_ENTRIES_MAX: usize = 20_000;

/// The runtime's own record of an instance: grows with functions and types. wasmtime's default.
const INSTANCE_BYTES_MAX: usize = 1 << 20;

/// Memory that a slot keeps for its next user instead of giving it back: a fresh page costs a fault, 256 of them 165 µs. A
/// planning script dirties about 20 pages of 4 KiB. With [`WARM_SLOTS_MAX`] this bounds what idle slots hold to 4 MiB.
const KEEP_RESIDENT_BYTES: usize = 512 << 10;
const WARM_SLOTS_MAX: u32 = 8;

/// Instances of function plugins at once, in all queries together: each takes a slot of the pool as a run does. 32 queries with two
/// functions in two partitions each.
pub(crate) const FUNCTION_INSTANCES_MAX: u32 = 128;

/// Stack of guest code. A guest's recursion ends here, with a trap.
const GUEST_STACK_BYTES: usize = 512 << 10;
/// The fibre has the guest's stack and room for those host calls that run on it: argument lists and array copies, no planning.
const FIBER_STACK_BYTES: usize = GUEST_STACK_BYTES + (512 << 10);

/// Frames told of a trap.
const BACKTRACE_FRAMES_MAX: usize = 24;

/// Length of an epoch: a guest looks at its budget this often. A runaway guest is stopped within two.
pub(crate) const EPOCH: Duration = Duration::from_millis(1);

/// The ticker sleeps when nothing has run for this long, so that an idle host costs nothing.
const LINGER: Duration = Duration::from_millis(100);

/// Makes the engine; without the pool where the address space does not allow one.
pub(crate) fn engine(config: &Config) -> Result<Engine, Error> {
    let pooled = Engine::new(&settings(config, true));
    let engine = pooled.or_else(|reason| {
        tracing::warn!(%reason, "no instance pool, each run allocates for itself; is the address space limited?");
        Engine::new(&settings(config, false))
    });
    engine.map_err(|e| Error::Internal(format!("cannot make a wasm engine: {e:#}")))
}

pub(crate) fn settings(config: &Config, pooled: bool) -> wasmtime::Config {
    let mut settings = wasmtime::Config::new();
    settings
        .epoch_interruption(true)
        .consume_fuel(config.fuel)
        .wasm_component_model(true)
        // No async components in this version of the world; without them a store is cheaper to make.
        .concurrency_support(false)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .cranelift_opt_level(wasmtime::OptLevel::Speed)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        // Line tables are kept where a component has them, and cost nothing where it has none.
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Enable)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES_MAX));
    if pooled {
        let mut pool = PoolingAllocationConfig::default();
        let instances = config.runs_max + FUNCTION_INSTANCES_MAX;
        pool.total_component_instances(instances)
            .total_core_instances(instances * CORE_INSTANCES_MAX)
            .total_memories(instances * MEMORIES_MAX)
            .total_tables(instances * TABLES_MAX)
            .total_stacks(config.runs_max)
            .max_core_instances_per_component(CORE_INSTANCES_MAX)
            .max_memories_per_component(MEMORIES_MAX)
            .max_tables_per_component(TABLES_MAX)
            .max_component_instance_size(INSTANCE_BYTES_MAX)
            .max_core_instance_size(INSTANCE_BYTES_MAX)
            .max_memory_size(MEMORY_BYTES_MAX)
            .table_elements(TABLE_ENTRIES_MAX)
            .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
            .table_keep_resident(TABLE_ENTRIES_MAX * 8)
            .max_unused_warm_slots(WARM_SLOTS_MAX)
            // Where the kernel can say which pages are dirty (6.7), only those are cleared.
            .pagemap_scan(Enabled::Auto);
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    settings
}

/// Counts epochs while something runs.
pub(crate) struct Ticker(Arc<Shared>);

struct Shared {
    engine: Engine,
    running: AtomicUsize,
    state: Mutex<Sleep>,
    wake: Condvar,
}

#[derive(Default)]
struct Sleep {
    asleep: bool,
    stop: bool,
}

/// While this lives, epochs are counted.
pub(crate) struct Running(Arc<Shared>);

impl Ticker {
    pub(crate) fn spawn(engine: Engine) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            engine,
            running: AtomicUsize::new(0),
            state: Mutex::new(Sleep::default()),
            wake: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("guest-epochs".into())
            .spawn(move || tick(&of_thread))
            .map_err(|e| Error::Internal(format!("cannot start the epoch thread: {e}")))?;
        Ok(Self(shared))
    }

    pub(crate) fn start(&self) -> Running {
        let shared = &self.0;
        shared.running.fetch_add(1, Ordering::SeqCst);
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.asleep {
            state.asleep = false;
            shared.wake.notify_one();
        }
        drop(state);
        Running(Arc::clone(shared))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.0.wake.notify_one();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(shared: &Shared) {
    let mut last_run = Instant::now();
    loop {
        std::thread::sleep(EPOCH);
        shared.engine.increment_epoch();
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stop {
            return;
        }
        if shared.running.load(Ordering::SeqCst) > 0 {
            last_run = Instant::now();
        } else if last_run.elapsed() > LINGER {
            state.asleep = true;
            while state.asleep && !state.stop {
                state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            last_run = Instant::now();
        }
    }
}
