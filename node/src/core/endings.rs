//! Why reservations end: with the leg that carries them, mostly. The two ends are reported in either order.

use std::collections::VecDeque;

use libp2p::{PeerId, swarm::ConnectionId};

use crate::core::{event::LossCause, relays::Lost};

/// Ends that are remembered: more than a node has legs.
const MAX: usize = 64;

/// Why a reservation, or the leg beneath it, has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) cause: LossCause,
    pub(crate) reason: String,
}

/// The last ends of legs, and the reservations whose leg has not ended yet.
#[derive(Debug, Default)]
pub(crate) struct Endings {
    legs: VecDeque<(ConnectionId, Ending)>,
    reservations: VecDeque<Lost>,
}

impl Endings {
    /// A leg has ended, or is about to. The first report counts. Returns the reservations that had ended with it.
    pub(crate) fn handle_leg(&mut self, leg: ConnectionId, ending: Ending) -> Vec<Lost> {
        if self.of(leg).is_some() {
            return Vec::new();
        }
        let mut with_it = Vec::new();
        self.reservations.retain(|lost| {
            let is_over = lost.leg == Some(leg);
            with_it.extend(is_over.then_some(*lost));
            !is_over
        });
        self.legs.push_back((leg, ending));
        if self.legs.len() > MAX {
            self.legs.pop_front();
        }
        with_it
    }

    /// A reservation has ended with its leg. Returns why, if that is known already.
    pub(crate) fn handle_reservation(&mut self, lost: Lost) -> Option<Ending> {
        let Some(leg) = lost.leg else {
            return Some(Ending::unknown());
        };
        let known = self.of(leg).cloned();
        if known.is_none() {
            self.reservations.push_back(lost);
            if self.reservations.len() > MAX {
                self.reservations.pop_front();
            }
        }
        known
    }

    /// The relay has granted a reservation. Returns those that had ended before and whose leg has not.
    pub(crate) fn handle_reserved(&mut self, relay: &PeerId) -> Vec<Lost> {
        let mut before = Vec::new();
        self.reservations.retain(|lost| {
            let is_over = lost.relay == *relay;
            before.extend(is_over.then_some(*lost));
            !is_over
        });
        before
    }

    fn of(&self, leg: ConnectionId) -> Option<&Ending> {
        let mut legs = self.legs.iter();
        legs.find(|(known, _)| *known == leg)
            .map(|(_, ending)| ending)
    }
}

impl Ending {
    /// Nothing else is known.
    pub(crate) fn unknown() -> Self {
        Self {
            cause: LossCause::Broken,
            reason: "the connection to the relay ended".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(cause: LossCause) -> Ending {
        Ending {
            cause,
            reason: format!("{cause:?}"),
        }
    }

    fn lost(relay: PeerId, leg: usize) -> Lost {
        Lost {
            relay,
            leg: Some(ConnectionId::new_unchecked(leg)),
            was_held: true,
            is_held: false,
            failures: 0,
        }
    }

    #[test]
    fn a_reservation_ends_for_the_reason_of_its_leg_in_either_order() {
        let (mut endings, relay) = (Endings::default(), PeerId::random());
        let [first, second] = [1, 2].map(|leg| lost(relay, leg));
        let (silent, closed) = (ending(LossCause::Silent), ending(LossCause::Closed));
        assert_eq!(endings.handle_leg(first.leg.unwrap(), silent.clone()), []);
        assert_eq!(endings.handle_reservation(first), Some(silent));
        assert_eq!(endings.handle_reservation(second), None);
        assert_eq!(
            endings.handle_leg(second.leg.unwrap(), closed.clone()),
            [second]
        );
        assert_eq!(
            endings.handle_leg(second.leg.unwrap(), ending(LossCause::Ended)),
            [],
            "the first report counts"
        );
        assert_eq!(endings.handle_reservation(second), Some(closed));
    }

    #[test]
    fn what_has_ended_is_reported_before_the_next_reservation() {
        let (mut endings, relay) = (Endings::default(), PeerId::random());
        let waiting = lost(relay, 1);
        assert_eq!(endings.handle_reservation(waiting), None);
        assert_eq!(endings.handle_reserved(&PeerId::random()), []);
        assert_eq!(endings.handle_reserved(&relay), [waiting]);
        assert_eq!(endings.handle_reserved(&relay), []);
    }

    #[test]
    fn few_ends_are_remembered() {
        let (mut endings, relay) = (Endings::default(), PeerId::random());
        for leg in 0..1000 {
            endings.handle_reservation(lost(relay, leg));
            let leg = ConnectionId::new_unchecked(leg + 1000);
            endings.handle_leg(leg, Ending::unknown());
        }
        assert_eq!((endings.legs.len(), endings.reservations.len()), (MAX, MAX));
    }
}
