//! How often each connection is pinged, when one is dead, and whether one that ended was lost.
//!
//! Pure: the time is an argument.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::swarm::ConnectionId;
use p2pnode_protocol::ping::{Failure, Pace};

/// Circuits. The leg beneath a circuit has pings of its own.
const CALM: Pace = Pace {
    interval: Duration::from_secs(5),
    timeout: Duration::from_secs(5),
};

/// Direct connections and legs to relays. Within 5 s, a relayed path has to replace a lost direct connection, and a reservation
/// has to be back after its relay's return. At worst the path is lost right after an answer. Then the next ping leaves 1 s later
/// and fails 2.5 s after that, and 1.5 s remain for what follows. QUIC and TCP send a lost ping again four or five times in 2.5
/// s, so one failed ping is enough. The pings cost two packets per second each way. They also keep NAT mappings open: many NATs
/// drop an idle mapping after 30 s.
const WATCHFUL: Pace = Pace {
    interval: Duration::from_secs(1),
    timeout: Duration::from_millis(2500),
};

/// Pings in a row that fail at once, because the peer refuses or resets their streams. Such a peer is alive, but of no use.
const BROKEN_PINGS: u32 = 3;

/// An answer on a direct connection is at most this old while the path is good: the interval, and a long round trip.
const FRESH: Duration = Duration::from_secs(2);

/// What a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// A relay.
    Leg,
    /// A peer, over a relay.
    Circuit,
    /// A peer.
    Direct,
}

/// How a connection ended, as its transport reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// This node has closed it.
    Ours,
    /// The peer has closed it.
    Theirs,
    /// It broke.
    Broken,
    /// The peer's TLS has ended it, because a clock is wrong.
    Clock,
    /// The remote's host has answered that it knows no such connection (any more): a stateless reset of QUIC, a reset of TCP.
    Reset,
}

/// What a ping proves about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It lives, as far as is known.
    Alive,
    /// It has missed a ping: the path is cut, or slower than before. Something else is tried alongside.
    Doubtful,
    /// The connection is dead. Reported once.
    Dead,
}

/// What the end of a connection means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// One side wanted it.
    Wanted,
    /// Neither side did: the connection was lost.
    Lost,
}

/// What is known of the life of each open connection.
#[derive(Debug, Default)]
pub(crate) struct Liveness(BTreeMap<ConnectionId, Life>);

#[derive(Debug)]
struct Life {
    link: Link,
    /// When it was established, or last answered a ping.
    answered: Instant,
    has_answered: bool,
    /// Its last ping was missed.
    is_doubtful: bool,
    dead: bool,
}

impl Link {
    /// How it is pinged.
    pub(crate) const fn pace(self) -> Pace {
        match self {
            Self::Circuit => CALM,
            Self::Leg | Self::Direct => WATCHFUL,
        }
    }

    /// Pings in a row that have to be missed before it counts as dead, if nothing replaces it before.
    const fn patience(self) -> u32 {
        match self {
            Self::Circuit => 2,
            Self::Leg | Self::Direct => 3,
        }
    }

    /// Whether its first missed ping makes something else be tried.
    const fn is_doubted(self) -> bool {
        match self {
            Self::Circuit => false,
            Self::Leg | Self::Direct => true,
        }
    }
}

impl Liveness {
    /// A connection is open.
    pub(crate) fn handle_established(&mut self, id: ConnectionId, link: Link, now: Instant) {
        self.0.insert(
            id,
            Life {
                link,
                answered: now,
                has_answered: false,
                is_doubtful: false,
                dead: false,
            },
        );
    }

    /// A ping has ended, the `missed`th in a row without an answer.
    pub(crate) fn handle_ping(
        &mut self,
        id: ConnectionId,
        result: Result<(), &Failure>,
        missed: u32,
        now: Instant,
    ) -> Verdict {
        let Some(life) = self.0.get_mut(&id) else {
            return Verdict::Alive;
        };
        let limit = match result {
            // A peer without ping is not dead. The error of the transport may still show a loss.
            Ok(()) | Err(Failure::Unsupported) => {
                life.answered = now;
                life.has_answered = true;
                life.is_doubtful = false;
                return Verdict::Alive;
            }
            // Nothing speaks for a connection that has never answered.
            Err(Failure::Timeout) if life.has_answered => life.link.patience(),
            Err(Failure::Timeout) if life.link.is_doubted() => 1,
            Err(Failure::Timeout) => life.link.patience(),
            Err(Failure::Broken(_)) => BROKEN_PINGS,
        };
        if life.dead {
            return Verdict::Alive;
        }
        if missed >= limit {
            life.dead = true;
            return Verdict::Dead;
        }
        life.is_doubtful |= matches!(result, Err(Failure::Timeout)) && life.link.is_doubted();
        match life.is_doubtful {
            true => Verdict::Doubtful,
            false => Verdict::Alive,
        }
    }

    /// Whether the last ping was missed.
    pub(crate) fn is_doubtful(&self, id: ConnectionId) -> bool {
        self.0.get(&id).is_some_and(|life| life.is_doubtful)
    }

    /// Something else leads there now: a connection that is doubtful is dead. Returns whether this one is, now.
    pub(crate) fn handle_replaced(&mut self, id: ConnectionId) -> bool {
        let life = self
            .0
            .get_mut(&id)
            .filter(|life| life.is_doubtful && !life.dead);
        life.map(|life| life.dead = true).is_some()
    }

    /// Whether the peer has answered a ping on this connection.
    pub(crate) fn has_answered(&self, id: ConnectionId) -> bool {
        self.0.get(&id).is_some_and(|life| life.has_answered)
    }

    /// A connection has ended.
    pub(crate) fn handle_closed(
        &mut self,
        id: ConnectionId,
        ended: Ended,
        now: Instant,
    ) -> Farewell {
        let Some(life) = self.0.remove(&id) else {
            return Farewell::Wanted;
        };
        match (ended, life.link) {
            _ if life.dead => Farewell::Lost,
            (Ended::Ours, _) => Farewell::Wanted,
            (Ended::Broken | Ended::Clock | Ended::Reset, _) => Farewell::Lost,
            // The peer closes a path that it believes to be dead, and on which it may reach us all the same.
            (Ended::Theirs, Link::Direct)
                if now.saturating_duration_since(life.answered) <= FRESH =>
            {
                Farewell::Wanted
            }
            // The end of the relay, or of the leg beyond it, looks like that, too.
            (Ended::Theirs, Link::Direct | Link::Circuit | Link::Leg) => Farewell::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn established(link: Link) -> (Liveness, ConnectionId, Instant) {
        let (mut liveness, id, now) = (
            Liveness::default(),
            ConnectionId::new_unchecked(1),
            Instant::now(),
        );
        liveness.handle_established(id, link, now);
        (liveness, id, now)
    }

    #[test]
    fn a_lost_direct_path_leaves_time_for_a_circuit_within_5_s() {
        let pace = Link::Direct.pace();
        let doubted = pace.interval + pace.timeout;
        assert!(Link::Direct.is_doubted() && doubted <= Duration::from_millis(3500));
    }

    #[test]
    fn what_has_no_connection_beneath_is_doubtful_with_its_first_missed_ping_and_dead_with_its_third()
     {
        for (link, patience) in [(Link::Direct, 3), (Link::Circuit, 2), (Link::Leg, 3)] {
            let (mut liveness, id, now) = established(link);
            liveness.handle_ping(id, Ok(()), 0, now);
            for missed in 1..=4 {
                let died = liveness.handle_ping(id, Err(&Failure::Timeout), missed, now);
                assert_eq!(
                    died == Verdict::Dead,
                    missed == patience,
                    "{link:?}, {missed} missed"
                );
                assert_eq!(
                    died == Verdict::Doubtful,
                    link != Link::Circuit && missed < patience
                );
            }
            let end = liveness.handle_closed(id, Ended::Ours, now);
            assert_eq!(end, Farewell::Lost, "closed as dead");
        }
    }

    #[test]
    fn a_doubtful_connection_is_dead_once_it_is_replaced_and_none_is_after_an_answer() {
        let (mut liveness, id, now) = established(Link::Direct);
        liveness.handle_ping(id, Ok(()), 0, now);
        assert!(!liveness.handle_replaced(id));
        liveness.handle_ping(id, Err(&Failure::Timeout), 1, now);
        assert!(liveness.is_doubtful(id));
        liveness.handle_ping(id, Ok(()), 0, now);
        assert!(!liveness.is_doubtful(id) && !liveness.handle_replaced(id));
        liveness.handle_ping(id, Err(&Failure::Timeout), 1, now);
        assert!(liveness.handle_replaced(id) && !liveness.handle_replaced(id));
        assert_eq!(liveness.handle_closed(id, Ended::Ours, now), Farewell::Lost);
    }

    #[test]
    fn a_connection_that_has_never_answered_is_dead_with_its_first_missed_ping() {
        let (mut liveness, id, now) = established(Link::Direct);
        let verdict = liveness.handle_ping(id, Err(&Failure::Timeout), 1, now);
        assert_eq!(verdict, Verdict::Dead);
    }

    #[test]
    fn a_peer_that_resets_the_streams_of_pings_is_given_more_time() {
        let (mut liveness, id, now) = established(Link::Direct);
        let broken = Failure::Broken(io::ErrorKind::UnexpectedEof.into());
        for missed in 1..BROKEN_PINGS {
            assert_eq!(
                liveness.handle_ping(id, Err(&broken), missed, now),
                Verdict::Alive
            );
        }
        assert_eq!(
            liveness.handle_ping(id, Err(&broken), BROKEN_PINGS, now),
            Verdict::Dead
        );
    }

    #[test]
    fn a_peer_without_ping_is_not_dead() {
        let (mut liveness, id, now) = established(Link::Direct);
        assert_eq!(
            liveness.handle_ping(id, Err(&Failure::Unsupported), 0, now),
            Verdict::Alive
        );
        assert_eq!(
            liveness.handle_closed(id, Ended::Theirs, now),
            Farewell::Wanted
        );
    }

    #[test]
    fn a_graceful_close_on_a_path_that_answers_is_one_and_on_a_silent_path_it_is_a_loss() {
        let (mut liveness, id, now) = established(Link::Direct);
        let later = now + Duration::from_secs(9);
        liveness.handle_ping(id, Ok(()), 0, later);
        assert_eq!(
            liveness.handle_closed(id, Ended::Theirs, later + WATCHFUL.interval),
            Farewell::Wanted
        );

        let (mut liveness, id, now) = established(Link::Direct);
        assert_eq!(
            liveness.handle_closed(id, Ended::Theirs, now + WATCHFUL.timeout),
            Farewell::Lost
        );
    }

    #[test]
    fn what_this_node_closes_is_not_lost_and_what_breaks_is() {
        for link in [Link::Direct, Link::Circuit, Link::Leg] {
            let (mut liveness, id, now) = established(link);
            assert_eq!(
                liveness.handle_closed(id, Ended::Ours, now),
                Farewell::Wanted
            );
            assert_eq!(
                liveness.handle_closed(id, Ended::Broken, now),
                Farewell::Wanted,
                "it is gone"
            );
            let (mut liveness, id, now) = established(link);
            assert_eq!(
                liveness.handle_closed(id, Ended::Broken, now),
                Farewell::Lost
            );
        }
    }
}
