//! Streams of HOP to the relay and of STOP from it, none of which is lost.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use futures::channel::{mpsc::UnboundedSender, oneshot};
use libp2p::{
    PeerId, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, NetworkBehaviour, NotifyHandler,
        SubstreamProtocol, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use p2pnode_protocol::behaviour::{EventOf, PollOf};

const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");
const STOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/stop");

/// Where a stream goes that was asked for.
pub type Opened = oneshot::Sender<Stream>;

pub struct Behaviour {
    offered: UnboundedSender<Stream>,
    queue: VecDeque<ToSwarm<std::convert::Infallible, Opened>>,
}

impl Behaviour {
    pub fn new(offered: UnboundedSender<Stream>) -> Self {
        let queue = VecDeque::new();
        Self { offered, queue }
    }

    pub fn open(&mut self, peer_id: PeerId, opened: Opened) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::Any,
            event: opened,
        });
    }

    fn handler(&self) -> Handler {
        Handler {
            offered: self.offered.clone(),
            wanted: VecDeque::new(),
            opening: VecDeque::new(),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    p2pnode_protocol::handlers!(self => self.handler());
    p2pnode_protocol::no_swarm_events!();
    p2pnode_protocol::no_reports!();
    p2pnode_protocol::polls!(self.queue);
}

pub struct Handler {
    offered: UnboundedSender<Stream>,
    wanted: VecDeque<Opened>,
    opening: VecDeque<Opened>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Opened;
    type ToBehaviour = std::convert::Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(STOP), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> PollOf<Self> {
        let Some(wanted) = self.wanted.pop_front() else {
            return Poll::Pending;
        };
        self.opening.push_back(wanted);
        let protocol = SubstreamProtocol::new(ReadyUpgrade::new(HOP), ());
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, opened: Opened) {
        self.wanted.push_back(opened);
    }

    fn on_connection_event(&mut self, event: EventOf<'_, Self>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => {
                // An error means that the test is over.
                let _ = self.offered.unbounded_send(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                ..
            }) => {
                let opened = self.opening.pop_front().expect("asked for");
                let _ = opened.send(stream);
            }
            // Whoever waits for a stream that does not come learns that nobody opens it.
            ConnectionEvent::DialUpgradeError(_) => drop(self.opening.pop_front()),
            _ => {}
        }
    }
}
