//! Which relays to be connected to, and which to hold a reservation on, and when to try again.
//!
//! Pure: no IO, no clock, no randomness; the time and a jitter between 0 and 1 are arguments. One *leg* is one address of
//! one relay. All legs are kept connected: a mapping that a relay observes is good for the transport and family of that
//! connection only, so every transport and family that is to be punched needs a leg of its own.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, core::transport::ListenerId, swarm::ConnectionId};

use crate::config::RelayAddr;

/// First wait after a leg was lost or could not be dialed.
const LEG_BACKOFF_MIN: Duration = Duration::from_millis(250);

/// Longest wait between two dials of a leg. With the 5 s that a QUIC dial takes to give up, and its retransmits meanwhile,
/// a relay that comes back is found within 5 s.
const LEG_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// First wait after a relay refused a reservation.
const RESERVE_BACKOFF_MIN: Duration = Duration::from_millis(500);

/// Longest wait between two requests for a reservation: a relay that says no is not asked often.
const RESERVE_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What the event loop is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial this leg and tell the connection's id with [`RelayKeeper::dialing`].
    Dial {
        /// Number of the leg.
        leg: usize,
        /// Where it leads.
        relay: RelayAddr,
    },
    /// Ask for a reservation and tell the listener's id with [`RelayKeeper::requested`].
    Reserve {
        /// The relay, at an address that is connected.
        relay: RelayAddr,
    },
}

/// A reservation that ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// The relay that it was on or was asked of.
    pub relay: PeerId,
    /// Whether it was held; else the request for it failed.
    pub was_held: bool,
}

/// The legs and reservations of all configured relays.
#[derive(Debug)]
pub struct RelayKeeper {
    /// How many reservations to hold at once.
    wanted: usize,
    legs: Vec<Leg>,
    relays: Vec<Relay>,
}

#[derive(Debug)]
struct Leg {
    relay: RelayAddr,
    state: LegState,
    /// Dials in a row that failed.
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum LegState {
    Down {
        retry_at: Instant,
    },
    Dialing(Option<ConnectionId>),
    Up {
        connection: ConnectionId,
        identified: bool,
    },
}

#[derive(Debug)]
struct Relay {
    peer: PeerId,
    reservation: Reservation,
    /// Requests in a row that failed.
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Reservation {
    None { retry_at: Instant },
    Requested(Option<ListenerId>),
    Held(ListenerId),
}

impl RelayKeeper {
    /// A keeper of reservations on `wanted` of `relays`, none of them connected yet.
    pub fn new(relays: &[RelayAddr], wanted: usize, now: Instant) -> Self {
        let mut keeper = Self {
            wanted,
            legs: Vec::new(),
            relays: Vec::new(),
        };
        for relay in relays {
            keeper.legs.push(Leg {
                relay: relay.clone(),
                state: LegState::Down { retry_at: now },
                failures: 0,
            });
            if !keeper.relays.iter().any(|known| known.peer == relay.peer) {
                keeper.relays.push(Relay {
                    peer: relay.peer,
                    reservation: Reservation::None { retry_at: now },
                    failures: 0,
                });
            }
        }
        keeper
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        for (number, leg) in self.legs.iter_mut().enumerate() {
            if matches!(leg.state, LegState::Down { retry_at } if retry_at <= now) {
                leg.state = LegState::Dialing(None);
                return Some(Action::Dial {
                    leg: number,
                    relay: leg.relay.clone(),
                });
            }
        }
        let taken = self
            .relays
            .iter()
            .filter(|r| !matches!(r.reservation, Reservation::None { .. }))
            .count();
        if taken >= self.wanted {
            return None;
        }
        let (legs, relays) = (&self.legs, &mut self.relays);
        for relay in relays {
            if matches!(relay.reservation, Reservation::None { retry_at } if retry_at <= now)
                && let Some(leg) = legs
                    .iter()
                    .find(|leg| leg.relay.peer == relay.peer && leg.is_ready())
            {
                relay.reservation = Reservation::Requested(None);
                return Some(Action::Reserve {
                    relay: leg.relay.clone(),
                });
            }
        }
        None
    }

    /// When [`RelayKeeper::poll`] may have something to do, if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let legs = self.legs.iter().filter_map(|leg| match leg.state {
            LegState::Down { retry_at } => Some(retry_at),
            LegState::Dialing(_) | LegState::Up { .. } => None,
        });
        let reservations = self
            .relays
            .iter()
            .filter(|relay| {
                self.is_ready(&relay.peer) && self.held() + self.requested_count() < self.wanted
            })
            .filter_map(|relay| match relay.reservation {
                Reservation::None { retry_at } => Some(retry_at),
                Reservation::Requested(_) | Reservation::Held(_) => None,
            });
        legs.chain(reservations).min()
    }

    /// The leg is being dialed under this connection id.
    pub fn dialing(&mut self, leg: usize, connection: ConnectionId) {
        if let Some(leg) = self.legs.get_mut(leg) {
            leg.state = LegState::Dialing(Some(connection));
        }
    }

    /// The request for a reservation runs under this listener id.
    pub fn requested(&mut self, relay: &PeerId, listener: ListenerId) {
        if let Some(relay) = self.relays.iter_mut().find(|known| known.peer == *relay) {
            relay.reservation = Reservation::Requested(Some(listener));
        }
    }

    /// A connection was established. Returns the leg's relay if it is one of ours.
    pub fn handle_established(&mut self, connection: ConnectionId) -> Option<PeerId> {
        let leg = self
            .legs
            .iter_mut()
            .find(|leg| leg.state == LegState::Dialing(Some(connection)))?;
        leg.state = LegState::Up {
            connection,
            identified: false,
        };
        leg.failures = 0;
        Some(leg.relay.peer)
    }

    /// The relay told who it is on this connection: reservations may be asked for.
    pub fn handle_identified(&mut self, connection: ConnectionId, now: Instant) -> Option<PeerId> {
        let leg = self
            .legs
            .iter_mut()
            .find(|leg| leg.connection() == Some(connection))?;
        leg.state = LegState::Up {
            connection,
            identified: true,
        };
        let peer = leg.relay.peer;
        // A fresh connection is a fresh start: the relay may have been restarted or reconfigured.
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.peer == peer)
            && let Reservation::None { retry_at } = &mut relay.reservation
        {
            *retry_at = now;
            relay.failures = 0;
        }
        Some(peer)
    }

    /// A dial failed. Returns the leg's address and how often in a row, if the dial was one of ours.
    pub fn handle_dial_failed(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        jitter: f64,
    ) -> Option<(RelayAddr, u32)> {
        let leg = self
            .legs
            .iter_mut()
            .find(|leg| leg.state == LegState::Dialing(Some(connection)))?;
        leg.down(now, jitter);
        Some((leg.relay.clone(), leg.failures))
    }

    /// A connection was closed. Returns the leg's address if it is one of ours.
    pub fn handle_closed(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        jitter: f64,
    ) -> Option<RelayAddr> {
        let leg = self
            .legs
            .iter_mut()
            .find(|leg| leg.connection() == Some(connection))?;
        leg.down(now, jitter);
        Some(leg.relay.clone())
    }

    /// The relay accepted our reservation, or renewed it. Returns whether it is new.
    pub fn handle_reserved(&mut self, relay: &PeerId) -> bool {
        let Some(relay) = self.relays.iter_mut().find(|known| known.peer == *relay) else {
            return false;
        };
        relay.failures = 0;
        if let Reservation::Requested(Some(listener)) = relay.reservation {
            relay.reservation = Reservation::Held(listener);
            return true;
        }
        false
    }

    /// A listener ended: with it goes the reservation or the request for one.
    pub fn handle_listener_closed(
        &mut self,
        listener: ListenerId,
        now: Instant,
        jitter: f64,
    ) -> Option<Lost> {
        let relay = self
            .relays
            .iter_mut()
            .find(|relay| match relay.reservation {
                Reservation::Requested(id) => id == Some(listener),
                Reservation::Held(id) => id == listener,
                Reservation::None { .. } => false,
            })?;
        let was_held = matches!(relay.reservation, Reservation::Held(_));
        relay.failures = if was_held {
            0
        } else {
            relay.failures.saturating_add(1)
        };
        let wait = backoff(
            RESERVE_BACKOFF_MIN,
            RESERVE_BACKOFF_MAX,
            relay.failures,
            jitter,
        );
        relay.reservation = Reservation::None {
            retry_at: now + wait,
        };
        Some(Lost {
            relay: relay.peer,
            was_held,
        })
    }

    /// Whether circuits can be asked of this relay: it need not have told who it is. A dial that waits for that waits a round
    /// trip, in which the relay tells, by the time that it matters, how it sees this node.
    pub fn is_connected(&self, relay: &PeerId) -> bool {
        self.legs
            .iter()
            .any(|leg| leg.relay.peer == *relay && leg.connection().is_some())
    }

    /// Whether this relay is connected and has told who it is.
    pub fn is_ready(&self, relay: &PeerId) -> bool {
        self.legs
            .iter()
            .any(|leg| leg.relay.peer == *relay && leg.is_ready())
    }

    /// The relays, in the order configured.
    pub fn relays(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.relays.iter().map(|relay| relay.peer)
    }

    /// An address of the relay, a connected one if there is one.
    pub fn address(&self, relay: &PeerId) -> Option<&Multiaddr> {
        let mut legs = self
            .legs
            .iter()
            .filter(|leg| leg.relay.peer == *relay)
            .collect::<Vec<_>>();
        legs.sort_by_key(|leg| (!leg.is_ready(), leg.connection().is_none()));
        legs.first().map(|leg| &leg.relay.addr)
    }

    /// Whether every leg of this relay has failed at least once and none is up.
    pub fn is_unreachable(&self, relay: &PeerId) -> bool {
        self.legs
            .iter()
            .filter(|leg| leg.relay.peer == *relay)
            .all(|leg| leg.failures > 0 && leg.connection().is_none())
    }

    /// Whether a reservation is held on this relay.
    pub fn holds(&self, relay: &PeerId) -> bool {
        self.relays
            .iter()
            .any(|known| known.peer == *relay && matches!(known.reservation, Reservation::Held(_)))
    }

    /// How many reservations are held.
    pub fn held(&self) -> usize {
        self.relays
            .iter()
            .filter(|relay| matches!(relay.reservation, Reservation::Held(_)))
            .count()
    }

    fn requested_count(&self) -> usize {
        self.relays
            .iter()
            .filter(|relay| matches!(relay.reservation, Reservation::Requested(_)))
            .count()
    }
}

impl Leg {
    fn connection(&self) -> Option<ConnectionId> {
        match self.state {
            LegState::Up { connection, .. } => Some(connection),
            LegState::Down { .. } | LegState::Dialing(_) => None,
        }
    }

    fn is_ready(&self) -> bool {
        matches!(
            self.state,
            LegState::Up {
                identified: true,
                ..
            }
        )
    }

    fn down(&mut self, now: Instant, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        self.state = LegState::Down {
            retry_at: now + backoff(LEG_BACKOFF_MIN, LEG_BACKOFF_MAX, self.failures, jitter),
        };
    }
}

/// The wait after `failures` failures in a row: doubles from `min` up to `max`, of which the jitter takes up to one half.
fn backoff(min: Duration, max: Duration, failures: u32, jitter: f64) -> Duration {
    let full = min
        .saturating_mul(
            1_u32
                .checked_shl(failures.saturating_sub(1))
                .unwrap_or(u32::MAX),
        )
        .min(max);
    full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn relay(peer: PeerId) -> RelayAddr {
        RelayAddr {
            peer,
            addr: "/ip4/203.0.113.10/udp/443/quic-v1".parse().unwrap(),
        }
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    /// Drains the keeper and lets every dial succeed and every reservation be asked for under a fresh listener id.
    fn settle(
        keeper: &mut RelayKeeper,
        next: &mut usize,
        now: Instant,
    ) -> Vec<(PeerId, ListenerId)> {
        let mut asked = Vec::new();
        while let Some(action) = keeper.poll(now) {
            match action {
                Action::Dial { leg, .. } => {
                    *next += 1;
                    keeper.dialing(leg, id(*next));
                    keeper.handle_established(id(*next)).unwrap();
                    keeper.handle_identified(id(*next), now).unwrap();
                }
                Action::Reserve { relay } => {
                    let listener = ListenerId::next();
                    keeper.requested(&relay.peer, listener);
                    asked.push((relay.peer, listener));
                }
            }
        }
        asked
    }

    #[test]
    fn holds_as_many_reservations_as_wanted_and_the_next_relay_takes_the_place_of_a_lost_one() {
        let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        let now = Instant::now();
        let mut keeper = RelayKeeper::new(&peers.map(relay), 2, now);
        let mut next = 0;
        let asked = settle(&mut keeper, &mut next, now);
        assert_eq!(
            asked.iter().map(|(p, _)| *p).collect::<Vec<_>>(),
            peers[..2]
        );
        for (peer, _) in &asked {
            assert!(keeper.handle_reserved(peer));
            assert!(!keeper.handle_reserved(peer), "a renewal is not new");
        }
        assert_eq!(keeper.held(), 2);

        let lost = keeper.handle_listener_closed(asked[0].1, now, 0.0).unwrap();
        assert_eq!(
            lost,
            Lost {
                relay: peers[0],
                was_held: true
            }
        );
        let asked = settle(&mut keeper, &mut next, now);
        assert_eq!(
            asked.iter().map(|(p, _)| *p).collect::<Vec<_>>(),
            [peers[2]]
        );
    }

    #[test]
    fn no_reservation_is_asked_of_a_relay_before_it_has_identified_itself() {
        let peer = PeerId::random();
        let now = Instant::now();
        let mut keeper = RelayKeeper::new(&[relay(peer)], 1, now);
        assert!(matches!(
            keeper.poll(now),
            Some(Action::Dial { leg: 0, .. })
        ));
        keeper.dialing(0, id(1));
        assert_eq!(keeper.handle_established(id(1)), Some(peer));
        assert_eq!(keeper.poll(now), None);
        assert!(!keeper.is_ready(&peer));
        assert!(keeper.is_connected(&peer), "circuits can be asked for");
        assert!(keeper.address(&peer).is_some());
        keeper.handle_identified(id(1), now);
        assert!(matches!(keeper.poll(now), Some(Action::Reserve { .. })));
    }

    #[test]
    fn a_lost_relay_is_dialed_again_at_most_two_seconds_later_however_long_it_was_away() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut keeper = RelayKeeper::new(&[relay(peer)], 1, now);
        let mut at = now;
        for n in 1..40 {
            let Some(Action::Dial { leg, .. }) = keeper.poll(at) else {
                panic!("no dial at try {n}")
            };
            keeper.dialing(leg, id(n));
            keeper.handle_dial_failed(id(n), at, 0.0).unwrap();
            let deadline = keeper.deadline().unwrap();
            assert!(deadline - at <= Duration::from_secs(2));
            assert!(deadline - at >= LEG_BACKOFF_MIN / 2);
            at = deadline;
        }
        assert!(keeper.is_unreachable(&peer));
    }

    #[test]
    fn a_relay_that_refuses_is_asked_ever_more_seldom_and_at_once_after_it_came_back() {
        let peer = PeerId::random();
        let now = Instant::now();
        let mut keeper = RelayKeeper::new(&[relay(peer)], 1, now);
        let (mut next, mut at) = (0, now);
        for _ in 0..10 {
            let asked = settle(&mut keeper, &mut next, at);
            keeper.handle_listener_closed(asked[0].1, at, 0.0).unwrap();
            let wait = keeper.deadline().unwrap() - at;
            assert!(wait >= RESERVE_BACKOFF_MIN && wait <= RESERVE_BACKOFF_MAX);
            at += wait;
        }
        assert_eq!(keeper.deadline().map(|d| d - at), Some(Duration::ZERO));
        let asked = settle(&mut keeper, &mut next, at);
        keeper.handle_listener_closed(asked[0].1, at, 0.0).unwrap();
        assert_eq!(keeper.deadline().unwrap() - at, RESERVE_BACKOFF_MAX);
        keeper.handle_closed(id(next), at, 0.0).unwrap();
        let at = at + LEG_BACKOFF_MAX;
        assert_eq!(
            settle(&mut keeper, &mut next, at).len(),
            1,
            "asked at once over the new connection"
        );
    }

    proptest! {
        #[test]
        fn a_wait_is_never_zero_and_never_above_its_maximum(failures in 0_u32..200, jitter in -1.0_f64..2.0) {
            let wait = backoff(LEG_BACKOFF_MIN, LEG_BACKOFF_MAX, failures, jitter);
            prop_assert!(wait >= LEG_BACKOFF_MIN / 2 && wait <= LEG_BACKOFF_MAX);
        }
    }
}
