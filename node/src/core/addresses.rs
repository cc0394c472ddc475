//! Where a node is: its listeners, its punch ports, its interfaces, and which version of them each reader has seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use libp2p::{Multiaddr, core::transport::ListenerId};
use p2pnode_protocol::addr::is_circuit;
use p2pnode_transports::{Family, Transport, to_multiaddr};

/// The addresses, and which of their versions has gone where.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Public listeners, and reservations at their circuit addresses.
    pub(crate) listeners: Vec<(ListenerId, Multiaddr)>,
    pub(crate) punch_ports: BTreeMap<(Transport, Family), u16>,
    pub(crate) interfaces: BTreeSet<IpNet>,
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
    pub(crate) fn public(&self) -> impl Iterator<Item = &Multiaddr> {
        self.all().filter(|addr| !is_circuit(addr))
    }

    /// Where this node listens.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Multiaddr> {
        self.listeners.iter().map(|(_, addr)| addr)
    }

    /// The punch port of each transport and family.
    pub(crate) const fn punch_ports(&self) -> &BTreeMap<(Transport, Family), u16> {
        &self.punch_ports
    }

    /// Whether this host has an address of this family that leads beyond it.
    pub(crate) fn has_family(&self, family: Family) -> bool {
        let mut ips = self.interfaces.iter().map(IpNet::addr);
        ips.any(|ip| {
            let is_near = match ip {
                IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
                IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
            };
            Family::from(ip) == family && !is_near
        })
    }

    /// Something that the record depends on has changed.
    pub(crate) const fn changed(&mut self) {
        self.version += 1;
    }

    /// Whether the content of the record may have changed since the last call.
    pub(crate) fn are_unregistered(&mut self) -> bool {
        self.registered.is_outdated_by(self.version)
    }

    /// Whether neighbours may get other addresses than when this was asked last.
    pub(crate) fn are_unannounced(&mut self) -> bool {
        self.announced.is_outdated_by(self.version)
    }

    /// The address of each interface at the punch port of its family, for each transport.
    pub(crate) fn at_punch_ports(&self) -> Vec<Multiaddr> {
        let ips = self.interfaces.iter().map(IpNet::addr);
        let sockets = ips.flat_map(|ip| {
            let of_family = self.punch_ports.iter();
            let of_family = of_family.filter(move |((_, family), _)| *family == Family::from(ip));
            of_family.map(move |((kind, _), port)| (*kind, SocketAddr::new(ip, *port)))
        });
        sockets
            .map(|(kind, socket)| to_multiaddr(kind, socket))
            .collect()
    }
}
