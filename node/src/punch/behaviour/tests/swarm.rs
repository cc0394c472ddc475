//! Real swarms on loopback: a relay, and two peers of our make or others'.

use std::{any::Any, collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, dcutr, identify,
    multiaddr::Protocol,
    noise, ping, relay,
    swarm::{
        ConnectionId, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use p2pnode_transports::{FamilyPolicy, Remote, Transport};

use crate::punch::{
    Behaviour, Event, Observation, Record, Settings,
    address::Candidate,
    machine::Timing,
    settings::{Ports, PunchPorts},
};

pub(super) struct NoPorts;

impl Ports for NoPorts {
    fn punch_ports(&self) -> PunchPorts {
        PunchPorts::new()
    }

    fn expect_punch(&self, _: &[Multiaddr], _: Remote) -> Box<dyn Any + Send> {
        Box::new(())
    }

    fn local_socket(&self, _: &Multiaddr) -> Option<SocketAddr> {
        None
    }
}

pub(super) fn settings(transports: &[Transport]) -> Settings {
    Settings {
        enabled: true,
        transports: transports.to_vec(),
        families: FamilyPolicy::Auto,
        permit: Arc::new(|_| true),
        // The swarms are on loopback, and their relay is libp2p's.
        names: Arc::new(|_| true),
        advertise: Arc::new(|_| Vec::new()),
        circuits: Arc::new(|_| None),
        timing: Timing {
            grace: Duration::from_millis(300),
            surplus_quiet: Duration::from_millis(200),
            ..Timing::default()
        },
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(super) struct RelayBehaviour {
    pub(super) relay: relay::Behaviour,
    identify: identify::Behaviour,
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(super) struct PeerBehaviour<P: NetworkBehaviour> {
    pub(super) relay: relay::client::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    punch: P,
}

/// What a test sees of a peer's punching, in any implementation.
pub(super) trait Punch: NetworkBehaviour + Sized {
    fn make(peer: PeerId, transports: &[Transport]) -> Self;
    fn on_identified(_: &mut Swarm<PeerBehaviour<Self>>, _: ConnectionId, _: PeerId, _: Multiaddr) {
    }
    fn note(_: &Self::ToSwarm, _: &mut Seen) {}
}

impl Punch for Behaviour {
    fn make(peer: PeerId, transports: &[Transport]) -> Self {
        Self::new(peer, settings(transports), NoPorts)
    }

    fn on_identified(
        swarm: &mut Swarm<PeerBehaviour<Self>>,
        connection: ConnectionId,
        by: PeerId,
        addr: Multiaddr,
    ) {
        let Some(candidate) = Candidate::parse(&addr) else {
            return;
        };
        let (transport, family) = (candidate.transport, candidate.family());
        swarm.behaviour_mut().punch.observed(Observation {
            addr,
            by,
            connection,
            transport,
            family,
        });
    }

    fn note(event: &Event, seen: &mut Seen) {
        seen.events.push(event.clone());
    }
}

impl Punch for dcutr::Behaviour {
    fn make(peer: PeerId, _: &[Transport]) -> Self {
        Self::new(peer)
    }
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) relays_identified: usize,
    pub(super) reserved: bool,
    /// What came back on each stream of a hostile peer.
    pub(super) hostile: Vec<Vec<u8>>,
    /// Open connections to the other peer: whether each is relayed.
    pub(super) open: HashMap<ConnectionId, bool>,
    pub(super) was_relayed: bool,
    pub(super) events: Vec<Event>,
}

impl Seen {
    pub(super) fn direct(&self) -> usize {
        self.open.values().filter(|relayed| !**relayed).count()
    }

    pub(super) fn relayed(&self) -> usize {
        self.open.len() - self.direct()
    }

    pub(super) fn records(&self) -> Vec<&Record> {
        self.events
            .iter()
            .filter_map(|e| {
                if let Event::Attempt(record) = e {
                    Some(record.as_ref())
                } else {
                    None
                }
            })
            .collect()
    }
}

pub(super) struct Peer<P: Punch> {
    pub(super) swarm: Swarm<PeerBehaviour<P>>,
    pub(super) relay: PeerId,
    pub(super) seen: Seen,
}

impl<P: Punch> Peer<P>
where
    P::ToSwarm: Send + std::fmt::Debug,
{
    pub(super) async fn start(transports: &[Transport], relay: &Relay) -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(
                tcp::Config::default(),
                noise::Config::new,
                yamux::Config::default,
            )
            .unwrap()
            .with_quic()
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key, relay| PeerBehaviour {
                relay,
                identify: identify::Behaviour::new(identify::Config::new(
                    "/test/1".into(),
                    key.public(),
                )),
                ping: ping::Behaviour::default(),
                punch: P::make(key.public().to_peer_id(), transports),
            })
            .unwrap()
            .with_swarm_config(|config| {
                config.with_idle_connection_timeout(Duration::from_secs(60))
            })
            .build();
        for transport in transports {
            let addr = match transport {
                Transport::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
                Transport::Tcp => "/ip4/127.0.0.1/tcp/0",
            };
            swarm.listen_on(addr.parse().unwrap()).unwrap();
        }
        for _ in transports {
            while !matches!(
                swarm.select_next_some().await,
                SwarmEvent::NewListenAddr { .. }
            ) {}
        }
        for transport in transports {
            // Each transport's mapping is seen on a connection of its own.
            let opts = DialOpts::peer_id(relay.peer)
                .condition(PeerCondition::Always)
                .addresses(vec![relay.at(*transport)])
                .build();
            swarm.dial(opts).unwrap();
        }
        let mut peer = Self {
            swarm,
            relay: relay.peer,
            seen: Seen::default(),
        };
        peer.until(|seen| seen.relays_identified >= transports.len())
            .await;
        peer
    }

    pub(super) async fn reserve(&mut self, relay: &Relay) {
        let addr = relay
            .at(relay.addrs[0].0)
            .with(Protocol::P2p(relay.peer))
            .with(Protocol::P2pCircuit);
        self.swarm.listen_on(addr).unwrap();
        self.until(|seen| seen.reserved).await;
    }

    pub(super) fn dial_through(&mut self, relay: &Relay, other: PeerId) {
        let addr = relay
            .at(relay.addrs[0].0)
            .with(Protocol::P2p(relay.peer))
            .with(Protocol::P2pCircuit)
            .with(Protocol::P2p(other));
        self.swarm.dial(addr).unwrap();
    }

    pub(super) async fn until(&mut self, mut done: impl FnMut(&Seen) -> bool) {
        while !done(&self.seen) {
            self.step().await;
        }
    }

    pub(super) async fn step(&mut self) {
        let event = self.swarm.select_next_some().await;
        match event {
            SwarmEvent::Behaviour(PeerBehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
                ..
            })) if peer_id == self.relay => {
                P::on_identified(&mut self.swarm, connection_id, peer_id, info.observed_addr);
                self.seen.relays_identified += 1;
            }
            SwarmEvent::Behaviour(PeerBehaviourEvent::Relay(
                relay::client::Event::ReservationReqAccepted { .. },
            )) => {
                self.seen.reserved = true;
            }
            SwarmEvent::Behaviour(PeerBehaviourEvent::Punch(event)) => {
                P::note(&event, &mut self.seen)
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } if peer_id != self.relay => {
                self.seen.was_relayed |= endpoint.is_relayed();
                self.seen.open.insert(connection_id, endpoint.is_relayed());
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => {
                self.seen.open.remove(&connection_id);
            }
            _ => {}
        }
    }
}

pub(super) struct Relay {
    pub(super) peer: PeerId,
    pub(super) addrs: Vec<(Transport, Multiaddr)>,
    _task: tokio::task::JoinHandle<()>,
}

impl Relay {
    pub(super) async fn start() -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(
                tcp::Config::default(),
                noise::Config::new,
                yamux::Config::default,
            )
            .unwrap()
            .with_quic()
            .with_behaviour(|key| RelayBehaviour {
                relay: relay::Behaviour::new(key.public().to_peer_id(), relay::Config::default()),
                identify: identify::Behaviour::new(identify::Config::new(
                    "/test/1".into(),
                    key.public(),
                )),
            })
            .unwrap()
            .with_swarm_config(|config| {
                config.with_idle_connection_timeout(Duration::from_secs(60))
            })
            .build();
        let peer = *swarm.local_peer_id();
        let mut addrs = Vec::new();
        for (transport, addr) in [
            (Transport::Quic, "/ip4/127.0.0.1/udp/0/quic-v1"),
            (Transport::Tcp, "/ip4/127.0.0.1/tcp/0"),
        ] {
            swarm.listen_on(addr.parse().unwrap()).unwrap();
            let address = loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    break address;
                }
            };
            swarm.add_external_address(address.clone());
            addrs.push((transport, address));
        }
        let task = tokio::spawn(async move { while swarm.next().await.is_some() {} });
        Self {
            peer,
            addrs,
            _task: task,
        }
    }

    pub(super) fn at(&self, transport: Transport) -> Multiaddr {
        self.addrs
            .iter()
            .find(|(k, _)| *k == transport)
            .unwrap()
            .1
            .clone()
    }
}

/// The dialer of the circuit and its listener, driven together until both are content.
pub(super) async fn meet<D: Punch, L: Punch>(
    transports: &[Transport],
    done: impl Fn(&Seen, &Seen) -> bool,
) -> (Seen, Seen)
where
    D::ToSwarm: Send + std::fmt::Debug,
    L::ToSwarm: Send + std::fmt::Debug,
{
    let relay = Relay::start().await;
    let mut listener = Peer::<L>::start(transports, &relay).await;
    listener.reserve(&relay).await;
    let mut dialer = Peer::<D>::start(transports, &relay).await;
    dialer.dial_through(&relay, *listener.swarm.local_peer_id());
    let both = async {
        while !done(&dialer.seen, &listener.seen) {
            tokio::select! {
                () = dialer.step() => {}
                () = listener.step() => {}
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .is_err()
    {
        panic!(
            "dialer: {:?} {:#?}\nlistener: {:?} {:#?}",
            dialer.seen.open, dialer.seen.events, listener.seen.open, listener.seen.events
        );
    }
    (dialer.seen, listener.seen)
}

/// A peer that does not punch.
pub(super) type Mute = libp2p::swarm::dummy::Behaviour;

impl Punch for Mute {
    fn make(_: PeerId, _: &[Transport]) -> Self {
        Self
    }
}
