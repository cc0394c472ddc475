//! `/p2pnode/meet/1`, the node's side: asks relays to introduce this node to peers, and receives introductions to peers that
//! asked for this node.
//!
//! [`crate::core::introductions`] decides over which connection to ask a relay, and when again. [`punch`](crate::punch) decides
//! what follows from an introduction.

use std::collections::{BTreeSet, VecDeque};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, NetworkBehaviour, NotifyHandler, THandler,
        THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::{
    exchange::{self, Report},
    introduction::{Introduce, IntroductionReply, Notice, Notify, Received, Request},
};

use p2pnode_transports::Handle;

use crate::{
    config::Config,
    core::{introductions::IntroductionRequest, port_search::Ask},
};

/// Exchanges at once on one connection, each way. Further notices are dropped unread; further requests are not sent.
const MAX_CONCURRENT: usize = 64;

/// What the event loop learns.
#[derive(Debug)]
pub(crate) enum Event {
    /// A request has ended.
    Replied {
        /// The request.
        request: IntroductionRequest,
        /// The connection on which this node asked.
        connection: ConnectionId,
        /// How the request ended.
        reply: IntroductionReply,
    },
    /// The relay has answered whether it passes on an offer of a search.
    Offered {
        /// The peer.
        peer: PeerId,
        /// The answer.
        reply: IntroductionReply,
    },
    /// A peer has asked for this node.
    Notified {
        /// The relay that sent the notice.
        relay: PeerId,
        /// Which peer, and where it is.
        notice: Notice,
    },
}

/// Exchanges introductions with configured relays, over connections that this node dialed from its punch ports, and with no other peer.
pub(crate) struct Behaviour {
    relays: BTreeSet<PeerId>,
    sockets: Handle,
    queue: VecDeque<ToSwarm<Event, Request>>,
}

impl Behaviour {
    /// Exchanges introductions with the relays of `config` if it allows that. A relay sends what it sees of a node, regardless of the node's
    /// `punch.allow`, `punch.deny` and `access.allow`. A node with any of these rules uses only DCUtR, which applies them.
    pub(crate) fn new(config: &Config, sockets: Handle) -> Self {
        Self {
            relays: introducers(config),
            sockets,
            queue: VecDeque::new(),
        }
    }

    /// The configuration has changed. That holds for connections that are made from now on.
    pub(crate) fn set_config(&mut self, config: &Config) {
        self.relays = introducers(config);
    }

    /// Whether the node exchanges introductions with this relay on a connection to `addr`. The relay advertises what it sees of such a
    /// connection, so the connection needs the punch port.
    fn takes(&self, relay: &PeerId, addr: &Multiaddr) -> bool {
        let leaves_elsewhere = self.sockets.sockets(addr).is_some_and(|sockets| {
            let of = (sockets.transport, sockets.local.ip().into());
            self.sockets.punch_ports().get(&of) != Some(&sockets.local.port())
        });
        self.relays.contains(relay) && !leaves_elsewhere
    }

    /// Sends `request` over a connection to its relay, with `addrs` of this node that the relay cannot see. [`Event::Replied`]
    /// follows unless the connection closes.
    ///
    /// Call this while the swarm is being polled: the request goes out at the next poll.
    pub(crate) fn ask(
        &mut self,
        request: IntroductionRequest,
        connection: ConnectionId,
        addrs: Vec<Multiaddr>,
    ) {
        let peer = request.peer;
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: request.relay,
            handler: NotifyHandler::One(connection),
            event: Request {
                peer,
                addrs,
                search: None,
            },
        });
    }

    /// Asks the relay on this connection to pass an offer of a search on. [`Event::Offered`] follows unless the connection
    /// closes. When to call this is as with [`ask`](Self::ask).
    pub(crate) fn offer(&mut self, ask: Ask, connection: ConnectionId) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: ask.relay,
            handler: NotifyHandler::One(connection),
            event: Request {
                peer: ask.peer,
                addrs: Vec::new(),
                search: Some(ask.offer),
            },
        });
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = exchange::Handler<Notify, Introduce>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(exchange::Handler::new(MAX_CONCURRENT).offering(false))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let handler = exchange::Handler::new(MAX_CONCURRENT).offering(self.takes(&peer, addr));
        Ok(match self.sockets.kin().contains(&peer) {
            true => handler.eager(),
            false => handler,
        })
    }

    p2pnode_protocol::no_swarm_events!();

    fn on_connection_handler_event(
        &mut self,
        relay: PeerId,
        connection: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        let event = match report {
            Report::Replied(request, reply) if request.search.is_some() => Event::Offered {
                peer: request.peer,
                reply: reply.into(),
            },
            Report::Replied(request, reply) => Event::Replied {
                request: IntroductionRequest {
                    peer: request.peer,
                    relay,
                },
                connection,
                reply: reply.into(),
            },
            Report::Asked(notice, received) => {
                // An error means that the stream is gone.
                let _ = received.send(Received);
                Event::Notified { relay, notice }
            }
        };
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    p2pnode_protocol::polls!(self.queue);
}

/// The relays with which introductions are exchanged.
pub(crate) fn introducers(config: &Config) -> BTreeSet<PeerId> {
    let punch = &config.punch;
    let has_rules =
        !punch.allow.is_empty() || !punch.deny.is_empty() || !config.allowed_peers.is_empty();
    let relays = config.relays.iter().map(|relay| relay.peer);
    relays.filter(|_| punch.enabled && !has_rules).collect()
}
