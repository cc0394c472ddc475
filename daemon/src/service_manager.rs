//! Reports to a service manager that speaks [sd_notify(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html).
//!
//! The program reports that it is ready, that it is stopping, and, where the unit has a `WatchdogSec=`, that its event loop still
//! runs. Without `NOTIFY_SOCKET` in the environment nothing is sent.

use std::future::pending;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Reports that the program serves.
pub fn ready() {
    send(&NotifyState::Ready);
}

/// Reports that the program has begun to shut down.
pub fn stopping() {
    send(&NotifyState::Stopping);
}

/// When to report that the program is alive: twice in the time after which the service manager takes it for dead.
#[derive(Debug)]
pub struct Watchdog(Option<Interval>);

impl Watchdog {
    /// The one that the service manager asks this process for.
    ///
    /// Panics outside a tokio runtime.
    #[must_use]
    pub fn of_process() -> Self {
        Self(sd_notify::watchdog_enabled().map(|timeout| {
            let mut due = interval(timeout / 2);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            due
        }))
    }

    /// Ready when a report is due; never, if no service manager waits for one.
    pub async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => pending().await,
        }
    }
}

/// Reports that the program is alive.
pub fn alive() {
    send(&NotifyState::Watchdog);
}

fn send(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(
            own = tracing::field::Empty,
            "cannot report {state} to the service manager: {error}"
        );
    }
}
