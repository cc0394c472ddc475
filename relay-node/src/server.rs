//! libp2p's relay server, with every event told by the connection that caused it.
//!
//! [`relay::Event`] names peers only. A peer may hold several connections, and libp2p reports
//! [`relay::Event::ReservationClosed`] for each of them, also for those that never had a reservation; so nobody who
//! sees only peers can count. This wrapper empties the inner queue after each input, so that what comes out belongs to
//! the connection that went in.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    relay,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

/// A [`relay::Event`] and the connection on which it happened.
#[derive(Debug)]
pub(crate) struct Event {
    /// The connection whose input led to the event; `None` where it has nothing to do with one.
    ///
    /// For a circuit that is accepted it is the source's connection; for one that closes it is the source's connection,
    /// or the destination's if that one was lost.
    pub(crate) connection: Option<ConnectionId>,
    /// What happened.
    pub(crate) event: relay::Event,
}

/// [`relay::Behaviour`] with attributed events.
pub(crate) struct Behaviour {
    inner: relay::Behaviour,
    queue: VecDeque<ToSwarm<Event, THandlerInEvent<relay::Behaviour>>>,
}

impl Behaviour {
    /// A relay that answers as `local` within the limits of `config`.
    pub(crate) fn new(local: PeerId, config: relay::Config) -> Self {
        Self {
            inner: relay::Behaviour::new(local, config),
            queue: VecDeque::new(),
        }
    }

    /// Moves what the inner behaviour queued because of `connection` into our own queue.
    ///
    /// The waker does not matter: the swarm polls a behaviour after each input, and [`Self::poll`] leaves a real waker
    /// with the inner behaviour each time it finds nothing to do.
    fn drain(&mut self, connection: Option<ConnectionId>) {
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(action) = self.inner.poll(&mut context) {
            self.queue
                .push_back(action.map_out(|event| Event { connection, event }));
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<relay::Behaviour>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        let connection = if let FromSwarm::ConnectionClosed(closed) = &event {
            Some(closed.connection_id)
        } else {
            None
        };
        self.inner.on_swarm_event(event);
        self.drain(connection);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner
            .on_connection_handler_event(peer, connection, event);
        self.drain(Some(connection));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        if let Some(action) = self.queue.pop_front() {
            return Poll::Ready(action);
        }
        self.inner.poll(context).map(|action| {
            action.map_out(|event| Event {
                connection: None,
                event,
            })
        })
    }
}
