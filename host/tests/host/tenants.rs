//! What the runs of one tenant use in sum is bounded, and costs other tenants nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use host::error::{Error, Exhausted};
use host::meter::{Budget, Meter};
use host::tenant::{self, Tenant};
use host::{Config, RunReport, RunRequest, Runtime, Script};

use crate::support::{Engine, Output, guest, script};

async fn run(script: &Script, tenant: &Arc<Tenant>, arg: (&str, &str), budget: Budget) -> RunReport {
    let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
    request.args = [(arg.0.into(), arg.1.into())].into();
    request.meter = Arc::new(Meter::of(tenant.clone(), budget));
    script.run(request).await
}

const SPIN: (&str, &str) = ("attack", "spin");
const PLAN: (&str, &str) = ("what", "plan");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processor_time_is_summed_over_runs_at_once_and_one_after_the_other() {
    let budget = tenant::Budget { guest_cpu_ns: 150_000_000, ..tenant::Budget::UNLIMITED };
    let greedy = Arc::new(Tenant::new("greedy", budget));
    let evil = script("evil");
    // Each by itself may use far more.
    let each = Budget { guest_cpu_ns: 10_000_000_000, ..Budget::default() };
    let (a, b) = tokio::join!(run(&evil, &greedy, SPIN, each), run(&evil, &greedy, SPIN, each));
    for report in [&a, &b] {
        assert!(matches!(report.result, Err(Error::Exhausted(Exhausted::Cpu))), "{:?}", report.result);
    }
    let used = a.guest_cpu_ns + b.guest_cpu_ns;
    assert!((140_000_000..400_000_000).contains(&used), "{used}");
    // The next does not even begin.
    let began = Instant::now();
    let report = run(&script("probe"), &greedy, PLAN, Budget::default()).await;
    assert!(matches!(report.result, Err(Error::Exhausted(Exhausted::Cpu))), "{:?}", report.result);
    assert!(began.elapsed() < Duration::from_secs(1) && report.guest_cpu_ns == 0);
    let modest = Arc::new(Tenant::new("modest", budget));
    run(&script("probe"), &modest, PLAN, Budget::default()).await.result.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_summed_over_what_runs_at_once_and_given_back() {
    let budget = tenant::Budget { memory_bytes: 48 << 20, ..tenant::Budget::UNLIMITED };
    let greedy = Arc::new(Tenant::new("greedy", budget));
    let each = Budget { memory_bytes: 256 << 20, ..Budget::default() };
    let report = run(&script("evil"), &greedy, ("attack", "allocate"), each).await;
    assert!(matches!(report.result, Err(Error::Exhausted(Exhausted::Memory))), "{:?}", report.result);
    assert!(report.memory_peak <= 48 << 20 && report.memory_peak > 16 << 20, "{}", report.memory_peak);
    assert_eq!(greedy.memory_bytes(), 0);
    run(&script("probe"), &greedy, PLAN, each).await.result.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_all_its_runs_going_waits_and_another_does_not() {
    let config = Config { runs_max: 4, threads: 2, ..Config::default() };
    let runtime = Runtime::new(config).unwrap();
    let (evil, probe) = (runtime.load(&guest("evil")).unwrap(), runtime.load(&guest("probe")).unwrap());
    let budget = tenant::Budget { runs: 3, ..tenant::Budget::UNLIMITED };
    let (greedy, modest) = (Arc::new(Tenant::new("greedy", budget)), Arc::new(Tenant::new("modest", budget)));
    let each = Budget { guest_cpu_ns: u64::MAX, wall_ns: 3_000_000_000, ..Budget::default() };
    let spins: Vec<_> = (0..8)
        .map(|_| {
            let (evil, greedy) = (evil.clone(), greedy.clone());
            tokio::spawn(async move { run(&evil, &greedy, SPIN, each).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Eight want to compute for ever, of four places; none of another's runs waits for one of them to end.
    for _ in 0..20 {
        let began = Instant::now();
        run(&probe, &modest, PLAN, Budget::default()).await.result.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    for spin in spins {
        let report = spin.await.unwrap();
        // Those that never got a place have used nothing.
        assert!(matches!(report.result, Err(Error::Exhausted(Exhausted::Deadline))), "{:?}", report.result);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_summed() {
    let budget = tenant::Budget { rows_scanned: 2_000, ..tenant::Budget::UNLIMITED };
    let greedy = Arc::new(Tenant::new("greedy", budget));
    for _ in 0..2 {
        let report = run(&script("evil"), &greedy, ("attack", "endless"), Budget::default()).await;
        assert!(matches!(report.result, Err(Error::Exhausted(Exhausted::Rows))), "{:?}", report.result);
    }
    assert_eq!(greedy.exhausted(), Some(Exhausted::Rows));
}
