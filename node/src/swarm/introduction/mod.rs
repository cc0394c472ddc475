//! `/p2pnode/meet/1`, the node's side: asks relays to introduce this node to peers, and hears of peers that asked for it.
//!
//! - [`handler`]: the streams.
//!
//! Over which connection a relay is asked, and when again, [`introductions`](crate::core::introductions) decides; what is done
//! with an introduction, [`punch`](crate::punch).

mod handler;

use std::{
    collections::{BTreeSet, VecDeque},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::introduction::{Introduction, Request};

use crate::{
    config::Config,
    core::introductions::{IntroductionReply, IntroductionRequest},
};

use handler::{Handler, Report};

/// What a relay says.
#[derive(Debug)]
pub(crate) enum Event {
    /// A question has ended.
    Told {
        /// What was asked for.
        wish: IntroductionRequest,
        /// The connection on which it was asked.
        connection: ConnectionId,
        /// What came of it.
        told: IntroductionReply,
    },
    /// A peer has asked for this node.
    Heard {
        /// The relay that says so.
        relay: PeerId,
        /// Who, and where.
        introduction: Introduction,
    },
}

/// Talks with the relays that are configured, over connections that this node has made, and with nobody else.
pub(crate) struct Behaviour {
    relays: BTreeSet<PeerId>,
    queue: VecDeque<ToSwarm<Event, Request>>,
}

impl Behaviour {
    /// Asks of, and hears, `relays`, as far as `config` lets it: a relay tells what it sees of a node, whatever `punch.allow`,
    /// `punch.deny` and `access.allow` say, so that a node with any of them leaves it to DCUtR, which heeds them.
    pub(crate) fn new(relays: BTreeSet<PeerId>, config: &Config) -> Self {
        let punch = &config.punch;
        let has_rules =
            !punch.allow.is_empty() || !punch.deny.is_empty() || !config.allowed_peers.is_empty();
        Self {
            relays: match punch.enabled && !has_rules {
                true => relays,
                false => BTreeSet::new(),
            },
            queue: VecDeque::new(),
        }
    }

    /// Whether introductions are asked of this relay, and taken.
    pub(crate) fn knows(&self, relay: &PeerId) -> bool {
        self.relays.contains(relay)
    }

    /// Asks for `wish` over a connection to its relay, and says where else this node is. [`Event::Told`] follows, unless the
    /// connection closes.
    ///
    /// To be called while the swarm is being polled: the question goes out at the next poll.
    pub(crate) fn ask(
        &mut self,
        wish: IntroductionRequest,
        connection: ConnectionId,
        addrs: Vec<Multiaddr>,
    ) {
        let peer = wish.peer;
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: wish.relay,
            handler: NotifyHandler::One(connection),
            event: Request { peer, addrs },
        });
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(false))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.knows(&peer)))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        relay: PeerId,
        connection: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        let event = match report {
            Report::Told(peer, told) => Event::Told {
                wish: IntroductionRequest { peer, relay },
                connection,
                told,
            },
            Report::Heard(introduction) => Event::Heard {
                relay,
                introduction,
            },
        };
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        // The swarm polls after each event of a handler, and the event loop after each question.
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
