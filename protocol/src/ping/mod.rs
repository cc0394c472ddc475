//! [Ping](https://github.com/libp2p/specs/blob/master/ping/ping.md): round trip times, and connections that do not answer.
//!
//! Not libp2p's own behaviour (libp2p-ping 0.48), because of what that does:
//!
//! - It forgets to wait for the second ping: having answered one it does not poll the future that waits for the next, so
//!   over QUIC, where only its own streams wake a connection, that one lies until the answering side pings by itself. And it
//!   answers nothing at all to a peer that does not speak ping. A peer that runs it looks dead to whoever pings it more often
//!   than it pings.
//! - It keeps the first failure to itself and then takes up to 10 s to open another stream, so nobody can tell within
//!   seconds that a connection is dead.
//! - It has one pace for all connections, and no way to ping now.
//!
//! This one holds one stream per connection, as the specification wants it, and answers on two. Where a stream that has
//! served before stays silent, it pings over a fresh one before it gives up, and stays with fresh ones if that helps.

mod handler;

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll, Waker},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

pub use handler::{Handler, Now, Outcome};

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// How often to ping a connection, and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From an answer to the next ping. A connection is pinged at its start, and at once after a ping that was not answered.
    pub interval: Duration,
    /// How long an answer is waited for, the time to open a stream included. Both transports send again what is lost several
    /// times within seconds, so one ping that is not answered in this time says as much as many.
    pub timeout: Duration,
}

/// What came of a ping.
#[derive(Debug)]
pub struct Event {
    /// Who was pinged.
    pub peer: PeerId,
    /// Over which connection.
    pub connection: ConnectionId,
    /// The round trip time, or why there is none.
    pub result: Result<Duration, Failure>,
    /// Pings in a row that were not answered on this connection, this one included.
    pub missed: u32,
    /// Whether [`Behaviour::now`] asked for it.
    pub asked: bool,
}

/// Why a ping has no round trip time.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The peer does not speak ping. Told once, and then whenever a ping is asked for.
    #[error("the peer does not speak ping")]
    Unsupported,
    /// The streams broke, which says nothing of the connection.
    #[error("the stream broke: {0}")]
    Broken(#[source] io::Error),
}

/// The pace of the pings to a peer, over a relayed connection or not.
type PaceOf = Box<dyn Fn(&PeerId, bool) -> Pace + Send>;

/// Pings every connection and answers pings.
pub struct Behaviour {
    pace: PaceOf,
    queue: VecDeque<ToSwarm<Event, Now>>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Pings each connection as `pace` says of its peer and of whether it is relayed.
    pub fn new(pace: impl Fn(&PeerId, bool) -> Pace + Send + 'static) -> Self {
        Self {
            pace: Box::new(pace),
            queue: VecDeque::new(),
            waker: None,
        }
    }

    /// Pings now. An event says what came of it, unless the connection closes before. A ping that is under way counts.
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

    fn handler(&self, peer: &PeerId, address: &Multiaddr) -> Handler {
        let relayed = address.iter().any(|part| part == Protocol::P2pCircuit);
        Handler::new((self.pace)(peer, relayed))
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
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer, local))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer, address))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

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
