//! The end of a relay: how long it waits for what runs over it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Time for peers to hear that the relay drains and to take a reservation elsewhere, before the one that they have ends: some
/// round trips. No circuit needs it.
const NOTICE: Duration = Duration::from_secs(3);

/// Between two lines of progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Peers that come back in a second to a relay that was started again: a fifth of the handshakes that one processor does.
const PEERS_PER_SECOND: u64 = 200;

/// The longest time over which they are spread.
const LONGEST_SPREAD: Duration = Duration::from_secs(120);

/// Over which time so many peers are to come back.
pub(crate) fn spread(peers: usize) -> Duration {
    let seconds = u64::try_from(peers).unwrap_or(u64::MAX) / PEERS_PER_SECOND;
    Duration::from_secs(seconds).min(LONGEST_SPREAD)
}

/// A relay that takes nothing new.
#[derive(Debug)]
pub(crate) struct Drain {
    since: Instant,
    timeout: Duration,
    next_report: Instant,
    remains: Remains,
    state: State,
    events: VecDeque<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Over,
}

/// What comes of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// So much of its time is left.
    Progress(Duration),
    /// It is over. This comes once, and last.
    Over,
}

/// What is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Circuits that are open.
    pub(crate) circuits: usize,
    /// Reservations that peers believe to hold.
    pub(crate) reservations: usize,
}

impl Drain {
    /// Begins at `now` and waits for what `remains` for `timeout` at most.
    pub(crate) fn new(timeout: Duration, remains: Remains, now: Instant) -> Self {
        let mut drain = Self {
            since: now,
            timeout,
            next_report: now,
            remains,
            state: State::Waits,
            events: VecDeque::new(),
        };
        drain.handle_timeout(now);
        drain
    }

    /// How long it still takes at `now` if what remains stays. Without circuits it is over as soon as the peers with
    /// reservations have had their notice.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.wait()
            .saturating_sub(now.saturating_duration_since(self.since))
    }

    fn wait(&self) -> Duration {
        match self.remains {
            Remains {
                circuits: 0,
                reservations: 0,
            } => Duration::ZERO,
            Remains { circuits: 0, .. } => NOTICE.min(self.timeout),
            Remains { .. } => self.timeout,
        }
    }

    /// This much remains.
    pub(crate) fn handle_remains(&mut self, remains: Remains, now: Instant) {
        self.remains = remains;
        self.handle_timeout(now);
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.state == State::Over {
            return;
        }
        let left = self.left(now);
        if left.is_zero() {
            self.state = State::Over;
            self.events.push_back(Step::Over);
        } else if self.next_report <= now {
            self.next_report = now + REPORT_INTERVAL;
            self.events.push_back(Step::Progress(left));
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.state == State::Over {
            return None;
        }
        // A wait that ends beyond what the clock can show does not end.
        let ends = self.since.checked_add(self.wait());
        Some(ends.map_or(self.next_report, |ends| ends.min(self.next_report)))
    }

    /// What came of it.
    pub(crate) fn poll_event(&mut self) -> Option<Step> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(25);

    fn remains(circuits: usize, reservations: usize) -> Remains {
        Remains {
            circuits,
            reservations,
        }
    }

    /// Runs a drain in which nothing changes to its end: the lines of progress and how long it took.
    fn run(timeout: Duration, remains: Remains) -> (Vec<Duration>, Duration) {
        let start = Instant::now();
        let (mut drain, mut now, mut reports) =
            (Drain::new(timeout, remains, start), start, Vec::new());
        loop {
            while let Some(step) = drain.poll_event() {
                match step {
                    Step::Progress(left) => reports.push(left),
                    Step::Over => {
                        assert_eq!(drain.poll_timeout(), None, "it is over");
                        return (reports, now - start);
                    }
                }
            }
            let then = drain.poll_timeout().expect("it goes on");
            assert!(then > now, "waits for a time that has passed");
            now = then;
            drain.handle_timeout(now);
        }
    }

    #[test]
    fn circuits_have_the_whole_timeout_and_progress_is_reported_every_five_seconds() {
        let (reports, took) = run(TIMEOUT, remains(2, 1));
        assert_eq!(took, TIMEOUT);
        let seconds: Vec<_> = reports.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [25, 20, 15, 10, 5]);
    }

    #[test]
    fn reservations_have_their_notice_and_no_more() {
        assert_eq!(run(TIMEOUT, remains(0, 7)).1, NOTICE);
        let short = Duration::from_secs(1);
        assert_eq!(run(short, remains(0, 7)).1, short);
    }

    #[test]
    fn nothing_is_waited_for_where_nothing_is_left_and_with_a_timeout_of_zero() {
        assert_eq!(run(TIMEOUT, remains(0, 0)), (Vec::new(), Duration::ZERO));
        let none = (Vec::new(), Duration::ZERO);
        assert_eq!(run(Duration::ZERO, remains(3, 3)), none);
    }

    #[test]
    fn the_end_of_the_last_circuit_ends_the_wait() {
        let start = Instant::now();
        let mut drain = Drain::new(TIMEOUT, remains(1, 1), start);
        assert!(matches!(drain.poll_event(), Some(Step::Progress(_))));
        let later = start + Duration::from_secs(4);
        drain.handle_remains(remains(1, 0), later);
        assert_eq!(drain.poll_event(), None);
        drain.handle_remains(remains(0, 1), later);
        assert_eq!(drain.poll_event(), Some(Step::Over));
        drain.handle_remains(remains(0, 0), later);
        assert_eq!(drain.poll_event(), None, "it ends once");
    }
}
