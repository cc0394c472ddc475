//! A plain libp2p peer: relay client, identify, ping, and a protocol that moves bytes over one stream.

mod ask;
mod hear;

use std::{
    collections::VecDeque, convert::Infallible, future::Future, io, pin::Pin, time::Duration,
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    InboundUpgrade, OutboundUpgrade, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    core::UpgradeInfo,
    identify,
    identity::Keypair,
    noise, ping, relay,
    swarm::{
        ConnectionId, NetworkBehaviour, NotifyHandler, OneShotHandler, SwarmEvent,
        THandlerOutEvent, ToSwarm,
    },
    tcp, tls, yamux,
};
use p2pnode_protocol::draining;

pub use ask::Ask;
pub use hear::Hear;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/test/transfer/1");

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub relay: relay::client::Behaviour,
    pub transfer: Transfer,
    pub ask: Ask,
    pub hear: Hear,
    pub draining: draining::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

pub fn swarm(key: Keypair) -> Swarm<Behaviour> {
    swarm_with(key, ping::Config::default())
}

pub fn swarm_with(key: Keypair, ping: ping::Config) -> Swarm<Behaviour> {
    SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )
        .expect("TCP")
        .with_quic()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .expect("circuits")
        .with_behaviour(|key, relay| Behaviour {
            relay,
            transfer: Transfer::default(),
            ask: Ask::default(),
            hear: Hear::default(),
            draining: draining::Behaviour::default(),
            identify: identify::Behaviour::new(identify::Config::new(
                "/test/1".to_owned(),
                key.public(),
            )),
            ping: ping::Behaviour::new(ping),
        })
        .expect("infallible")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(5)))
        .build()
}

/// Polls `swarm` until `wanted` finds something in an event.
pub async fn until<T>(
    swarm: &mut Swarm<Behaviour>,
    mut wanted: impl FnMut(&SwarmEvent<BehaviourEvent>) -> Option<T>,
) -> T {
    let found = async {
        loop {
            let event = swarm.select_next_some().await;
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .expect("the event within 20 s")
}

/// Keeps `other` alive while `wanted` is waited for on `swarm`.
pub async fn until_with<T>(
    swarm: &mut Swarm<Behaviour>,
    other: &mut Swarm<Behaviour>,
    wanted: impl FnMut(&SwarmEvent<BehaviourEvent>) -> Option<T>,
) -> T {
    let idle = async {
        loop {
            other.select_next_some().await;
        }
    };
    tokio::select! {
        found = until(swarm, wanted) => found,
        () = idle => unreachable!("endless"),
    }
}

/// Sends bytes on a stream of its own; the receiver reports how many came.
#[derive(Default)]
pub struct Transfer {
    queue: VecDeque<ToSwarm<usize, Send>>,
}

impl Transfer {
    pub fn send(&mut self, peer_id: PeerId, bytes: usize) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::Any,
            event: Send(bytes),
        });
    }
}

impl NetworkBehaviour for Transfer {
    type ConnectionHandler = OneShotHandler<Receive, Send, Moved>;
    /// Bytes received on one stream, to its end.
    type ToSwarm = usize;

    p2pnode_protocol::handlers!(self => OneShotHandler::default());
    p2pnode_protocol::no_swarm_events!();

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if let Ok(Moved::Received(bytes)) = event {
            self.queue.push_back(ToSwarm::GenerateEvent(bytes));
        }
    }

    p2pnode_protocol::polls!(self.queue);
}

#[derive(Debug)]
pub enum Moved {
    Received(usize),
    Sent,
}

impl From<usize> for Moved {
    fn from(bytes: usize) -> Self {
        Self::Received(bytes)
    }
}

impl From<()> for Moved {
    fn from((): ()) -> Self {
        Self::Sent
    }
}

#[derive(Debug, Clone, Default)]
pub struct Receive;

impl UpgradeInfo for Receive {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

type Upgrade<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + core::marker::Send>>;

impl InboundUpgrade<Stream> for Receive {
    type Output = usize;
    type Error = Infallible;
    type Future = Upgrade<usize, Infallible>;

    fn upgrade_inbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            let mut bytes = 0;
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                bytes += read;
            }
            Ok(bytes)
        })
    }
}

#[derive(Debug, Clone)]
pub struct Send(usize);

impl UpgradeInfo for Send {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

impl OutboundUpgrade<Stream> for Send {
    type Output = ();
    type Error = io::Error;
    type Future = Upgrade<(), io::Error>;

    fn upgrade_outbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            stream.write_all(&vec![7; self.0]).await?;
            stream.close().await
        })
    }
}
