//! Where this node is: its listeners, its punch ports, its interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use libp2p::{Multiaddr, core::transport::ListenerId, multiaddr::Protocol};
use p2pnode_transports::{Family, Transport, to_multiaddr};

use super::{Action, NodeState};
use crate::core::event;

/// The addresses, and which of their versions has gone where.
#[derive(Debug)]
pub(super) struct Addresses {
    /// Public listeners, and reservations at their circuit addresses.
    listeners: Vec<(ListenerId, Multiaddr)>,
    punch_ports: BTreeMap<(Transport, Family), u16>,
    interfaces: BTreeSet<IpAddr>,
    /// Grows with each change, also of the reservations.
    version: u64,
    announced: Seen,
    registered: Seen,
}

/// The version that one reader has seen.
#[derive(Debug, Default)]
struct Seen(u64);

impl Seen {
    /// Whether `version` is a new one, which it then no longer is.
    fn is_outdated_by(&mut self, version: u64) -> bool {
        std::mem::replace(&mut self.0, version) != version
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            punch_ports: BTreeMap::new(),
            interfaces: BTreeSet::new(),
            version: 1,
            announced: Seen::default(),
            registered: Seen::default(),
        }
    }
}

impl Addresses {
    /// Where this node listens, without its reservations.
    pub(super) fn public(&self) -> impl Iterator<Item = &Multiaddr> {
        self.all().filter(|addr| !is_circuit(addr))
    }

    /// Where this node listens.
    pub(super) fn all(&self) -> impl Iterator<Item = &Multiaddr> {
        self.listeners.iter().map(|(_, addr)| addr)
    }

    /// The punch port of each transport and family.
    pub(super) const fn punch_ports(&self) -> &BTreeMap<(Transport, Family), u16> {
        &self.punch_ports
    }

    /// Something that the record depends on has changed.
    pub(super) const fn changed(&mut self) {
        self.version += 1;
    }

    /// Whether the record may say something else than when this was asked last.
    pub(super) fn are_unregistered(&mut self) -> bool {
        self.registered.is_outdated_by(self.version)
    }

    /// The address of each interface at the punch port of its family, for each transport.
    fn at_punch_ports(&self) -> Vec<Multiaddr> {
        let sockets = self.interfaces.iter().flat_map(|ip| {
            let of_family = self.punch_ports.iter();
            let of_family = of_family.filter(|((_, family), _)| *family == Family::from(*ip));
            of_family.map(|((kind, _), port)| (*kind, SocketAddr::new(*ip, *port)))
        });
        sockets
            .map(|(kind, socket)| to_multiaddr(kind, socket))
            .collect()
    }
}

impl NodeState {
    /// A listener has this address from now on: a public one, or the circuit address of a reservation.
    pub(crate) fn handle_listening(&mut self, id: ListenerId, address: Multiaddr, now: Instant) {
        self.addresses.changed();
        self.addresses.listeners.push((id, address.clone()));
        if !is_circuit(&address) {
            tracing::info!(%address, "listening");
            self.report(event::Event::Listening { address });
        }
        self.advance(now);
    }

    /// A listener no longer has this address.
    pub(crate) fn handle_listen_expired(
        &mut self,
        id: ListenerId,
        address: &Multiaddr,
        now: Instant,
    ) {
        self.addresses.changed();
        let listeners = &mut self.addresses.listeners;
        listeners.retain(|(of, known)| (*of, known) != (id, address));
        self.advance(now);
    }

    /// A listener has ended, and with it the reservation, if it was for one.
    pub(crate) fn handle_listener_closed(&mut self, id: ListenerId, reason: &str, now: Instant) {
        self.addresses.changed();
        self.addresses.listeners.retain(|(of, _)| *of != id);
        self.on_reservation_closed(id, reason, now);
        self.advance(now);
    }

    /// The punch ports are these.
    pub(crate) fn handle_punch_ports(
        &mut self,
        ports: BTreeMap<(Transport, Family), u16>,
        now: Instant,
    ) {
        if self.addresses.punch_ports != ports {
            self.addresses.punch_ports = ports;
            self.on_interfaces();
            self.advance(now);
        }
    }

    /// This host has these addresses.
    pub(crate) fn handle_interfaces(&mut self, addresses: BTreeSet<IpAddr>, now: Instant) {
        self.addresses.interfaces = addresses;
        self.on_interfaces();
        self.advance(now);
    }

    fn on_interfaces(&mut self) {
        self.addresses.changed();
        let addresses = self.addresses.at_punch_ports();
        self.actions.push_back(Action::SetInterfaces(addresses));
    }

    /// Has neighbours who ask answered where this node is: at its listeners and its punch ports, which accept.
    pub(super) fn announce(&mut self) {
        let version = self.addresses.version;
        if self.addresses.announced.is_outdated_by(version) {
            let mut addrs: Vec<Multiaddr> = self.addresses.public().cloned().collect();
            addrs.extend(self.addresses.at_punch_ports());
            self.actions.push_back(Action::Announce(addrs));
        }
    }
}

/// Whether an address leads through a relay.
pub(super) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}
