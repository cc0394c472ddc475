//! Over which connection a relay is asked for an introduction, and when again.
//!
//! Pure.

use std::collections::{HashMap, HashSet};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::introduction::{IntroductionReply, Refusal};

/// To be introduced to a peer by a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct IntroductionRequest {
    /// The peer.
    pub(crate) peer: PeerId,
    /// The relay.
    pub(crate) relay: PeerId,
}

/// The questions that are under way, and those to ask again.
#[derive(Debug, Default)]
pub(crate) struct Introductions {
    asking: HashMap<IntroductionRequest, ConnectionId>,
    /// Connections to relays that do not speak the protocol. A connection that comes later may be another run of the relay.
    mute: HashSet<ConnectionId>,
    /// The relay had not seen this node in a family and transport of the peer's, and may with the next connection.
    waiting: HashSet<IntroductionRequest>,
}

impl Introductions {
    /// A wish over the best of these connections to its relay that it can be asked on, unless it is asked for already.
    pub(crate) fn begin(
        &mut self,
        wish: IntroductionRequest,
        connections: impl Iterator<Item = ConnectionId>,
    ) -> Option<ConnectionId> {
        if self.asking.contains_key(&wish) {
            return None;
        }
        let mut connections = connections.filter(|connection| !self.mute.contains(connection));
        let connection = connections.next()?;
        self.waiting.remove(&wish);
        self.asking.insert(wish, connection);
        Some(connection)
    }

    /// A question has ended. Whether it was one that was under way.
    pub(crate) fn handle_told(
        &mut self,
        wish: IntroductionRequest,
        connection: ConnectionId,
        reply: &IntroductionReply,
    ) -> bool {
        if self.asking.get(&wish) != Some(&connection) {
            return false;
        }
        self.asking.remove(&wish);
        match reply {
            IntroductionReply::Unsupported => drop(self.mute.insert(connection)),
            IntroductionReply::Refused(Refusal::NothingInCommon) => drop(self.waiting.insert(wish)),
            IntroductionReply::Introduced(_)
            | IntroductionReply::Refused(_)
            | IntroductionReply::NoAnswer => {}
        }
        true
    }

    /// There is one more connection to a relay: the wishes that it may fulfil.
    pub(crate) fn handle_leg(&mut self, relay: PeerId) -> Vec<IntroductionRequest> {
        self.waiting
            .extract_if(|wish| wish.relay == relay)
            .collect()
    }

    /// A connection was closed: the wishes that were asked for on it, and will not be answered.
    pub(crate) fn handle_closed(&mut self, connection: ConnectionId) -> Vec<IntroductionRequest> {
        self.mute.remove(&connection);
        let asked = self.asking.extract_if(|_, on| *on == connection);
        asked.map(|(wish, _)| wish).collect()
    }

    /// Nobody wants to meet the peer any more.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.waiting.retain(|wish| wish.peer != *peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn wish() -> IntroductionRequest {
        IntroductionRequest {
            peer: PeerId::random(),
            relay: PeerId::random(),
        }
    }

    #[test]
    fn a_relay_is_asked_once_at_a_time_over_the_first_connection() {
        let (mut wishes, wish) = (Introductions::default(), wish());
        assert_eq!(wishes.begin(wish, [id(1), id(2)].into_iter()), Some(id(1)));
        assert_eq!(wishes.begin(wish, [id(1), id(2)].into_iter()), None);
        assert!(wishes.handle_told(wish, id(1), &IntroductionReply::NoAnswer));
        assert!(
            !wishes.handle_told(wish, id(1), &IntroductionReply::NoAnswer),
            "late"
        );
        assert_eq!(wishes.begin(wish, [id(2)].into_iter()), Some(id(2)));
    }

    #[test]
    fn a_connection_to_a_foreign_relay_is_remembered_until_it_closes() {
        let (mut wishes, wish) = (Introductions::default(), wish());
        wishes.begin(wish, [id(1)].into_iter());
        wishes.handle_told(wish, id(1), &IntroductionReply::Unsupported);
        assert_eq!(wishes.begin(wish, [id(1)].into_iter()), None);
        assert!(wishes.handle_leg(wish.relay).is_empty());
        wishes.handle_closed(id(1));
        assert!(wishes.mute.is_empty());
        assert_eq!(wishes.begin(wish, [id(2)].into_iter()), Some(id(2)));
    }

    #[test]
    fn where_nothing_was_in_common_the_next_connection_is_another_chance() {
        let (mut wishes, wish) = (Introductions::default(), wish());
        let refused = IntroductionReply::Refused(Refusal::NothingInCommon);
        wishes.begin(wish, [id(1)].into_iter());
        wishes.handle_told(wish, id(1), &refused);
        assert!(wishes.handle_leg(PeerId::random()).is_empty());
        assert_eq!(wishes.handle_leg(wish.relay), [wish]);
        assert!(wishes.handle_leg(wish.relay).is_empty(), "once");
        wishes.begin(wish, [id(1)].into_iter());
        wishes.handle_told(wish, id(1), &refused);
        wishes.forget(&wish.peer);
        assert!(wishes.handle_leg(wish.relay).is_empty());
    }

    #[test]
    fn a_connection_that_closes_ends_what_was_asked_on_it() {
        let (mut wishes, wish) = (Introductions::default(), wish());
        wishes.begin(wish, [id(1)].into_iter());
        assert!(wishes.handle_closed(id(2)).is_empty());
        assert_eq!(wishes.handle_closed(id(1)), [wish]);
        assert_eq!(wishes.begin(wish, [id(2)].into_iter()), Some(id(2)));
    }
}
