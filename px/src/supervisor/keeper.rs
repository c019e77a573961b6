//! Keeps one child running: when it dies, it is started again, later and later, and not for ever.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::style::Terminal;

use super::child::{self, Next, Said, Spec, Sudo};
use super::roles::{EXIT_FATAL, Fatal, Ready, Role};

/// After a first death a child is back at once, as far as a person can tell.
const DELAY_MIN: Duration = Duration::from_millis(200);
/// A child that keeps dying must not keep a core busy; 10 s is as long as one wants to wait once the cause is mended.
const DELAY_MAX: Duration = Duration::from_secs(10);
/// One that has lived this long is well: the next death is a first one again.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// Deaths in a row, each after a short life, after which there is no hope: about a minute.
const DEATHS_MAX: u32 = 10;

/// What happens to a child.
#[derive(Debug)]
pub enum Event {
    Ready(Role, Ready),
    /// It is not started again.
    GivenUp(Role, Fatal),
}

/// A child that is kept running.
pub struct Kept {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Kept {
    /// Ends it; returns once it has ended.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// Starts it and keeps it running until it is stopped.
pub fn keep(spec: Spec, terminal: Terminal, events: mpsc::Sender<Event>) -> Kept {
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(spec, terminal, events, stop.clone()));
    Kept { stop, task }
}

async fn run(mut spec: Spec, terminal: Terminal, events: mpsc::Sender<Event>, stop: CancellationToken) {
    let role = spec.role;
    let mut deaths = 0;
    let mut was_ready = false;
    loop {
        let began = Instant::now();
        let mut fatal = None;
        let how = match child::start(&spec, terminal).await {
            Err(error) => format!("cannot be started: {}", crate::error::plain(&error)),
            Ok(mut running) => {
                let status = loop {
                    let next = tokio::select! {
                        () = stop.cancelled() => None,
                        next = running.next() => Some(next),
                    };
                    match next {
                        None => {
                            running.stop(&terminal).await;
                            return;
                        }
                        Some(Next::Said(Said::Ready(ready))) => {
                            was_ready = true;
                            let _ = events.send(Event::Ready(role, ready)).await;
                        }
                        Some(Next::Said(Said::Fatal(why))) => fatal = Some(why),
                        Some(Next::Said(Said::Recorded(_))) => {}
                        Some(Next::Ended(status)) => break status,
                    }
                };
                // What it said last may still be in the pipe.
                while let Ok(Some(Said::Fatal(why))) =
                    tokio::time::timeout(Duration::from_millis(200), running.said.recv()).await
                {
                    fatal = Some(why);
                }
                let hopeless = status.as_ref().is_ok_and(|s| s.code() == Some(i32::from(EXIT_FATAL)))
                    && (!was_ready || fatal.as_ref().is_some_and(|fatal| fatal.hopeless));
                let how = match &status {
                    Ok(status) => describe(*status),
                    Err(error) => crate::error::plain(error),
                };
                if hopeless || spec.sudo.is_some() && !was_ready {
                    let why = fatal
                        .unwrap_or_else(|| Fatal { message: format!("{} {how}", role.title()), ..Fatal::default() });
                    let _ = events.send(Event::GivenUp(role, why)).await;
                    return;
                }
                how
            }
        };
        if began.elapsed() >= WELL_AFTER {
            deaths = 0;
        }
        deaths += 1;
        let why = fatal.as_ref().map(|fatal| format!(": {}", fatal.message)).unwrap_or_default();
        if deaths > DEATHS_MAX {
            let message = format!("{} {how}{why}, {deaths} times in a row", role.title());
            let hint = fatal.and_then(|fatal| fatal.hint);
            let _ = events.send(Event::GivenUp(role, Fatal { message, hint, ..Fatal::default() })).await;
            return;
        }
        let delay = delay(deaths);
        terminal.warn(&format!("{} {how}{why}; starting it again in {delay:?}", role.title()));
        // From now on nobody may be at the terminal to type a password.
        spec.sudo = spec.sudo.map(|_| Sudo::MustNotAsk);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

fn delay(deaths: u32) -> Duration {
    DELAY_MIN.saturating_mul(1 << (deaths - 1).min(16)).min(DELAY_MAX)
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with {code}"),
        (_, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(signal) => format!("was killed by {}", signal.as_str()),
            Err(_) => format!("was killed by signal {signal}"),
        },
        _ => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound() {
        let delays: Vec<u128> = (1..=8).map(|n| delay(n).as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }
}
