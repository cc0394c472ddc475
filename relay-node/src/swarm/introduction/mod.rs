//! `/p2pnode/meet/1`, the relay's side: tells two peers in one moment where the relay sees the other.
//!
//! - [`seen`]: from where peers have connected; pure.
//! - [`handler`]: the streams.
//!
//! Who holds a reservation and on which connection, others know: see [`crate::swarm::event_loop`].

mod handler;

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
use p2pnode_protocol::introduction::{Answer, Introduction, Meeting, Refusal, Request};

use crate::core::limiter::{Limiter, Measure};

use crate::core::introductions::{Seen, have_in_common, with_its_own};
use handler::{Handler, Report};

/// What a peer may ask: it does once for each dial, and again as often as the circuit is asked for.
const ASKED: Measure = Measure {
    burst: 64,
    period: Duration::from_millis(100),
};

/// How often a peer is told of others: each time it sends packets to addresses that it has from here.
const TOLD: Measure = Measure {
    burst: 128,
    period: Duration::from_millis(100),
};

/// What is told to the event loop.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer wants to be introduced.
    Asked(Question),
    /// The peer that was asked for has taken its introduction, or has not.
    Told {
        /// The peer.
        peer: PeerId,
        /// Whether it has.
        taken: bool,
    },
}

/// A question, to be answered. If it is dropped, its stream closes without an answer.
#[derive(Debug)]
pub(crate) struct Question {
    /// Who asks.
    pub(crate) peer: PeerId,
    /// What it asks.
    pub(crate) request: Request,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// The relay's side of the protocol.
#[derive(Debug)]
pub(crate) struct Behaviour {
    seen: Seen,
    asked: Limiter,
    told: Limiter,
    queue: VecDeque<ToSwarm<Event, Introduction>>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            seen: Seen::default(),
            asked: Limiter::new(ASKED),
            told: Limiter::new(TOLD),
            queue: VecDeque::new(),
        }
    }
}

impl Behaviour {
    /// A peer has told which protocols it speaks on a connection.
    pub(crate) fn identified(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        protocols: &[StreamProtocol],
    ) {
        self.seen.identified(peer, connection, protocols);
    }

    /// Introduces `asker` and the peer that it asks for to each other. `place` is where that one holds its reservation.
    ///
    /// To be called while the swarm is being polled: the peer is told at the next poll.
    pub(crate) fn introduce(
        &mut self,
        asker: PeerId,
        request: &Request,
        place: Option<ConnectionId>,
        now: Instant,
    ) -> Answer {
        match self.meeting(asker, request, place, now) {
            Err(refusal) => Answer::Refused(refusal),
            Ok((place, meeting)) => {
                self.queue.push_back(ToSwarm::NotifyHandler {
                    peer_id: request.peer,
                    handler: NotifyHandler::One(place),
                    event: Introduction {
                        peer: asker,
                        meeting: Meeting {
                            addrs: meeting.told.clone(),
                            told: meeting.addrs.clone(),
                        },
                    },
                });
                Answer::Introduced(meeting)
            }
        }
    }

    fn meeting(
        &mut self,
        asker: PeerId,
        request: &Request,
        place: Option<ConnectionId>,
        now: Instant,
    ) -> Result<(ConnectionId, Meeting), Refusal> {
        let peer = request.peer;
        if !self.asked.admits(asker, now) {
            return Err(Refusal::TooOften);
        }
        let place = place.ok_or(Refusal::NoReservation)?;
        if !self.seen.takes(&peer, place) {
            return Err(Refusal::Unsupported);
        }
        let meeting = Meeting {
            addrs: self.seen.addresses(&peer),
            told: with_its_own(self.seen.addresses(&asker), &request.addrs),
        };
        if asker == peer || !have_in_common(&meeting.addrs, &meeting.told) {
            return Err(Refusal::NothingInCommon);
        }
        if !self.told.admits(peer, now) {
            return Err(Refusal::TooOften);
        }
        Ok((place, meeting))
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
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            // What this relay dials are other relays, at addresses of theirs that say nothing about a NAT.
            if let ConnectedPoint::Listener { send_back_addr, .. } = established.endpoint {
                let (peer, connection) = (established.peer_id, established.connection_id);
                self.seen.connected(peer, connection, send_back_addr);
            }
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.seen.closed(&closed.peer_id, closed.connection_id);
            if closed.remaining_established == 0 {
                self.asked.forget(&closed.peer_id);
                self.told.forget(&closed.peer_id);
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
            Report::Told(taken) => Event::Told { peer, taken },
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
