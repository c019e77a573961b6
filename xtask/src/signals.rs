//! Ctrl-C and termination, taken note of, so that what was started is ended in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status of a program ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

static RAISED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on a first signal only makes `raised` true; a second is from someone who has run out of patience. Handlers and
/// no mask: programs that we start would inherit a mask.
pub fn handle() {
    RAISED.get_or_init(|| {
        let raised = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            // Neither fails for signals that may be handled. The order matters: the first looks at what the second sets.
            let _ = flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&raised));
            let _ = flag::register(signal, Arc::clone(&raised));
        }
        raised
    });
}

/// Whether somebody wants us to end.
pub fn raised() -> bool {
    RAISED.get().is_some_and(|raised| raised.load(Ordering::SeqCst))
}
