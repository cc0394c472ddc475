//! At which address each relay sees this node, and whether a NAT on the way to the relay hides the node's own. Pure.
//!
//! A NAT in front of a relay replaces the sources of what comes in. The relay then sees its own router or load balancer, whose
//! address leads no peer to this node.

use std::{collections::BTreeMap, net::IpAddr};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::Scope;

/// Whether a NAT on the way hides a host from the relay that it reaches at `relay` and that sees it at `seen`. A relay at a private
/// address sees private ones rightly, and so does a relay that sees an address of the host.
pub(crate) fn is_hidden(relay: IpAddr, seen: IpAddr, is_own: impl FnOnce(IpAddr) -> bool) -> bool {
    Scope::is_global(relay) && Scope::of(seen) == Scope::Private && !is_own(seen)
}

/// What the open connections to relays show: which relay, at which address it was reached, and at which it sees this node.
#[derive(Debug, Default)]
pub(crate) struct Sights(BTreeMap<ConnectionId, (PeerId, IpAddr, IpAddr)>);

impl Sights {
    /// A relay that is connected at the address `at` sees this node at `seen`.
    pub(crate) fn handle_seen(
        &mut self,
        connection: ConnectionId,
        relay: PeerId,
        at: IpAddr,
        seen: IpAddr,
    ) {
        self.0.insert(connection, (relay, at, seen));
    }

    pub(crate) fn handle_closed(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }

    /// The address that a relay sees in place of this node's; `None` if one of its connections shows where the node is.
    pub(crate) fn hidden_at(
        &self,
        relay: &PeerId,
        is_own: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let mut of = self.0.values().filter(|(of, ..)| of == relay);
        let is_hidden = |(_, at, seen): &(_, IpAddr, IpAddr)| is_hidden(*at, *seen, &is_own);
        let (.., seen) = *of.clone().next()?;
        of.all(is_hidden).then_some(seen)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_host_is_hidden_only_where_a_global_relay_sees_a_private_address_that_the_host_lacks() {
        for (relay, seen, expected) in [
            ("203.0.113.9", "10.0.0.1", true),
            ("203.0.113.9", "100.64.0.7", true),
            ("2001:db8::9", "fd00::1", true),
            // Its own address, as from a relay on the same LAN.
            ("203.0.113.9", "192.168.1.7", false),
            ("203.0.113.9", "198.51.100.7", false),
            // A relay of a LAN or a VPN.
            ("10.0.0.5", "10.0.0.1", false),
            ("fd00::5", "fd00::1", false),
            // A NAT64, and a relay on this host.
            ("64:ff9b::cb00:7109", "198.51.100.7", false),
            ("203.0.113.9", "127.0.0.1", false),
        ] {
            let [relay, seen, own] = [relay, seen, "192.168.1.7"].map(|ip| ip.parse().unwrap());
            let hidden = is_hidden(relay, seen, |ip| ip == own);
            assert_eq!(hidden, expected, "{relay} sees {seen}");
        }
    }

    #[test]
    fn a_relay_hides_a_node_while_no_connection_shows_where_the_node_is() {
        let [one, other] = [PeerId::random(), PeerId::random()];
        let [a, b] = [1, 2].map(ConnectionId::new_unchecked);
        let [public, inside, router, mapped] =
            ["203.0.113.9", "10.0.0.5", "10.0.0.1", "198.51.100.7"].map(|ip| ip.parse().unwrap());
        let hidden = |sights: &Sights, relay| sights.hidden_at(relay, |_| false);
        let mut sights = Sights::default();
        assert_eq!(hidden(&sights, &one), None);
        sights.handle_seen(a, one, public, router);
        assert_eq!(hidden(&sights, &one), Some(router));
        assert_eq!(hidden(&sights, &other), None);
        assert_eq!(sights.hidden_at(&one, |ip| ip == router), None);
        for (at, seen) in [(public, mapped), (inside, router)] {
            sights.handle_seen(b, one, at, seen);
            assert_eq!(hidden(&sights, &one), None);
        }
        sights.handle_closed(b);
        assert_eq!(hidden(&sights, &one), Some(router));
        sights.handle_closed(a);
        assert_eq!(hidden(&sights, &one), None);
    }
}
