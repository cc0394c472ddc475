//! How a node punches, from its configuration, and what it needs of its transports.

use std::{
    any::Any,
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_transports::{Family, FamilyPolicy, Handle, Remote, Transport};

use super::{candidates::Permit, machine::Timing};
use crate::config;

/// The active punch port of each transport and family.
pub(crate) type PunchPorts = BTreeMap<(Transport, Family), u16>;

/// Gives the addresses of `punch.advertise` at these punch ports.
pub(crate) type Advertise = Arc<dyn Fn(&PunchPorts) -> Vec<Multiaddr> + Send + Sync>;

/// What is known of a circuit that has just been made.
#[derive(Debug, Clone)]
pub(crate) struct CircuitFacts {
    /// Its round trip time.
    pub(crate) rtt: Duration,
    /// The bytes that have come over it.
    pub(crate) received: Arc<AtomicU64>,
}

/// Takes what is known of the circuit to a peer that has just been made.
pub(super) type Circuits = Arc<dyn Fn(&PeerId) -> Option<CircuitFacts> + Send + Sync>;

/// How a node punches.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Whether it does at all.
    pub enabled: bool,
    /// The transports in use, best first.
    pub transports: Vec<Transport>,
    /// The IP families in use.
    pub families: FamilyPolicy,
    /// What may be sent and dialed.
    pub permit: Permit,
    /// Whether `punch.allow` names the private network of an address.
    pub names: Permit,
    /// What is offered besides what was observed.
    pub advertise: Advertise,
    /// What is known of a new circuit.
    pub circuits: Circuits,
    /// How long things take.
    pub timing: Timing,
}

impl Settings {
    /// The settings from the configuration. `timing` is the default.
    pub(crate) fn new(punch: &config::Punch, dial: &config::Dial, circuits: Circuits) -> Self {
        let permits = punch.clone();
        let names = punch.clone();
        let templates = punch.advertise.clone();
        Self {
            enabled: punch.enabled,
            transports: [(Transport::Quic, dial.quic), (Transport::Tcp, dial.tcp)]
                .iter()
                .filter(|k| k.1)
                .map(|k| k.0)
                .collect(),
            families: dial.family,
            permit: Arc::new(move |addr| permits.permits(addr)),
            names: Arc::new(move |addr| names.names(addr)),
            advertise: Arc::new(move |ports| {
                let at_port = |t: &config::AdvertiseTemplate| {
                    Some(t.with_port(*ports.get(&(t.transport(), t.family()))?))
                };
                templates.iter().filter_map(at_port).collect()
            }),
            circuits,
            timing: Timing::default(),
        }
    }
}

/// What punching needs of the transports.
pub(crate) trait Ports: Send + Sync + 'static {
    /// The active punch ports.
    fn punch_ports(&self) -> PunchPorts;

    /// Announces a punch to these addresses. While what is returned lives, a connection that one of them makes to us
    /// completes the dial that waits for it, in that dial's role.
    fn expect_punch(&self, addrs: &[Multiaddr], remote: Remote) -> Box<dyn Any + Send>;

    /// The local socket of the latest dial to this address that succeeded, if it is known.
    fn local_socket(&self, addr: &Multiaddr) -> Option<SocketAddr>;
}

impl Ports for Handle {
    fn punch_ports(&self) -> PunchPorts {
        Handle::punch_ports(self)
    }

    fn expect_punch(&self, addrs: &[Multiaddr], remote: Remote) -> Box<dyn Any + Send> {
        Box::new(Handle::expect_punch(self, addrs, remote))
    }

    fn local_socket(&self, addr: &Multiaddr) -> Option<SocketAddr> {
        self.sockets(addr).map(|sockets| sockets.local)
    }
}
