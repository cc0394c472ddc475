//! Over which connection to ask a relay for an introduction, and when again.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::introduction::{IntroductionReply, Refusal};

/// To be introduced to a peer by a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct IntroductionRequest {
    /// The peer.
    pub(crate) peer: PeerId,
    /// The relay.
    pub(crate) relay: PeerId,
}

/// The requests that are under way, and those to make again.
#[derive(Debug, Default)]
pub(crate) struct Introductions {
    asking: BTreeMap<IntroductionRequest, ConnectionId>,
    /// Connections to relays that do not support the protocol. A connection that comes later may be another run of the relay.
    mute: BTreeSet<ConnectionId>,
    /// The relay had not seen this node in a family and transport of the peer's, and may with the next connection.
    waiting: BTreeSet<IntroductionRequest>,
}

impl Introductions {
    /// An introduction would be of use. The first of these connections to the relay on which to ask for it, unless it is asked for
    /// already.
    pub(crate) fn handle_wanted(
        &mut self,
        request: IntroductionRequest,
        connections: impl Iterator<Item = ConnectionId>,
    ) -> Option<ConnectionId> {
        if self.asking.contains_key(&request) {
            return None;
        }
        let mut connections = connections.filter(|connection| !self.mute.contains(connection));
        let connection = connections.next()?;
        self.waiting.remove(&request);
        self.asking.insert(request, connection);
        Some(connection)
    }

    /// A request has ended. Returns it if it was under way.
    pub(crate) fn handle_reply(
        &mut self,
        request: IntroductionRequest,
        connection: ConnectionId,
        reply: &IntroductionReply,
    ) -> Option<IntroductionRequest> {
        if self.asking.get(&request) != Some(&connection) {
            return None;
        }
        self.asking.remove(&request);
        match reply {
            IntroductionReply::Unsupported => {
                self.mute.insert(connection);
            }
            IntroductionReply::Refused(Refusal::NothingInCommon) => {
                self.waiting.insert(request);
            }
            IntroductionReply::Introduced(_)
            | IntroductionReply::Refused(_)
            | IntroductionReply::NoAnswer => {}
        }
        Some(request)
    }

    /// There is one more connection to a relay: the requests to make again.
    pub(crate) fn handle_leg(&mut self, relay: PeerId) -> Vec<IntroductionRequest> {
        self.waiting
            .extract_if(.., |request| request.relay == relay)
            .collect()
    }

    /// A connection was closed: the requests that were made on it, and will not be answered.
    pub(crate) fn handle_closed(&mut self, connection: ConnectionId) -> Vec<IntroductionRequest> {
        self.mute.remove(&connection);
        let asked = self.asking.extract_if(.., |_, on| *on == connection);
        asked.map(|(request, _)| request).collect()
    }

    /// The last dial of the peer is over.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.waiting.retain(|request| request.peer != *peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn request() -> IntroductionRequest {
        IntroductionRequest {
            peer: PeerId::random(),
            relay: PeerId::random(),
        }
    }

    #[test]
    fn a_relay_is_asked_once_at_a_time_over_the_first_connection() {
        let (mut introductions, request) = (Introductions::default(), request());
        assert_eq!(
            introductions.handle_wanted(request, [id(1), id(2)].into_iter()),
            Some(id(1))
        );
        assert_eq!(
            introductions.handle_wanted(request, [id(1), id(2)].into_iter()),
            None
        );
        assert_eq!(
            introductions.handle_reply(request, id(1), &IntroductionReply::NoAnswer),
            Some(request)
        );
        assert_eq!(
            introductions.handle_reply(request, id(1), &IntroductionReply::NoAnswer),
            None,
            "late"
        );
        assert_eq!(
            introductions.handle_wanted(request, [id(2)].into_iter()),
            Some(id(2))
        );
    }

    #[test]
    fn a_connection_to_a_foreign_relay_is_remembered_until_it_closes() {
        let (mut introductions, request) = (Introductions::default(), request());
        introductions.handle_wanted(request, [id(1)].into_iter());
        introductions.handle_reply(request, id(1), &IntroductionReply::Unsupported);
        assert_eq!(
            introductions.handle_wanted(request, [id(1)].into_iter()),
            None
        );
        assert!(introductions.handle_leg(request.relay).is_empty());
        introductions.handle_closed(id(1));
        assert!(introductions.mute.is_empty());
        assert_eq!(
            introductions.handle_wanted(request, [id(2)].into_iter()),
            Some(id(2))
        );
    }

    #[test]
    fn where_nothing_was_in_common_the_next_connection_is_another_chance() {
        let (mut introductions, request) = (Introductions::default(), request());
        let refused = IntroductionReply::Refused(Refusal::NothingInCommon);
        introductions.handle_wanted(request, [id(1)].into_iter());
        introductions.handle_reply(request, id(1), &refused);
        assert!(introductions.handle_leg(PeerId::random()).is_empty());
        assert_eq!(introductions.handle_leg(request.relay), [request]);
        assert!(introductions.handle_leg(request.relay).is_empty(), "once");
        introductions.handle_wanted(request, [id(1)].into_iter());
        introductions.handle_reply(request, id(1), &refused);
        introductions.forget(&request.peer);
        assert!(introductions.handle_leg(request.relay).is_empty());
    }

    #[test]
    fn a_connection_that_closes_ends_what_was_asked_on_it() {
        let (mut introductions, request) = (Introductions::default(), request());
        introductions.handle_wanted(request, [id(1)].into_iter());
        assert!(introductions.handle_closed(id(2)).is_empty());
        assert_eq!(introductions.handle_closed(id(1)), [request]);
        assert_eq!(
            introductions.handle_wanted(request, [id(2)].into_iter()),
            Some(id(2))
        );
    }
}
