//! Whose turn is next: of all that wait, the one whose turns have taken the least time. Pure.
//!
//! This is [start-time fair queueing](https://dl.acm.org/doi/10.1145/248157.248171). Each turn starts at a virtual time and ends
//! later by the time that it took. The earliest start is next. Who comes back at once starts where its last turn ended. Who was
//! away starts now, before all who had a turn in the meantime, and has saved nothing by being away.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

/// When a turn starts or ends: the time that the turns have taken of one who always waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct VirtualTime(Duration);

impl VirtualTime {
    /// The end of a turn that started here.
    pub(super) fn after(self, taken: Duration) -> Self {
        Self(self.0.saturating_add(taken))
    }
}

/// All that wait for a turn.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    waiting: BinaryHeap<Waiting<T>>,
    /// When the last turn started.
    now: VirtualTime,
    /// How many have come: the order of those that start at the same time.
    come: u64,
    round: Round,
}

/// A round: all that waited when it began have had a turn when it is over.
#[derive(Debug)]
struct Round {
    /// How many were before it.
    number: u64,
    /// How many had come when it began.
    come: u64,
    /// How many of those that waited then still wait.
    left: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    start: VirtualTime,
    /// Whether it did not wait all the time since its last turn.
    away: bool,
    came: u64,
    who: T,
}

impl<T> FairQueue<T> {
    pub(super) const fn new() -> Self {
        Self {
            waiting: BinaryHeap::new(),
            now: VirtualTime(Duration::ZERO),
            come: 0,
            round: Round {
                number: 0,
                come: 0,
                left: 0,
            },
        }
    }

    /// `who` waits from now on; its last turn ended at `end`.
    pub(super) fn wait(&mut self, who: T, end: VirtualTime) {
        self.waiting.push(Waiting {
            start: self.now.max(end),
            away: end < self.now,
            came: self.come,
            who,
        });
        self.come += 1;
    }

    /// Who is next, and when its turn starts. `None` if nobody waits; the round is over as well then.
    pub(super) fn next(&mut self) -> Option<(VirtualTime, T)> {
        let Some(first) = self.waiting.pop() else {
            self.round.number += 1;
            return None;
        };
        let Waiting {
            start, came, who, ..
        } = first;
        self.now = start;
        let round = &mut self.round;
        round.left -= usize::from(came < round.come);
        if round.left == 0 {
            *round = Round {
                number: round.number + 1,
                come: self.come,
                left: self.waiting.len(),
            };
        }
        Some((start, who))
    }

    /// How many rounds are over. If two rounds have ended since a moment, the second began after it: all that waited at that
    /// moment have had a turn, except the last, whose turn has begun.
    pub(super) const fn rounds(&self) -> u64 {
        self.round.number
    }
}

/// A heap yields its greatest: who starts earliest, then who was away, then who came first.
impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.start, !other.away, other.came).cmp(&(self.start, !self.away, self.came))
    }
}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Waiting<T> {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;

    /// Lets everybody who has a turn come back at once, for so many turns; what each has taken, in microseconds.
    fn run(turns: &mut FairQueue<usize>, count: usize, costs: &[u64]) -> Vec<u64> {
        let mut taken = vec![0; costs.len()];
        for _ in 0..count {
            let (start, who) = turns.next().unwrap();
            taken[who] += costs[who];
            turns.wait(who, start.after(Duration::from_micros(costs[who])));
        }
        taken
    }

    #[test]
    fn equals_take_turns_in_the_order_in_which_they_came() {
        let mut turns = FairQueue::new();
        for who in 0..3 {
            turns.wait(who, VirtualTime::default());
        }
        for who in [0, 1, 2, 0, 1, 2] {
            let (start, next) = turns.next().unwrap();
            assert_eq!(next, who);
            turns.wait(who, start.after(Duration::from_micros(5)));
        }
    }

    #[test]
    fn who_was_away_has_several_short_turns_before_those_who_are_busy_have_another() {
        let mut turns = FairQueue::new();
        for who in 0..1000 {
            turns.wait(who, VirtualTime::default());
        }
        let _taken = run(&mut turns, 10_000, &[50; 1000]);
        // The first of a round has had its turn.
        let (start, first) = turns.next().unwrap();
        turns.wait(first, start.after(Duration::from_micros(50)));
        let mut end = VirtualTime::default();
        let mut ahead = Vec::new();
        for _ in 0..4 {
            turns.wait(1000, end);
            let others = (0..2000).take_while(|_| {
                let (start, who) = turns.next().unwrap();
                if who == 1000 {
                    end = start.after(Duration::from_micros(10));
                    return false;
                }
                turns.wait(who, start.after(Duration::from_micros(50)));
                true
            });
            ahead.push(others.count());
        }
        assert_eq!(ahead, [0, 999, 0, 0]);
    }

    #[test]
    fn who_was_away_has_saved_nothing() {
        let mut turns = FairQueue::new();
        turns.wait(0, VirtualTime::default());
        let _taken = run(&mut turns, 1000, &[10, 10]);
        turns.wait(1, VirtualTime::default());
        assert_eq!(run(&mut turns, 100, &[10, 10]), [500, 500]);
    }

    #[test]
    fn a_round_is_over_when_all_that_waited_have_had_a_turn_whoever_came_meanwhile() {
        let mut turns = FairQueue::new();
        for who in 0..3 {
            turns.wait(who, VirtualTime::default());
        }
        // Nobody waited when the first began.
        let (start, first) = turns.next().unwrap();
        assert_eq!((turns.rounds(), first), (1, 0));
        turns.wait(0, start.after(Duration::from_micros(5)));
        turns.wait(3, VirtualTime::default());
        assert_eq!((turns.next().unwrap().1, turns.rounds()), (1, 1));
        assert_eq!((turns.next().unwrap().1, turns.rounds()), (2, 2));
        assert_eq!((turns.next().unwrap().1, turns.rounds()), (3, 2));
        assert_eq!((turns.next().unwrap().1, turns.rounds()), (0, 3));
        assert!(turns.next().is_none());
        assert_eq!(turns.rounds(), 4);
    }

    proptest! {
        /// Whatever their turns cost: nobody who always wants one has less than another by more than two of the longest turns.
        #[test]
        fn all_who_are_busy_get_the_same_time(costs in proptest::collection::vec(1..1000_u64, 1..20)) {
            let mut turns = FairQueue::new();
            for who in 0..costs.len() {
                turns.wait(who, VirtualTime::default());
            }
            let taken = run(&mut turns, 2000, &costs);
            let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
            prop_assert!(most - least <= 2 * costs.iter().max().unwrap(), "{taken:?}");
        }
    }
}
