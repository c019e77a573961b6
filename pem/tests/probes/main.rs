//! The probe path on real sockets: helper, unprivileged reader, and every tier, in processes of their own.
//!
//! The test binary plays all parts: it starts itself again with [`process::ROLE`] set. Traffic comes from a process that the
//! helper does not ignore; both ends of each connection are in it, so each exchange is seen from both sides.
#![allow(clippy::undocumented_unsafe_blocks, reason = "calls of libc on buffers of the line before")]

mod connections;
mod endings;
mod exchange;
mod helper;
mod lab;
#[path = "../shared/object.rs"]
mod object;
mod process;
mod programs;
mod ring;
mod tiers;
mod traffic;
mod uring;
mod view;

/// Leaves the test, aloud, where it cannot run; else no other runs meanwhile.
macro_rules! skip_or_lock {
    () => {{
        if let Some(why) = $crate::object::lack() {
            // Not `eprintln`, which the test harness keeps to itself.
            return std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {why}\n")).unwrap();
        }
        $crate::object::ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }};
}
use skip_or_lock;

/// Not a test: the entry of the other processes.
#[test]
fn part() {
    match std::env::var(process::ROLE).as_deref() {
        Ok("helper") => lab::play_helper(),
        Ok("traffic") => traffic::play(),
        Ok("reader") => helper::play_reader(),
        _ => {}
    }
}
