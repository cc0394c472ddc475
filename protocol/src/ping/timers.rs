//! Times that pass only while this process runs.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::FutureExt as _;
use tokio::time::{Instant, Sleep, sleep};

/// A timer this late means that the process did not run. What arrived in the meantime is still unread.
const LATE: Duration = Duration::from_millis(250);

/// How often a ping that takes long looks for other signs of life.
const LOOK: Duration = Duration::from_millis(250);

/// A wait for this process's own time.
pub(super) struct Wait {
    length: Duration,
    sleep: Pin<Box<Sleep>>,
}

/// When a ping is missed: a time after it was sent, or after the last sign of life.
pub(super) struct Deadline {
    length: Duration,
    at: Instant,
    /// No sign of life moves it further.
    latest: Instant,
    seen: u64,
    look: Pin<Box<Sleep>>,
}

impl Wait {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            length,
            sleep: Box::pin(sleep(length)),
        }
    }

    /// Ready once the time has passed while this process ran. Otherwise the time starts again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.poll_unpin(cx));
            let now = Instant::now();
            if now < self.sleep.deadline() + LATE {
                return Poll::Ready(());
            }
            tracing::debug!(
                "this process did not run when a ping timed out: the time starts again"
            );
            self.sleep.as_mut().reset(now + self.length);
        }
    }
}

impl Deadline {
    pub(super) fn new(length: Duration, longest: Duration, seen: u64) -> Self {
        let now = Instant::now();
        Self {
            length,
            at: now + length,
            latest: now + longest,
            seen,
            look: Box::pin(sleep(LOOK.min(length))),
        }
    }

    /// Ready once the time has passed while this process ran. Otherwise the time starts again.
    pub(super) fn poll(&mut self, signs: impl Fn() -> u64, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.look.poll_unpin(cx));
            let now = Instant::now();
            if now >= self.look.deadline() + LATE {
                tracing::debug!(
                    "this process did not run when a ping timed out: the time starts again"
                );
                self.latest += self.length;
                self.at = now + self.length;
            }
            let signs = signs();
            if signs != self.seen {
                self.seen = signs;
                self.at = self.at.max((now + self.length).min(self.latest));
            }
            if self.at <= now {
                return Poll::Ready(());
            }
            self.look.as_mut().reset(self.at.min(now + LOOK));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(2);
    const LONGEST: Duration = Duration::from_secs(9);

    /// How long after it was sent a ping is missed, with as many signs of life as this gives at each time since.
    async fn missed_after(signs: impl Fn(Duration) -> u64) -> Duration {
        let sent = Instant::now();
        let mut deadline = Deadline::new(LENGTH, LONGEST, signs(Duration::ZERO));
        poll_fn(|cx| deadline.poll(|| signs(sent.elapsed()), cx)).await;
        sent.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_is_missed_a_time_after_the_last_sign_of_life_and_never_later_than_the_longest()
    {
        // Timers of tokio have milliseconds.
        let near = |took: Duration, expected: Duration| {
            assert!(took >= expected && took < expected + LOOK, "{took:?}");
        };
        near(missed_after(|_| 0).await, LENGTH);
        near(missed_after(|_| 7).await, LENGTH);
        near(
            missed_after(|at| at.as_secs().min(5)).await,
            LENGTH + Duration::from_secs(5),
        );
        near(missed_after(|at| at.as_secs()).await, LONGEST);
    }
}
