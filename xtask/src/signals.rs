//! Ctrl-C and termination, received by waiting, so that what was started is ended in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{process, thread};

use nix::sys::signal::{SigSet, Signal};

/// Exit status of a program ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

static HANDLED: AtomicBool = AtomicBool::new(false);
static RAISED: AtomicBool = AtomicBool::new(false);

/// Takes the signals over for this thread and all it will start. Programs that we start get the default mask back: the
/// standard library sees to it. Until `handle` is called, a signal ends us as usual.
pub fn block() {
    let ours: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    if ours.thread_block().is_err() {
        return;
    }
    thread::spawn(move || {
        while ours.wait().is_ok() {
            // A second signal is from someone who has run out of patience.
            if !HANDLED.load(Ordering::SeqCst) || RAISED.swap(true, Ordering::SeqCst) {
                process::exit(INTERRUPTED);
            }
        }
    });
}

/// From here on a first signal only makes `raised` true.
pub fn handle() {
    HANDLED.store(true, Ordering::SeqCst);
}

/// Whether somebody wants us to end.
pub fn raised() -> bool {
    RAISED.load(Ordering::SeqCst)
}
