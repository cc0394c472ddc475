//! How many circuits a destination is asked to take at once.
//!
//! libp2p's relay runs at most ten such handshakes on a connection and drops what goes beyond without a word to the source,
//! which then waits for a minute. Here what goes beyond waits for its turn.

use std::collections::{HashMap, VecDeque};

use libp2p::swarm::ConnectionId;

/// `MAX_CONCURRENT_STREAMS_PER_CONNECTION` of libp2p-relay, which does not export it.
const AT_ONCE: usize = 10;

/// What is being asked, by the destination's connection. The relay's limit of circuits bounds what may wait.
#[derive(Debug)]
pub(crate) struct Asks<T>(HashMap<ConnectionId, Destination<T>>);

#[derive(Debug)]
struct Destination<T> {
    /// Asked and not answered.
    asked: usize,
    waiting: VecDeque<T>,
}

impl<T> Default for Asks<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Asks<T> {
    /// The destination is to be asked: `Some` if that may be done now; otherwise the question is kept.
    pub(crate) fn ask(&mut self, destination: ConnectionId, question: T) -> Option<T> {
        let destination = self.0.entry(destination).or_insert(Destination {
            asked: 0,
            waiting: VecDeque::new(),
        });
        if destination.asked == AT_ONCE {
            destination.waiting.push_back(question);
            return None;
        }
        destination.asked += 1;
        Some(question)
    }

    /// The destination has answered: the question that may be asked in turn.
    pub(crate) fn answered(&mut self, destination: ConnectionId) -> Option<T> {
        let known = self.0.get_mut(&destination)?;
        let next = known.waiting.pop_front();
        if next.is_none() {
            known.asked -= 1;
            if known.asked == 0 {
                self.0.remove(&destination);
            }
        }
        next
    }

    /// The destination is gone.
    pub(crate) fn forget(&mut self, destination: ConnectionId) {
        self.0.remove(&destination);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn ten_are_asked_at_once_and_each_answer_lets_the_next_one_go() {
        let mut asks = Asks::default();
        let (now, later): (Vec<u32>, Vec<u32>) =
            (0..50).partition(|n| asks.ask(id(1), *n).is_some());
        assert_eq!(now.len(), AT_ONCE);
        assert_eq!(asks.ask(id(2), 99), Some(99), "another destination");
        let next: Vec<u32> = std::iter::from_fn(|| asks.answered(id(1))).collect();
        assert_eq!(next, later);
        for _ in 1..AT_ONCE {
            assert_eq!(asks.answered(id(1)), None);
        }
        assert_eq!(asks.answered(id(2)), None);
        assert!(asks.0.is_empty());
    }

    #[test]
    fn a_destination_that_is_gone_leaves_nothing_behind() {
        let mut asks = Asks::default();
        for n in 0..50 {
            let _kept = asks.ask(id(1), n);
        }
        asks.forget(id(1));
        assert_eq!(asks.answered(id(1)), None);
        assert!(asks.0.is_empty());
    }
}
