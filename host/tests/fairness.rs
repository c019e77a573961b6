//! A guest that computes for ever costs others next to nothing. A test binary of its own: cargo runs it alone, and what it
//! measures is time.

#[path = "host/support.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use host::RunRequest;
use host::meter::{Budget, Meter};
use tokio_util::sync::CancellationToken;

use support::{Engine, Output, script};

/// What a run may be slowed by. Medians, interleaved; the machine may be busy with other things, so it has five tries.
const SLOWED_MOST: f64 = 1.2;

async fn timed(what: &str) -> Duration {
    let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
    request.args = [("what".into(), what.into())].into();
    let script = script("probe");
    let began = Instant::now();
    script.run(request).await.result.unwrap();
    began.elapsed()
}

/// A script that spins until cancelled.
struct Runaway(CancellationToken, tokio::task::JoinHandle<()>);

async fn runaway() -> Runaway {
    let mut request = RunRequest::new(Engine::new(), Arc::new(Output::default()));
    request.args = [("attack".into(), "spin".into())].into();
    request.meter =
        Arc::new(Meter::new(Budget { guest_cpu_ns: u64::MAX, wall_ns: 60_000_000_000, ..Budget::default() }));
    let cancel = request.cancel.clone();
    let script = script("evil");
    let task = tokio::spawn(async move { drop(script.run(request).await) });
    // Long enough to be known as one that computes.
    tokio::time::sleep(Duration::from_millis(30)).await;
    Runaway(cancel, task)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_users_script_is_not_slowed() {
    timed("work").await;
    for what in ["work", "plan"] {
        let mut ratios = Vec::new();
        for _ in 0..5 {
            let (mut alone, mut beside) = (Vec::new(), Vec::new());
            for _ in 0..5 {
                for _ in 0..9 {
                    alone.push(timed(what).await);
                }
                let runaway = runaway().await;
                for _ in 0..9 {
                    beside.push(timed(what).await);
                }
                runaway.0.cancel();
                runaway.1.await.unwrap();
            }
            ratios.push(median(beside) / median(alone));
            if ratios.iter().any(|r| *r <= SLOWED_MOST) {
                break;
            }
        }
        eprintln!("{what}: slowed by {ratios:?}");
        assert!(ratios.iter().any(|r| *r <= SLOWED_MOST), "{what}: {ratios:?}");
    }
}
