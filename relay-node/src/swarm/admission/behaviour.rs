//! Connections of peers that may not use the relay, and `/p2pnode/join/1`, over which they show that they may.

use std::{
    collections::VecDeque,
    fmt,
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::{
    exchange::{Handler, Report},
    join::{self, Admitted, Answer, Join},
};

use crate::core::admission::{Admission, Refused};

/// Requests at once on one connection. A node presents one token on each, and another one when its file changes.
const MAX_CONCURRENT: usize = 2;

/// A connection is denied at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAdmitted(pub(crate) Refused);

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("access.allow does not name the peer, and access.tokens is off")
    }
}

impl std::error::Error for NotAdmitted {}

/// A peer has presented a token, or only itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Joined {
    /// Who.
    pub(crate) peer: PeerId,
    /// Whether it is admitted.
    pub(crate) outcome: Result<(), Refused>,
}

/// Lets connections in, and judges what is presented.
pub(crate) struct Behaviour {
    admission: Admission,
    events: VecDeque<Joined>,
}

impl Behaviour {
    /// Judges by `admission`.
    pub(crate) fn new(admission: Admission) -> Self {
        Self {
            admission,
            events: VecDeque::new(),
        }
    }

    fn check(&self, peer: &PeerId) -> Result<THandler<Self>, ConnectionDenied> {
        match self.admission.machine().may_connect(peer) {
            Ok(()) => Ok(Handler::new(MAX_CONCURRENT)),
            Err(refused) => Err(ConnectionDenied::new(NotAdmitted(refused))),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler<Join>;
    type ToSwarm = Joined;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            let mut machine = self.admission.machine();
            machine.opened(
                established.peer_id,
                established.connection_id,
                Instant::now(),
            );
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            let mut machine = self.admission.machine();
            machine.closed(&closed.peer_id, closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        let (request, reply) = match report {
            Report::Asked(request, reply) => (request, reply),
            Report::Replied(never, _) => match never {},
        };
        let token = request.token.as_deref();
        let presented = (self.admission.machine()).present(peer, token, SystemTime::now());
        let answer = match presented {
            Ok(until) => Answer::Admitted(Admitted {
                until: until.map(join::seconds),
            }),
            Err(refused) => Answer::Refused(refused.refusal()),
        };
        // An error means that the stream is gone.
        let _ = reply.send(answer);
        self.events.push_back(Joined {
            peer,
            outcome: presented.map(|_| ()),
        });
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Joined, THandlerInEvent<Self>>> {
        // The swarm polls after each event of a handler, which is where they come from.
        self.events.pop_front().map_or(Poll::Pending, |event| {
            Poll::Ready(ToSwarm::GenerateEvent(event))
        })
    }
}
