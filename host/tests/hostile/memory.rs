//! How large this process is.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::Engine;

/// Tests of this binary that measure, or that are large, run one after the other.
pub async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ONE.lock().await
}

/// Bytes in memory.
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap().unwrap() as u64
}

/// How much larger than `before`, once that has come down to `most` or a second is over.
pub async fn settled(before: u64, most: u64) -> u64 {
    for _ in 0..50 {
        if resident().saturating_sub(before) <= most {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    resident().saturating_sub(before)
}

/// Nothing goes on on behalf of a run that is over.
pub async fn streams_end(engine: &Engine) {
    for _ in 0..200 {
        if engine.open.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("streams of a run that has ended are still open");
}
