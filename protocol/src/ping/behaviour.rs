//! Which connections are pinged, and how often.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

use super::{Failure, Handler, Now, Outcome, Pace, Received};
use crate::addr::is_circuit;

/// The outcome of a ping.
#[derive(Debug)]
pub struct Event {
    /// The peer.
    pub peer: PeerId,
    /// The connection.
    pub connection: ConnectionId,
    /// The round trip time, or why there is none.
    pub result: Result<Duration, Failure>,
    /// Unanswered pings in a row on this connection, this one included.
    pub missed: u32,
    /// Whether [`Behaviour::now`] requested the ping.
    pub asked: bool,
}

/// The pace for a peer, and for whether the connection is relayed.
type PaceOf = Box<dyn Fn(&PeerId, bool) -> Pace + Send>;

/// What counts what arrives on the connection with a peer at an address.
type ReceivedOf = Box<dyn Fn(&PeerId, &Multiaddr) -> Received + Send>;

/// Pings every connection and answers pings.
pub struct Behaviour {
    pace: PaceOf,
    received: Option<ReceivedOf>,
    queue: VecDeque<ToSwarm<Event, Now>>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Pings each connection at the `pace` for its peer, and for whether the connection is relayed.
    pub fn new(pace: impl Fn(&PeerId, bool) -> Pace + Send + 'static) -> Self {
        Self {
            pace: Box::new(pace),
            received: None,
            queue: VecDeque::new(),
            waker: None,
        }
    }

    /// Takes what arrives on a direct connection for a sign of life. `received` is given the peer and the address of its end of the
    /// connection.
    #[must_use]
    pub fn with_received(
        mut self,
        received: impl Fn(&PeerId, &Multiaddr) -> Received + Send + 'static,
    ) -> Self {
        self.received = Some(Box::new(received));
        self
    }

    /// Pings now, unless a ping is under way. An [`Event`] follows unless the connection closes.
    pub fn now(&mut self, peer: PeerId, connection: ConnectionId) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: Now,
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: &PeerId, is_relayed: bool, remote: &Multiaddr) -> Handler {
        let received = self.received.as_ref().filter(|_| !is_relayed);
        let received = received.map(|received| received(peer, remote));
        Handler::new((self.pace)(peer, is_relayed), received)
    }
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer, is_circuit(local), remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer, is_circuit(address), address))
    }

    crate::no_swarm_events!();

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        outcome: THandlerOutEvent<Self>,
    ) {
        let Outcome {
            result,
            missed,
            asked,
        } = outcome;
        self.queue.push_back(ToSwarm::GenerateEvent(Event {
            peer,
            connection,
            result,
            missed,
            asked,
        }));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        if let Some(action) = self.queue.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
