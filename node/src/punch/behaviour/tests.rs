//! Real swarms on loopback: a relay, and two peers of our make or libp2p's.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, dcutr, identify, multiaddr::Protocol, noise, ping,
    relay, swarm::SwarmEvent, tcp, yamux,
};
use p2pnode_transports::{FamilyPolicy, Kind};

use super::*;
use crate::punch::{
    Reason,
    machine::Timing,
    record::Outcome,
    settings::{PunchPorts, Settings},
};

struct NoPorts;

impl Ports for NoPorts {
    fn punch_ports(&self) -> PunchPorts {
        PunchPorts::new()
    }

    fn expect_punch(&self, _: &[Multiaddr]) -> Box<dyn Any + Send> {
        Box::new(())
    }

    fn local_socket(&self, _: &Multiaddr) -> Option<SocketAddr> {
        None
    }
}

fn settings(kinds: &[Kind]) -> Settings {
    Settings {
        enabled: true,
        kinds: kinds.to_vec(),
        families: FamilyPolicy::Auto,
        permit: Arc::new(|_| true),
        advertise: Arc::new(|_| Vec::new()),
        timing: Timing {
            grace: Duration::from_millis(300),
            surplus_quiet: Duration::from_millis(200),
            ..Timing::default()
        },
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct RelayBehaviour {
    relay: relay::Behaviour,
    identify: identify::Behaviour,
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct PeerBehaviour<P: NetworkBehaviour> {
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    punch: P,
}

/// What a test sees of a peer's punching, whoever made it.
trait Punch: NetworkBehaviour + Sized {
    fn make(peer: PeerId, kinds: &[Kind]) -> Self;
    fn on_identified(_: &mut Swarm<PeerBehaviour<Self>>, _: ConnectionId, _: PeerId, _: Multiaddr) {
    }
    fn note(_: &Self::ToSwarm, _: &mut Seen) {}
}

impl Punch for Behaviour {
    fn make(peer: PeerId, kinds: &[Kind]) -> Self {
        Self::new(peer, settings(kinds), NoPorts)
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
        let (kind, family) = (candidate.kind, candidate.family());
        swarm.behaviour_mut().punch.observed(Observation {
            addr,
            by,
            connection,
            kind,
            family,
        });
    }

    fn note(event: &Event, seen: &mut Seen) {
        seen.events.push(event.clone());
    }
}

impl Punch for dcutr::Behaviour {
    fn make(peer: PeerId, _: &[Kind]) -> Self {
        Self::new(peer)
    }
}

#[derive(Default)]
struct Seen {
    relays_identified: usize,
    reserved: bool,
    /// Open connections to the other peer: whether each is relayed.
    open: HashMap<ConnectionId, bool>,
    was_relayed: bool,
    events: Vec<Event>,
}

impl Seen {
    fn direct(&self) -> usize {
        self.open.values().filter(|relayed| !**relayed).count()
    }

    fn relayed(&self) -> usize {
        self.open.len() - self.direct()
    }

    fn records(&self) -> Vec<&Record> {
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

struct Peer<P: Punch> {
    swarm: Swarm<PeerBehaviour<P>>,
    relay: PeerId,
    seen: Seen,
}

impl<P: Punch> Peer<P>
where
    P::ToSwarm: Send + std::fmt::Debug,
{
    async fn start(kinds: &[Kind], relay: &Relay) -> Self {
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
                punch: P::make(key.public().to_peer_id(), kinds),
            })
            .unwrap()
            .with_swarm_config(|config| {
                config.with_idle_connection_timeout(Duration::from_secs(60))
            })
            .build();
        for kind in kinds {
            let addr = match kind {
                Kind::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
                Kind::Tcp => "/ip4/127.0.0.1/tcp/0",
            };
            swarm.listen_on(addr.parse().unwrap()).unwrap();
        }
        for _ in kinds {
            while !matches!(
                swarm.select_next_some().await,
                SwarmEvent::NewListenAddr { .. }
            ) {}
        }
        for kind in kinds {
            // Each transport's mapping is seen on a connection of its own.
            let opts = DialOpts::peer_id(relay.peer)
                .condition(PeerCondition::Always)
                .addresses(vec![relay.at(*kind)])
                .build();
            swarm.dial(opts).unwrap();
        }
        let mut peer = Self {
            swarm,
            relay: relay.peer,
            seen: Seen::default(),
        };
        peer.until(|seen| seen.relays_identified >= kinds.len())
            .await;
        peer
    }

    async fn reserve(&mut self, relay: &Relay) {
        let addr = relay
            .at(relay.addrs[0].0)
            .with(Protocol::P2p(relay.peer))
            .with(Protocol::P2pCircuit);
        self.swarm.listen_on(addr).unwrap();
        self.until(|seen| seen.reserved).await;
    }

    fn dial_through(&mut self, relay: &Relay, other: PeerId) {
        let addr = relay
            .at(relay.addrs[0].0)
            .with(Protocol::P2p(relay.peer))
            .with(Protocol::P2pCircuit)
            .with(Protocol::P2p(other));
        self.swarm.dial(addr).unwrap();
    }

    async fn until(&mut self, mut done: impl FnMut(&Seen) -> bool) {
        while !done(&self.seen) {
            self.step().await;
        }
    }

    async fn step(&mut self) {
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

struct Relay {
    peer: PeerId,
    addrs: Vec<(Kind, Multiaddr)>,
    _task: tokio::task::JoinHandle<()>,
}

impl Relay {
    async fn start() -> Self {
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
        for (kind, addr) in [
            (Kind::Quic, "/ip4/127.0.0.1/udp/0/quic-v1"),
            (Kind::Tcp, "/ip4/127.0.0.1/tcp/0"),
        ] {
            swarm.listen_on(addr.parse().unwrap()).unwrap();
            let address = loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    break address;
                }
            };
            swarm.add_external_address(address.clone());
            addrs.push((kind, address));
        }
        let task = tokio::spawn(async move { while swarm.next().await.is_some() {} });
        Self {
            peer,
            addrs,
            _task: task,
        }
    }

    fn at(&self, kind: Kind) -> Multiaddr {
        self.addrs
            .iter()
            .find(|(k, _)| *k == kind)
            .unwrap()
            .1
            .clone()
    }
}

/// The dialer of the circuit and its listener, driven together until both are content.
async fn meet<D: Punch, L: Punch>(
    kinds: &[Kind],
    done: impl Fn(&Seen, &Seen) -> bool,
) -> (Seen, Seen)
where
    D::ToSwarm: Send + std::fmt::Debug,
    L::ToSwarm: Send + std::fmt::Debug,
{
    let relay = Relay::start().await;
    let mut listener = Peer::<L>::start(kinds, &relay).await;
    listener.reserve(&relay).await;
    let mut dialer = Peer::<D>::start(kinds, &relay).await;
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

fn one_direct_and_nothing_else(dialer: &Seen, listener: &Seen) -> bool {
    let settled = |seen: &Seen| seen.was_relayed && seen.direct() == 1 && seen.relayed() == 0;
    settled(dialer) && settled(listener)
}

fn is_direct(record: &&Record) -> bool {
    matches!(record.outcome, Outcome::Direct { .. })
}

#[tokio::test]
async fn two_of_ours_get_one_direct_connection_over_quic_and_the_circuit_closes() {
    let (dialer, listener) =
        meet::<Behaviour, Behaviour>(&[Kind::Quic], one_direct_and_nothing_else).await;
    assert_eq!(dialer.records().len(), 1);
    assert_eq!(dialer.records()[0].role, Role::Responder);
    assert!(dialer.records().iter().all(is_direct));
    assert_eq!(listener.records().len(), 1);
    assert_eq!(listener.records()[0].role, Role::Initiator);
    assert!(listener.records()[0].rtt.is_some());
}

#[tokio::test]
async fn two_of_ours_with_both_transports_punch_quic() {
    let (dialer, _) =
        meet::<Behaviour, Behaviour>(&[Kind::Quic, Kind::Tcp], one_direct_and_nothing_else).await;
    let record = dialer.records()[0];
    assert_eq!(record.sent.len(), 2);
    for candidate in &record.received {
        let quic = Candidate::parse(&candidate.addr).unwrap().kind == Kind::Quic;
        assert_eq!(
            quic,
            candidate.outcome != CandidateOutcome::NotDialed,
            "{record:#?}"
        );
    }
}

#[tokio::test]
async fn libp2ps_dcutr_as_the_listener_of_the_circuit_gets_direct_with_ours() {
    let direct = |dialer: &Seen, listener: &Seen| {
        dialer.direct() > 0 && listener.direct() > 0 && !dialer.events.is_empty()
    };
    let (dialer, _) = meet::<Behaviour, dcutr::Behaviour>(&[Kind::Quic], direct).await;
    assert!(dialer.records().iter().all(is_direct));
}

#[tokio::test]
async fn libp2ps_dcutr_as_the_dialer_of_the_circuit_gets_direct_with_ours() {
    let direct = |dialer: &Seen, listener: &Seen| {
        dialer.direct() > 0 && listener.direct() > 0 && !listener.events.is_empty()
    };
    let (_, listener) = meet::<dcutr::Behaviour, Behaviour>(&[Kind::Quic], direct).await;
    assert!(listener.records().iter().all(is_direct));
}

#[tokio::test]
async fn a_peer_without_dcutr_stays_relayed_and_is_said_to_lack_it() {
    let gave_up = |_: &Seen, listener: &Seen| {
        listener
            .events
            .iter()
            .any(|e| matches!(e, Event::GaveUp { .. }))
    };
    let (_, listener) = meet::<Mute, Behaviour>(&[Kind::Quic], gave_up).await;
    assert_eq!(listener.records().len(), 1);
    assert_eq!(
        listener.records()[0].outcome,
        Outcome::Failed(Reason::RemoteUnsupported)
    );
}

/// A peer that does not punch.
type Mute = libp2p::swarm::dummy::Behaviour;

impl Punch for Mute {
    fn make(_: PeerId, _: &[Kind]) -> Self {
        Self
    }
}
