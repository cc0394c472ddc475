//! Swarms on loopback, negotiated lazily as both programs do, and a behaviour of one exchange.

use std::{collections::VecDeque, time::Duration};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    identity::Keypair,
    noise,
    swarm::{ConnectionId, NetworkBehaviour, NotifyHandler, SwarmEvent, THandlerOutEvent, ToSwarm},
    tcp, yamux,
};
use p2pnode_protocol::{
    exchange::{Handler, Protocol, Report},
    upgrade::LAZY,
};

pub(crate) const MAX_CONCURRENT: usize = 2;

/// Serves `S` and asks `C`, as the test commands.
pub(crate) struct Party<S: Protocol, C: Protocol> {
    handler: fn() -> Handler<S, C>,
    queue: VecDeque<ToSwarm<Report<S, C>, C::Request>>,
}

impl<S: Protocol, C: Protocol> Party<S, C> {
    pub(crate) fn new(handler: fn() -> Handler<S, C>) -> Self {
        Self {
            handler,
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn ask(&mut self, peer_id: PeerId, request: C::Request) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::Any,
            event: request,
        });
    }
}

impl<S: Protocol, C: Protocol> NetworkBehaviour for Party<S, C> {
    type ConnectionHandler = Handler<S, C>;
    type ToSwarm = Report<S, C>;

    p2pnode_protocol::handlers!(self => (self.handler)());
    p2pnode_protocol::no_swarm_events!();

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        self.queue.push_back(ToSwarm::GenerateEvent(report));
    }

    p2pnode_protocol::polls!(self.queue);
}

pub(crate) fn swarm<B: NetworkBehaviour>(behaviour: impl FnOnce(&Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| behaviour(key))
        .unwrap()
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(Duration::from_secs(60))
                .with_substream_upgrade_protocol_override(LAZY)
        })
        .build()
}

/// Where it listens from now on.
pub(crate) async fn listens<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    let any = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    swarm.listen_on(any).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}
