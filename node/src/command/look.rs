//! The look at the network for what stands in the way of a dial.
//!
//! It is a part of the dial. It begins some seconds before the time of the dial is over, or when the dial ends earlier. It ends with that
//! time. It does not begin earlier, since it takes ports that a search for ports needs.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use super::so_far::SoFar;
use crate::core::{event::Outcome, finding::Finding, netcheck::Report, port_search::SearchReport};

/// A look takes less.
const LONGEST: Duration = Duration::from_secs(3);

type Asked = Pin<Box<dyn Future<Output = Option<Seen>> + Send>>;

/// What is known of the way to the peer.
#[derive(Debug)]
pub(super) struct Seen {
    /// Of the network here.
    pub(super) report: Report,
    /// How the last search for ports with the peer has ended.
    pub(super) search: Option<SearchReport>,
}

/// The look of one dial.
pub(super) struct Look {
    asked: Asked,
    begins: Instant,
    /// When the time of the dial is over.
    ends: Instant,
    /// What came of it, once it is over.
    seen: Option<Option<Seen>>,
}

impl Look {
    /// The look of a dial that begins now. `ask` is polled when it is needed, if ever.
    pub(super) fn new(
        ask: impl Future<Output = Option<Seen>> + Send + 'static,
        timeout: Duration,
    ) -> Self {
        let now = Instant::now();
        let wait = timeout.saturating_sub(LONGEST).max(timeout / 2);
        Self {
            asked: Box::pin(ask),
            begins: now + wait,
            ends: now + timeout,
            seen: None,
        }
    }

    /// Looks when it is time. Never completes, and may be dropped and called again.
    pub(super) async fn go_on(&mut self) {
        if self.seen.is_none() {
            sleep_until(self.begins).await;
            self.seen = Some((&mut self.asked).await);
        }
        std::future::pending().await
    }

    /// Adds what was seen to the result of a dial, if it did not reach what it was to reach. A peer that was connected and refuses, or
    /// is gone, needs no look: the network led to it.
    pub(super) async fn add_to(&mut self, outcome: &mut Outcome, so_far: &SoFar) {
        if outcome.path.is_none() && so_far.was_connected() {
            return;
        }
        if self.seen.is_none() {
            self.seen = timeout_at(self.ends, &mut self.asked).await.ok();
        }
        if let Some(Some(Seen { report, search })) = &self.seen {
            let search = so_far.last_search().or(search.as_ref());
            let known = outcome.finding.take();
            outcome.finding = Finding::first(known, || report.finding(outcome, search));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::{PingTotals, Reached};

    fn outcome() -> Outcome {
        Outcome {
            outcome: Reached::Unreachable,
            t: Duration::ZERO,
            time_to_direct: None,
            attempts: 0,
            path: None,
            reason: None,
            found_by: None,
            finding: None,
            pings: PingTotals::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_ends_with_the_time_of_the_dial() {
        for timeout in [0, 500, 20_000].map(Duration::from_millis) {
            let start = Instant::now();
            let mut look = Look::new(std::future::pending(), timeout);
            look.add_to(&mut outcome(), &SoFar::default()).await;
            assert_eq!(start.elapsed().as_millis(), timeout.as_millis());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_begins_three_seconds_before_the_end_or_at_half_of_a_short_time() {
        for (timeout, begins) in [(20_000, 17_000), (4_000, 2_000), (500, 250)] {
            let start = Instant::now();
            let (began, begun) = tokio::sync::oneshot::channel();
            let ask = async move {
                let _ = began.send(Instant::now());
                None
            };
            let mut look = Look::new(ask, Duration::from_millis(timeout));
            let at = tokio::select! {
                () = look.go_on() => None,
                at = begun => at.ok(),
            };
            let after = at.map(|at| (at - start).as_millis());
            assert_eq!(after, Some(begins), "{timeout}");
        }
    }
}
