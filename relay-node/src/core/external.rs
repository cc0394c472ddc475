//! Which addresses the relay advertises as its own.
//!
//! A relay speaks the [HOP protocol] only once it has an external address, and names its external addresses in every
//! reservation. The operator gives them; where none is given, the addresses on which the relay listens stand in, so that
//! it works out of the box on a host that has its public address on an interface.
//!
//! [HOP protocol]: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md

use std::{collections::BTreeSet, net::IpAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// The external addresses that are in force.
#[derive(Debug)]
pub(crate) struct ExternalAddresses {
    configured: bool,
    listening: BTreeSet<Multiaddr>,
    active: BTreeSet<Multiaddr>,
}

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
        let changes = active.iter().cloned().map(Change::Added).collect();
        (
            Self {
                configured: !configured.is_empty(),
                listening: BTreeSet::new(),
                active,
            },
            changes,
        )
    }

    /// True if the operator gave the addresses.
    pub(crate) fn configured(&self) -> bool {
        self.configured
    }

    /// Those that are in force.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Multiaddr> {
        self.active.iter()
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

    fn update(&mut self) -> Vec<Change> {
        if self.configured {
            return Vec::new();
        }
        let wanted = stand_ins(&self.listening);
        let removed = self
            .active
            .difference(&wanted)
            .cloned()
            .map(Change::Removed);
        let added = wanted.difference(&self.active).cloned().map(Change::Added);
        // What is added comes first: without any external address libp2p would stop to speak HOP in between.
        let changes = added.chain(removed).collect();
        self.active = wanted;
        changes
    }
}

/// The listen addresses that others may use: all but link-local ones, which mean nothing without an interface; loopback
/// only while there is nothing else.
fn stand_ins(listening: &BTreeSet<Multiaddr>) -> BTreeSet<Multiaddr> {
    let of = |wanted: Reach| {
        listening
            .iter()
            .filter(|a| reach(a) == Some(wanted))
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    let routed = of(Reach::Routed);
    if routed.is_empty() {
        of(Reach::Loopback)
    } else {
        routed
    }
}

/// True for an address that means nothing on another link, or on this one without the name of an interface.
pub(crate) fn is_link_local(address: &Multiaddr) -> bool {
    reach(address) == Some(Reach::Link)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Routed,
    Loopback,
    Link,
}

fn reach(address: &Multiaddr) -> Option<Reach> {
    let first = address.iter().next()?;
    let ip = if let Protocol::Ip4(ip) = first {
        IpAddr::V4(ip)
    } else if let Protocol::Ip6(ip) = first {
        IpAddr::V6(ip)
    } else {
        return None;
    };
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    Some(if ip.is_loopback() {
        Reach::Loopback
    } else if link_local {
        Reach::Link
    } else {
        Reach::Routed
    })
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
    fn link_local_addresses_are_never_given_out() {
        let (mut external, _) = ExternalAddresses::new(&[]);
        assert_eq!(external.listening(&address(LINK)), []);
        assert!(external.is_empty());
    }
}
