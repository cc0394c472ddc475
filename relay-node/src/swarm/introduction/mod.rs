//! `/p2pnode/meet/1`, the relay's side: sends two peers in one moment where the relay sees the other.
//!
//! [`crate::core::introductions`] records from where peers have connected. The event loop knows which peer holds a reservation,
//! and on which connection.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::{
    exchange::{Handler, Reply, Report},
    introduction::{Answer, Introduce, Introduction, Notice, Notify, Refusal, Request},
};

use crate::core::{
    introductions::{Seen, have_in_common, with_its_own},
    limiter::{Limiter, Measure},
};

/// Exchanges at once on one connection, each way. The relay drops further requests unread, and does not send further notices.
const MAX_CONCURRENT: usize = 32;

/// How often a peer may ask: once for each dial, and again whenever it asks for the circuit again.
const ASKED: Measure = Measure {
    burst: 64,
    period: Duration::from_millis(100),
};

/// How often a peer receives a notice: each one makes it send packets to addresses that the relay names.
const NOTIFIED: Measure = Measure {
    burst: 128,
    period: Duration::from_millis(100),
};

/// What the event loop learns.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer wants to be introduced.
    Asked(Question),
    /// A notice has been delivered, or not.
    Notified {
        /// The peer that was asked for.
        peer: PeerId,
        /// Whether the peer has read the notice.
        received: bool,
    },
}

/// A request that awaits its answer. If it is dropped, its stream closes without one.
#[derive(Debug)]
pub(crate) struct Question {
    /// The peer that asks.
    pub(crate) peer: PeerId,
    /// The request.
    pub(crate) request: Request,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// The relay's side of the protocol.
#[derive(Debug)]
pub(crate) struct Behaviour {
    seen: Seen,
    asked: Limiter,
    notified: Limiter,
    queue: VecDeque<ToSwarm<Event, Notice>>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            seen: Seen::default(),
            asked: Limiter::new(ASKED),
            notified: Limiter::new(NOTIFIED),
            queue: VecDeque::new(),
        }
    }
}

impl Behaviour {
    /// A peer has advertised its protocols on a connection.
    pub(crate) fn identified(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        protocols: &[StreamProtocol],
    ) {
        self.seen.identified(peer, connection, protocols);
    }

    /// Introduces `asker` and the peer that `request` names to each other. `place` is the connection on which the latter holds its
    /// reservation.
    ///
    /// Call this while the swarm is being polled: the notice goes out at the next poll.
    pub(crate) fn introduce(
        &mut self,
        asker: PeerId,
        request: &Request,
        place: Option<ConnectionId>,
        now: Instant,
    ) -> Answer {
        match self.introduction(asker, request, place, now) {
            Err(refusal) => Answer::Refused(refusal),
            Ok((place, introduction)) => {
                self.queue.push_back(ToSwarm::NotifyHandler {
                    peer_id: request.peer,
                    handler: NotifyHandler::One(place),
                    event: Notice {
                        peer: asker,
                        introduction: Introduction {
                            addrs: introduction.own_addrs.clone(),
                            own_addrs: introduction.addrs.clone(),
                        },
                    },
                });
                Answer::Introduced(introduction)
            }
        }
    }

    fn introduction(
        &mut self,
        asker: PeerId,
        request: &Request,
        place: Option<ConnectionId>,
        now: Instant,
    ) -> Result<(ConnectionId, Introduction), Refusal> {
        let peer = request.peer;
        if !self.asked.admits(asker, now) {
            return Err(Refusal::TooOften);
        }
        let place = place.ok_or(Refusal::NoReservation)?;
        if !self.seen.takes(&peer, place) {
            return Err(Refusal::Unsupported);
        }
        let introduction = Introduction {
            addrs: self.seen.addresses(&peer),
            own_addrs: with_its_own(self.seen.addresses(&asker), &request.addrs),
        };
        if asker == peer || !have_in_common(&introduction.addrs, &introduction.own_addrs) {
            return Err(Refusal::NothingInCommon);
        }
        if !self.notified.admits(peer, now) {
            return Err(Refusal::TooOften);
        }
        Ok((place, introduction))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler<Introduce, Notify>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(MAX_CONCURRENT))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(MAX_CONCURRENT))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            // This relay dials only other relays, at configured addresses, which reveal no NAT.
            if let ConnectedPoint::Listener { send_back_addr, .. } = established.endpoint {
                let (peer, connection) = (established.peer_id, established.connection_id);
                self.seen.connected(peer, connection, send_back_addr);
            }
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.seen.closed(&closed.peer_id, closed.connection_id);
            if closed.remaining_established == 0 {
                self.asked.forget(&closed.peer_id);
                self.notified.forget(&closed.peer_id);
            }
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        let event = match report {
            Report::Replied(_, reply) => Event::Notified {
                peer,
                received: matches!(reply, Reply::Answer(_)),
            },
            Report::Asked(request, reply) => Event::Asked(Question {
                peer,
                request,
                reply,
            }),
        };
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        // The swarm polls after each event of a handler, and the event loop after each answer.
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
