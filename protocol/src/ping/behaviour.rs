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

use super::{Failure, Handler, Now, Outcome, Pace, Signs};
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

/// What counts signs of life on the connection with a peer at an address.
type SignsOf = Box<dyn Fn(&PeerId, &Multiaddr) -> Signs + Send>;

/// Pings every connection and answers pings.
pub struct Behaviour {
    pace: PaceOf,
    signs: Option<SignsOf>,
    queue: VecDeque<ToSwarm<Event, Now>>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Pings each connection at the `pace` for its peer, and for whether the connection is relayed.
    pub fn new(pace: impl Fn(&PeerId, bool) -> Pace + Send + 'static) -> Self {
        Self {
            pace: Box::new(pace),
            signs: None,
            queue: VecDeque::new(),
            waker: None,
        }
    }

    /// Signs of life on a direct connection give a ping more time. `signs` is given the peer and the address of its end of the
    /// connection. Without them, and on circuits, these are the pings of the other side.
    #[must_use]
    pub fn with_signs(
        mut self,
        signs: impl Fn(&PeerId, &Multiaddr) -> Signs + Send + 'static,
    ) -> Self {
        self.signs = Some(Box::new(signs));
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
        let signs = self.signs.as_ref().filter(|_| !is_relayed);
        let signs = signs.map(|signs| signs(peer, remote));
        Handler::new((self.pace)(peer, is_relayed), signs)
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
