//! Where a node is: its listeners, its punch ports, its interfaces, and which version of them each reader has seen.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use libp2p::{Multiaddr, core::transport::ListenerId};
use p2pnode_protocol::{addr::is_circuit, mapping::Protocol};
use p2pnode_transports::{Family, HostAddress, Medium, Transport, to_multiaddr};

use crate::core::mappings::Claim;

/// The addresses, and which of their versions has gone where.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Public listeners, and reservations at their circuit addresses.
    pub(crate) listeners: Vec<(ListenerId, Multiaddr)>,
    pub(crate) punch_ports: BTreeMap<(Transport, Family), u16>,
    pub(crate) interfaces: BTreeSet<HostAddress>,
    /// What the router maps.
    pub(crate) claims: Vec<Claim>,
    /// The addresses from which packets leave to the relays.
    pub(crate) to_relays: BTreeSet<IpAddr>,
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
            claims: Vec::new(),
            to_relays: BTreeSet::new(),
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
        let mut ips = self.interfaces.iter().map(|address| address.ip);
        ips.any(|ip| {
            let is_near = match ip {
                IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
                IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
            };
            Family::from(ip) == family && !is_near
        })
    }

    /// Whether this host has an address.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.interfaces.iter().any(|address| address.ip == ip)
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

    /// The address of each interface at the punch port of its family, for each transport, the best address first. Few addresses are
    /// offered, so each stands there with all its transports before the next one.
    pub(crate) fn at_punch_ports(&self) -> Vec<Multiaddr> {
        let mut ranked: Vec<&HostAddress> = self.interfaces.iter().collect();
        ranked.sort_by_key(|address| Rank::of(address, &self.to_relays));
        let sockets = ranked.into_iter().flat_map(|address| {
            let ip = address.ip;
            let of_family = self.punch_ports.iter();
            let of_family = of_family.filter(move |((_, family), _)| *family == Family::from(ip));
            of_family.map(move |((kind, _), port)| (*kind, SocketAddr::new(ip, *port)))
        });
        sockets
            .map(|(kind, socket)| to_multiaddr(kind, socket))
            .collect()
    }

    /// Where the punch ports are reached because a router maps them, as a check has proved.
    pub(crate) fn mapped(&self) -> Vec<Multiaddr> {
        let proved = self.claims.iter().filter_map(|claim| {
            let at = claim.verified?;
            let transport = transport(claim);
            self.is_punch_port(claim)
                .then(|| to_multiaddr(transport, at))
        });
        proved.collect()
    }

    /// Whether a claim is about a punch port, and no other port of the range.
    pub(crate) fn is_punch_port(&self, claim: &Claim) -> bool {
        let family = Family::from(claim.external.ip());
        self.punch_ports.get(&(transport(claim), family)) == Some(&claim.inside.port)
    }

    /// The networks of this host.
    pub(crate) fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        let networks = self.interfaces.iter();
        networks.filter_map(|address| IpNet::new(address.ip, address.prefix_len).ok())
    }
}

/// The transport to which a mapped port belongs.
const fn transport(claim: &Claim) -> Transport {
    match claim.inside.protocol {
        Protocol::Udp => Transport::Quic,
        Protocol::Tcp => Transport::Tcp,
    }
}

/// How likely an address of this host is one at which others reach it. The best comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Packets to a relay leave from it: it is in use, whatever else is known about it.
    leads_to_relay: Reverse<bool>,
    is_deprecated: bool,
    has_default_route: Reverse<bool>,
    medium: Medium,
    is_running: Reverse<bool>,
    /// For an order that stays.
    ip: IpAddr,
}

impl Rank {
    fn of(address: &HostAddress, to_relays: &BTreeSet<IpAddr>) -> Self {
        Self {
            leads_to_relay: Reverse(to_relays.contains(&address.ip)),
            is_deprecated: address.is_deprecated,
            has_default_route: Reverse(address.has_default_route),
            medium: address.medium,
            is_running: Reverse(address.is_running),
            ip: address.ip,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

    use super::*;

    fn address(ip: &str) -> HostAddress {
        HostAddress::plain(ip.parse().unwrap(), 24)
    }

    fn ranked(interfaces: &[HostAddress], to_relays: &[&str]) -> Vec<String> {
        let punch_ports = [Transport::Quic, Transport::Tcp]
            .into_iter()
            .flat_map(|kind| Family::ALL.map(|family| ((kind, family), 40_000)));
        let addresses = Addresses {
            interfaces: interfaces.iter().copied().collect(),
            to_relays: to_relays.iter().map(|ip| ip.parse().unwrap()).collect(),
            punch_ports: punch_ports.collect(),
            ..Addresses::default()
        };
        let offered = addresses.at_punch_ports();
        let (pairs, []) = offered.as_chunks::<2>() else {
            panic!("{offered:?}");
        };
        let ip = |address: &Multiaddr| p2pnode_transports::to_socket_addr(address).unwrap().ip();
        assert!(pairs.iter().all(|[one, other]| ip(one) == ip(other)));
        pairs.iter().map(|[one, _]| ip(one).to_string()).collect()
    }

    #[test]
    fn the_address_of_the_default_route_comes_before_those_of_bridges_whatever_their_numbers() {
        let mut interfaces: Vec<_> = (17..=22)
            .map(|net| HostAddress {
                medium: Medium::Virtual,
                ..address(&format!("172.{net}.0.1"))
            })
            .collect();
        interfaces.extend([
            address("192.168.9.7"),
            HostAddress {
                has_default_route: true,
                ..address("192.168.1.7")
            },
            HostAddress {
                medium: Medium::Tunnel,
                ..address("10.8.0.2")
            },
        ]);
        let order = ranked(&interfaces, &[]);
        assert_eq!(
            order[..4],
            ["192.168.1.7", "192.168.9.7", "10.8.0.2", "172.17.0.1"]
        );
        assert_eq!(
            ranked(&interfaces, &["10.8.0.2"])[0],
            "10.8.0.2",
            "the way to the relay"
        );
    }

    #[test]
    fn deprecated_addresses_come_last_unless_packets_leave_from_them() {
        let old = HostAddress {
            is_deprecated: true,
            has_default_route: true,
            ..address("2001:db8::1")
        };
        let new = HostAddress {
            has_default_route: true,
            ..address("2001:db8::9")
        };
        let bridge = HostAddress {
            medium: Medium::Virtual,
            ..address("2001:db8:1::1")
        };
        let all = [old, new, bridge];
        assert_eq!(
            ranked(&all, &[]),
            ["2001:db8::9", "2001:db8:1::1", "2001:db8::1"]
        );
        assert_eq!(ranked(&all, &["2001:db8::1"])[0], "2001:db8::1");
    }
}
