//! Guests that do harm, each a file of its own in `guests/`: what it does and how it must end stand at its top. Every one is
//! contained, ends within its budget with the named error, leaves the host as large as it was, and hurts no other run.

mod bombs;
mod guest;
mod malformed;
mod memory;
#[path = "../host/support.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod support;

use std::sync::Arc;
use std::time::Duration;

use host::error::Error;
use host::meter::{Budget, Meter};
use host::{RunReport, RunRequest, Script};

use guest::{Guest, Must};
use support::{Engine, Output};

/// Small, so that the tests are quick.
fn budget(wall: Duration) -> Budget {
    Budget {
        guest_cpu_ns: 50_000_000,
        memory_bytes: 32 << 20,
        rows_scanned: 2_000_000,
        output_rows: 25_000,
        output_bytes: 1 << 20,
        output_tables: 5,
        log_bytes: 10_000,
        host_calls: 20_000,
        wall_ns: wall.as_nanos() as u64,
    }
}

/// What a run may use beyond its processor time before it is noticed. A guest stops within 2 ms; a busy machine wakes the
/// ticker late, and an instruction that fills 26 MiB is not interrupted.
const OVERRUN_NS: u64 = 60_000_000;

/// What the host may be larger by after three runs of a guest: the allocator keeps some, and tests run beside.
const GROWN_BYTES_MAX: u64 = 16 << 20;
/// Rounds of three runs, of which one must keep to that.
const ROUNDS: usize = 4;
/// And after all of them: the code of a hundred components is kept, and what the allocator keeps of the largest.
const GROWN_IN_ALL_BYTES_MAX: u64 = 448 << 20;

struct Attack {
    report: RunReport,
    output: Arc<Output>,
    engine: Arc<Engine>,
}

async fn attack(script: &Script, budget: Budget) -> Attack {
    let (engine, output) = (Engine::new(), Arc::new(Output::default()));
    let mut request = RunRequest::new(engine.clone(), output.clone());
    request.meter = Arc::new(Meter::new(budget));
    let report = script.run(request).await;
    Attack { report, output, engine }
}

/// A panic prints where it was: naming the places takes a tenth of a second, which is no work of the run's. Of the one that is meant
/// nobody needs to know.
fn expect_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let meant = panic.payload().downcast_ref::<&str>().is_some_and(|text| text.contains("an engine's bug"));
            if !meant {
                usual(panic);
            }
        }));
    });
}

/// One that keeps its promises.
async fn healthy() {
    let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
    request.args = [("what".into(), "count".into())].into();
    let report = support::script("probe").run(request).await;
    assert!(report.result.is_ok(), "a healthy script is hurt: {report:?}");
}

/// Kind and text of an end, as the files name it.
fn ending(result: &Result<(), Error>) -> String {
    match result {
        Ok(()) => "ok".into(),
        Err(Error::Exhausted(which)) => format!("exhausted {which}"),
        Err(Error::Trapped(text)) => format!("trapped {text}"),
        Err(Error::Invalid { message, .. }) => format!("invalid {message}"),
        Err(Error::NotFound { message, .. }) => format!("not-found {message}"),
        Err(Error::Denied(text)) => format!("denied {text}"),
        Err(Error::Internal(text)) => format!("internal {text}"),
        Err(other) => format!("other {other}"),
    }
}

/// What is wrong with how it ended, if anything.
fn complaint(attack: &Attack, budget: &Budget, ends: &[String]) -> Option<String> {
    let report = &attack.report;
    let end = ending(&report.result);
    let fits = |wanted: &String| match wanted.split_once(' ') {
        Some((kind, text)) => end.starts_with(kind) && end.to_lowercase().contains(&text.to_lowercase()),
        None => end.split(' ').next() == Some(wanted),
    };
    if !ends.iter().any(fits) {
        return Some(format!("ended as `{}`", end.lines().next().unwrap_or_default()));
    }
    let cpu = report.guest_cpu_ns + report.host_cpu_ns;
    let logged: usize = attack.output.logged().iter().map(String::len).sum();
    let put_out: usize = attack.output.emitted.lock().unwrap().values().flatten().map(|batch| batch.num_rows()).sum();
    let checks = [
        ("processor time", cpu, budget.guest_cpu_ns + OVERRUN_NS),
        ("memory", report.memory_peak, budget.memory_bytes),
        ("calls", report.host_calls, budget.host_calls + 1),
        ("log", logged as u64, budget.log_bytes),
        ("rows", put_out as u64, budget.output_rows),
        ("tables", attack.output.displayed.lock().unwrap().len() as u64, budget.output_tables),
    ];
    checks.iter().find(|(_, used, most)| used > most).map(|(what, used, most)| format!("{what}: {used} of {most}"))
}

async fn contained(guest: &Guest, ends: &[String], failures: &mut Vec<String>) {
    let script = match support::runtime().load(&guest.component()) {
        Ok(script) => script,
        Err(e) => return failures.push(format!("{}: not loaded: {e}", guest.name)),
    };
    let budget = Budget { guest_cpu_ns: guest.cpu.as_nanos() as u64, ..budget(guest.wall) };
    // Not alone: a healthy one runs beside it, and one after it.
    let (first, ()) = tokio::join!(attack(&script, budget), healthy());
    if let Some(complaint) = complaint(&first, &budget, ends) {
        failures.push(format!("{}: {complaint}, not {}", guest.name, ends.join(" or ")));
    }
    memory::streams_end(&first.engine).await;
    drop(first);
    // The allocator keeps what one run needed at most, in each of the places where its threads allocate, which takes some runs to
    // be known; what is kept of every further run is what is lost.
    let mut grown = 0;
    for _ in 0..ROUNDS {
        let before = memory::resident();
        for _ in 0..3 {
            let again = attack(&script, budget).await;
            memory::streams_end(&again.engine).await;
        }
        grown = memory::settled(before, GROWN_BYTES_MAX).await;
        if grown <= GROWN_BYTES_MAX {
            break;
        }
    }
    if grown > GROWN_BYTES_MAX {
        failures.push(format!("{}: the host is {} KiB larger after it", guest.name, grown >> 10));
    }
    healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hostile_guest_is_contained() {
    let _alone = memory::alone().await;
    expect_panics();
    let guests = guest::all();
    assert!(guests.len() >= 40, "{}", guests.len());
    let only = std::env::var("HOSTILE").ok();
    healthy().await;
    let before = memory::resident();
    let mut failures = Vec::new();
    for guest in guests.iter().filter(|g| only.as_ref().is_none_or(|only| g.name.contains(only.as_str()))) {
        match &guest.must {
            Must::End(ends) => contained(guest, ends, &mut failures).await,
            Must::BeRefused(text) => {
                let refused = match support::runtime().load(&guest.component()) {
                    Err(Error::Invalid { message, .. }) => message,
                    Err(other) => format!("{other:?}"),
                    Ok(_) => "nothing: it was admitted".into(),
                };
                if !refused.to_lowercase().contains(&text.to_lowercase()) {
                    failures.push(format!("{}: refused for `{refused}`, not `{text}`", guest.name));
                }
            }
        }
    }
    healthy().await;
    let grown = memory::resident().saturating_sub(before);
    eprintln!("{} guests; the host grew by {} KiB over all of them, code included", guests.len(), grown >> 10);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(grown <= GROWN_IN_ALL_BYTES_MAX, "{grown}");
}
