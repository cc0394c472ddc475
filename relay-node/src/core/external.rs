//! Which addresses the relay advertises as its own.
//!
//! A relay speaks the [HOP protocol] only once it has an external address, and names its external addresses in every reservation.
//! The operator gives them. Where none is given, addresses on which the relay listens stand in: the global ones, else the private
//! ones, else loopback. So a relay works out of the box on a host that has its public address on an interface. A peer inside a
//! private network also learns the addresses that the relay has there.
//!
//! [HOP protocol]: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
};

use ipnet::IpNet;
use libp2p::{Multiaddr, multiaddr::Protocol};
use p2pnode_protocol::Scope;
use p2pnode_transports::{HostAddress, Medium, to_socket_addr};

/// The external addresses that are in force.
#[derive(Debug)]
pub(crate) struct ExternalAddresses {
    configured: bool,
    listening: BTreeSet<Multiaddr>,
    /// The addresses of this host.
    host: BTreeSet<HostAddress>,
    active: BTreeSet<Multiaddr>,
    /// Those that are named in a reservation, the newest first.
    named: VecDeque<Multiaddr>,
}

/// The most addresses that are named in a reservation: its message has a bounded length.
const MAX_NAMED: usize = 20;

/// What becomes different.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The address became an external one.
    Added(Multiaddr),
    /// The address is no longer one.
    Removed(Multiaddr),
}

impl ExternalAddresses {
    /// Starts from what the operator gave, and from nothing if that is nothing.
    pub(crate) fn new(configured: &[Multiaddr]) -> (Self, Vec<Change>) {
        let active: BTreeSet<_> = configured.iter().cloned().collect();
        let changes: Vec<_> = active.iter().cloned().map(Change::Added).collect();
        let mut this = Self {
            configured: !configured.is_empty(),
            listening: BTreeSet::new(),
            host: BTreeSet::new(),
            active,
            named: VecDeque::new(),
        };
        this.name(&changes);
        (this, changes)
    }

    /// True if the operator gave the addresses.
    pub(crate) fn configured(&self) -> bool {
        self.configured
    }

    /// Those that the operator gave.
    pub(crate) fn given(&self) -> impl Iterator<Item = &Multiaddr> {
        self.active.iter().filter(|_| self.configured)
    }

    /// Those that are named in a reservation of a peer that is seen at this address.
    pub(crate) fn named(&self, peer: Option<IpAddr>) -> impl Iterator<Item = &Multiaddr> {
        let near = self.listening.iter().filter(move |address| {
            !self.configured
                && !self.active.contains(*address)
                && peer.is_some_and(|peer| self.serves(address, peer))
        });
        self.named.iter().chain(near).take(MAX_NAMED)
    }

    /// Whether a peer inside a private network reaches the relay at this address: one of its own network, or of a network that is
    /// more than a part of this host.
    fn serves(&self, address: &Multiaddr, peer: IpAddr) -> bool {
        let Some(ip) = ip(address).filter(|_| Scope::of(peer) == Scope::Private) else {
            return false;
        };
        let of_host = self.host.iter().find(|of| of.ip == ip);
        let network = of_host.and_then(|of| IpNet::new(of.ip, of.prefix_len).ok());
        network.is_some_and(|network| network.contains(&peer))
            || self.reach(address) == Some(Reach::Private)
    }

    fn name(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Added(address) => self.named.push_front(address.clone()),
                Change::Removed(address) => self.named.retain(|named| named != address),
            }
        }
        self.named.truncate(MAX_NAMED);
    }

    /// True if there is no address to name in a reservation.
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// A listener reported an address.
    pub(crate) fn listening(&mut self, address: &Multiaddr) -> Vec<Change> {
        self.listening.insert(address.clone());
        self.update()
    }

    /// A listener lost an address.
    pub(crate) fn expired(&mut self, address: &Multiaddr) -> Vec<Change> {
        self.listening.remove(address);
        self.update()
    }

    /// The host has these addresses.
    pub(crate) fn host(&mut self, addresses: BTreeSet<HostAddress>) -> Vec<Change> {
        self.host = addresses;
        self.update()
    }

    fn update(&mut self) -> Vec<Change> {
        if self.configured {
            return Vec::new();
        }
        let wanted = self.stand_ins();
        let removed = self
            .active
            .difference(&wanted)
            .cloned()
            .map(Change::Removed);
        let added = wanted.difference(&self.active).cloned().map(Change::Added);
        // What is added comes first: without any external address libp2p would stop to speak HOP in between.
        let changes: Vec<_> = added.chain(removed).collect();
        self.active = wanted;
        self.name(&changes);
        changes
    }

    /// The listen addresses that others may use: those that reach furthest.
    fn stand_ins(&self) -> BTreeSet<Multiaddr> {
        let reaches = self.listening.iter().filter_map(|a| self.reach(a));
        let Some(furthest) = reaches.min() else {
            return BTreeSet::new();
        };
        let of_it = |a: &&Multiaddr| self.reach(a) == Some(furthest);
        self.listening.iter().filter(of_it).cloned().collect()
    }

    fn reach(&self, address: &Multiaddr) -> Option<Reach> {
        let ip = ip(address)?;
        let of_host = self.host.iter().find(|of| of.ip == ip);
        let is_inside =
            of_host.is_some_and(|of| of.medium == Medium::Virtual && !of.has_default_route);
        let is_old = of_host.is_some_and(|of| of.is_deprecated);
        Some(match Scope::of(ip) {
            Scope::Never => return None,
            Scope::Host => Reach::Loopback,
            Scope::Global | Scope::Private if is_inside => Reach::Inside,
            Scope::Global | Scope::Private if is_old => Reach::Deprecated,
            Scope::Global => Reach::Global,
            Scope::Private => Reach::Private,
        })
    }
}

/// How far an address of the relay reaches, the furthest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Global,
    Private,
    /// Soon it will not.
    Deprecated,
    /// To containers and virtual machines of this host.
    Inside,
    Loopback,
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    to_socket_addr(address).map(|socket| socket.ip())
}

/// True for an address that means nothing on another link, or on this one without the name of an interface.
pub(crate) fn is_link_local(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_link_local(),
        Some(Protocol::Ip6(ip)) => ip.is_unicast_link_local(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a multiaddr")
    }

    const LOOPBACK: &str = "/ip4/127.0.0.1/udp/443/quic-v1";
    const PRIVATE: &str = "/ip4/10.0.0.7/udp/443/quic-v1";
    const LINK: &str = "/ip6/fe80::1/udp/443/quic-v1";
    const PUBLIC: &str = "/dns4/relay.example.net/udp/443/quic-v1";

    #[test]
    fn given_addresses_are_in_force_at_once_and_listeners_do_not_change_them() {
        let (mut external, changes) = ExternalAddresses::new(&[address(PUBLIC)]);
        assert_eq!(changes, [Change::Added(address(PUBLIC))]);
        assert_eq!(external.listening(&address(PRIVATE)), []);
        assert_eq!(external.expired(&address(PRIVATE)), []);
        assert!(!external.is_empty());
    }

    #[test]
    fn loopback_stands_in_until_something_better_is_there() {
        let (mut external, changes) = ExternalAddresses::new(&[]);
        assert_eq!(changes, []);
        assert!(external.is_empty());
        assert_eq!(
            external.listening(&address(LOOPBACK)),
            [Change::Added(address(LOOPBACK))]
        );
        assert_eq!(
            external.listening(&address(PRIVATE)),
            [
                Change::Added(address(PRIVATE)),
                Change::Removed(address(LOOPBACK))
            ]
        );
        assert_eq!(
            external.expired(&address(PRIVATE)),
            [
                Change::Added(address(LOOPBACK)),
                Change::Removed(address(PRIVATE))
            ]
        );
    }

    #[test]
    fn the_newest_addresses_are_named_first_and_not_more_than_a_message_holds() {
        let port = |port: usize| address(&format!("/ip4/192.0.2.1/tcp/{port}"));
        let (mut external, _) = ExternalAddresses::new(&[]);
        for number in 1..=MAX_NAMED + 1 {
            external.listening(&port(number));
        }
        let named: Vec<_> = external.named(None).cloned().collect();
        let newest: Vec<_> = (2..=MAX_NAMED + 1).rev().map(port).collect();
        assert_eq!(named, newest);
        external.expired(&port(3));
        assert_eq!(external.named(None).count(), MAX_NAMED - 1);
    }

    fn on(ip: &str, medium: Medium) -> HostAddress {
        HostAddress {
            medium,
            ..HostAddress::plain(ip.parse().expect("an address"), 24)
        }
    }

    #[test]
    fn strangers_learn_global_addresses_alone_and_peers_inside_also_those_of_their_networks() {
        let (mut external, _) = ExternalAddresses::new(&[]);
        external.host(BTreeSet::from([
            on("203.0.113.5", Medium::Physical),
            on("10.0.0.7", Medium::Physical),
            on("172.17.0.1", Medium::Virtual),
            on("10.244.0.1", Medium::Virtual),
            on("127.0.0.1", Medium::Loopback),
        ]));
        let tcp = |ip: &str| address(&format!("/ip4/{ip}/tcp/443"));
        for ip in [
            "127.0.0.1",
            "172.17.0.1",
            "10.0.0.7",
            "10.244.0.1",
            "203.0.113.5",
        ] {
            external.listening(&tcp(ip));
        }
        assert_eq!(external.active, BTreeSet::from([tcp("203.0.113.5")]));
        for (peer, expected) in [
            ("198.51.100.9", &["203.0.113.5"][..]),
            ("127.0.0.1", &["203.0.113.5"]),
            ("10.0.0.9", &["203.0.113.5", "10.0.0.7"]),
            ("192.168.7.7", &["203.0.113.5", "10.0.0.7"]),
            ("172.17.0.9", &["203.0.113.5", "10.0.0.7", "172.17.0.1"]),
        ] {
            let named: BTreeSet<_> = external.named(peer.parse().ok()).cloned().collect();
            assert_eq!(named, expected.iter().map(|ip| tcp(ip)).collect(), "{peer}");
        }
    }

    #[test]
    fn a_pod_advertises_the_address_of_its_default_route_though_its_interface_is_a_cable() {
        let (mut external, _) = ExternalAddresses::new(&[]);
        external.host(BTreeSet::from([
            HostAddress {
                has_default_route: true,
                ..on("10.244.0.7", Medium::Virtual)
            },
            on("172.17.0.1", Medium::Virtual),
        ]));
        let tcp = |ip: &str| address(&format!("/ip4/{ip}/tcp/443"));
        external.listening(&tcp("10.244.0.7"));
        external.listening(&tcp("172.17.0.1"));
        assert_eq!(external.active, BTreeSet::from([tcp("10.244.0.7")]));
    }

    #[test]
    fn link_local_addresses_are_never_given_out() {
        let (mut external, _) = ExternalAddresses::new(&[]);
        assert_eq!(external.listening(&address(LINK)), []);
        assert!(external.is_empty());
    }
}
