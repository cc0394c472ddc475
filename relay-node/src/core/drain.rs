//! The end of a relay: how long it waits for what runs over it. Pure, with the time as an argument.

use std::time::{Duration, Instant};

/// Time for peers to hear that the relay drains and to take a reservation elsewhere, before the one that they have ends: some
/// round trips. No circuit needs it.
const NOTICE: Duration = Duration::from_secs(3);

/// Between two lines of progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A relay that takes nothing new.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    since: Instant,
    timeout: Duration,
    next_report: Instant,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing before this time, unless something ends.
    WaitUntil(Instant),
    /// Tell that this much time is left, and ask again.
    Report(Duration),
    /// Close the connections.
    End,
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
    /// Begins at `now` and waits for circuits for `timeout` at most.
    pub(crate) fn new(timeout: Duration, now: Instant) -> Self {
        Self {
            since: now,
            timeout,
            next_report: now,
        }
    }

    /// How long it still takes at `now` if what `remains` stays. Without circuits it is over as soon as the peers with
    /// reservations have had their notice.
    pub(crate) fn left(&self, remains: Remains, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.since);
        let wait = match remains {
            Remains {
                circuits: 0,
                reservations: 0,
            } => Duration::ZERO,
            Remains { circuits: 0, .. } => NOTICE.min(self.timeout),
            Remains { .. } => self.timeout,
        };
        wait.saturating_sub(passed)
    }

    /// What to do at `now`.
    pub(crate) fn step(&mut self, remains: Remains, now: Instant) -> Step {
        let left = self.left(remains, now);
        if left.is_zero() {
            return Step::End;
        }
        if self.next_report <= now {
            self.next_report = now + REPORT_INTERVAL;
            return Step::Report(left);
        }
        Step::WaitUntil(self.next_report.min(now + left))
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
        let (mut drain, mut now, mut reports) = (Drain::new(timeout, start), start, Vec::new());
        loop {
            match drain.step(remains, now) {
                Step::WaitUntil(then) => {
                    assert!(then > now, "waits for a time that has passed");
                    now = then;
                }
                Step::Report(left) => reports.push(left),
                Step::End => return (reports, now - start),
            }
        }
    }

    #[test]
    fn circuits_have_the_whole_timeout_and_progress_is_told_every_five_seconds() {
        let (reports, took) = run(TIMEOUT, remains(2, 1));
        assert_eq!(took, TIMEOUT);
        let told: Vec<_> = reports.iter().map(Duration::as_secs).collect();
        assert_eq!(told, [25, 20, 15, 10, 5]);
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
        let mut drain = Drain::new(TIMEOUT, start);
        let later = start + Duration::from_secs(10);
        assert!(matches!(drain.step(remains(1, 1), later), Step::Report(_)));
        assert!(matches!(
            drain.step(remains(1, 1), later),
            Step::WaitUntil(_)
        ));
        assert_eq!(drain.step(remains(0, 1), later), Step::End);
    }
}
