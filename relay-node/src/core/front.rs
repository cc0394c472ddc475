//! Whether a NAT stands in front of the relay and hides where its peers are. Pure.
//!
//! Such a NAT translates the source of what comes to the relay: `externalTrafficPolicy: Cluster`, docker's proxy, a router that
//! masquerades on the way in. All peers are then seen at one address, that of the relay's router or of a load balancer. Two of
//! them look as if they were behind one NAT.
//!
//! The same address may be the NAT of an office in whose network the relay is. The difference: then others are seen at addresses of
//! their own. So nothing is concluded from a peer at such an address until somebody from outside is seen elsewhere, in its family.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use libp2p::PeerId;
use p2pnode_protocol::{Family, Scope};
use p2pnode_transports::HostAddress;

/// At one address so many peers are more than one peer that happens to be there.
const MANY: usize = 2;

/// Peers that are all seen at one address, which is not theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translated {
    /// The address.
    pub source: IpAddr,
    /// How many peers are connected from there.
    pub peers: usize,
}

/// What stands in front of the relay.
#[derive(Debug, Default)]
pub(crate) struct Front {
    /// The relay's routers, and those of its external addresses that the host does not have.
    fronts: BTreeSet<IpAddr>,
    /// The addresses and the networks of the host.
    own: BTreeSet<IpAddr>,
    networks: Vec<IpNet>,
    /// Where somebody from outside was seen at another address.
    open: BTreeSet<Family>,
    /// The peers that are connected from `fronts`, with the number of their connections.
    peers: BTreeMap<IpAddr, HashMap<PeerId, usize>>,
}

impl Front {
    /// The host has these addresses and routers, and peers reach it at these addresses. `connected` are all connections.
    pub(crate) fn set(
        &mut self,
        host: &BTreeSet<HostAddress>,
        gateways: &BTreeSet<IpAddr>,
        external: impl Iterator<Item = IpAddr>,
        connected: impl Iterator<Item = (PeerId, IpAddr)>,
    ) {
        let own: BTreeSet<IpAddr> = host.iter().map(|of| of.ip).collect();
        let fronts = gateways.iter().copied().chain(external);
        self.fronts = fronts
            .filter(|ip| !own.contains(ip) && !ip.is_loopback())
            .collect();
        self.own = own;
        let network = |of: &HostAddress| IpNet::new(of.ip, of.prefix_len).ok();
        self.networks = host.iter().filter_map(network).collect();
        self.open.clear();
        self.peers.clear();
        for (peer, ip) in connected {
            self.connected(peer, ip);
        }
    }

    pub(crate) fn connected(&mut self, peer: PeerId, ip: IpAddr) {
        if self.fronts.contains(&ip) {
            *self.peers.entry(ip).or_default().entry(peer).or_default() += 1;
        } else if Scope::is_global(ip) && !self.networks.iter().any(|of| of.contains(&ip)) {
            self.open.insert(Family::from(ip));
        }
    }

    pub(crate) fn closed(&mut self, peer: &PeerId, ip: IpAddr) {
        let Some(peers) = self.peers.get_mut(&ip) else {
            return;
        };
        if let Some(connections) = peers.get_mut(peer) {
            *connections -= 1;
            if *connections == 0 {
                peers.remove(peer);
            }
        }
        if peers.is_empty() {
            self.peers.remove(&ip);
        }
    }

    /// Whether this is an address of the relay's host.
    pub(crate) fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.own.contains(&ip)
    }

    /// Whether a peer that is seen at this address may be anywhere.
    pub(crate) fn hides(&self, ip: IpAddr) -> bool {
        self.fronts.contains(&ip) && !self.open.contains(&Family::from(ip))
    }

    /// The address behind which most peers are hidden.
    pub(crate) fn translated(&self) -> Option<Translated> {
        let hidden = self
            .peers
            .iter()
            .filter(|(ip, peers)| peers.len() >= MANY && self.hides(**ip));
        let of = |(ip, peers): (&IpAddr, &HashMap<PeerId, usize>)| Translated {
            source: *ip,
            peers: peers.len(),
        };
        hidden.map(of).max_by_key(|of| of.peers)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A relay at 10.0.0.5 behind the router 10.0.0.1 and the public address 203.0.113.9.
    fn behind() -> Front {
        let mut front = Front::default();
        front.set(
            &[HostAddress::plain(ip("10.0.0.5"), 24)].into(),
            &[ip("10.0.0.1")].into(),
            [ip("203.0.113.9")].into_iter(),
            std::iter::empty(),
        );
        front
    }

    #[test]
    fn two_peers_at_the_router_and_nobody_elsewhere_are_hidden() {
        for source in [ip("10.0.0.1"), ip("203.0.113.9")] {
            let (mut front, peers) = (behind(), [PeerId::random(), PeerId::random()]);
            front.connected(peers[0], source);
            front.connected(peers[0], source);
            assert_eq!(front.translated(), None, "one peer may be there");
            assert!(front.hides(source));
            // On the relay's own link, and inside: no proof that sources of others are kept.
            front.connected(PeerId::random(), ip("10.0.0.77"));
            front.connected(PeerId::random(), ip("10.9.0.1"));
            front.connected(peers[1], source);
            assert_eq!(front.translated(), Some(Translated { source, peers: 2 }));
            front.closed(&peers[0], source);
            assert!(front.translated().is_some(), "it has another connection");
            front.closed(&peers[0], source);
            front.closed(&peers[1], source);
            assert_eq!(front.translated(), None);
            assert!(front.peers.is_empty());
        }
    }

    #[test]
    fn an_office_behind_the_relays_router_is_no_translator_once_somebody_comes_from_outside() {
        let mut front = behind();
        front.connected(PeerId::random(), ip("10.0.0.1"));
        front.connected(PeerId::random(), ip("10.0.0.1"));
        front.connected(PeerId::random(), ip("2001:db8::7"));
        assert!(front.translated().is_some(), "another family says nothing");
        front.connected(PeerId::random(), ip("198.51.100.7"));
        assert_eq!(front.translated(), None);
        assert!(!front.hides(ip("10.0.0.1")));
    }

    #[test]
    fn an_address_of_the_host_itself_hides_nobody() {
        let mut front = Front::default();
        let own = ip("203.0.113.9");
        let connected = [(PeerId::random(), own), (PeerId::random(), own)];
        front.set(
            &[HostAddress::plain(own, 24)].into(),
            &[ip("203.0.113.1")].into(),
            [own].into_iter(),
            connected.into_iter(),
        );
        assert!(!front.hides(own) && front.translated().is_none());
    }
}
