//! What the relay knows of each connection: pure.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use libp2p::{core::ConnectedPoint, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_protocol::{Transport, hop::Leg};

/// The open connections.
#[derive(Debug, Default)]
pub(crate) struct Legs(HashMap<ConnectionId, Leg>);

impl Legs {
    /// A connection was established. One whose address says not how it travels is not known.
    pub(crate) fn established(&mut self, connection: ConnectionId, endpoint: &ConnectedPoint) {
        if let Some(leg) = leg(endpoint) {
            self.0.insert(connection, leg);
        }
    }

    /// A connection was closed.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }

    /// Ping measured a round trip.
    pub(crate) fn measured(&mut self, connection: ConnectionId, rtt: Duration) {
        if let Some(leg) = self.0.get_mut(&connection) {
            leg.rtt = Some(rtt);
        }
    }

    /// The connections of which something is known.
    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.0.keys().copied()
    }

    /// What is known of a connection.
    pub(crate) fn leg(&self, connection: ConnectionId) -> Option<Leg> {
        self.0.get(&connection).copied()
    }
}

fn leg(endpoint: &ConnectedPoint) -> Option<Leg> {
    let address = endpoint.get_remote_address();
    let first = address.iter().next()?;
    let ip = if let Protocol::Ip4(ip) = first {
        IpAddr::V4(ip)
    } else if let Protocol::Ip6(ip) = first {
        // An IPv4 peer at a socket for both families.
        ip.to_canonical()
    } else {
        return None;
    };
    Some(Leg {
        transport: Transport::of(address)?,
        family: ip.into(),
        rtt: None,
    })
}

#[cfg(test)]
mod tests {
    use p2pnode_protocol::Family;

    use super::*;

    fn known(remote: &str) -> Option<(Transport, Family)> {
        let endpoint = ConnectedPoint::Listener {
            local_addr: "/ip6/::/udp/443/quic-v1".parse().expect("a multiaddr"),
            send_back_addr: remote.parse().expect("a multiaddr"),
        };
        let (mut legs, id) = (Legs::default(), ConnectionId::new_unchecked(1));
        legs.established(id, &endpoint);
        legs.leg(id).map(|leg| (leg.transport, leg.family))
    }

    #[test]
    fn transport_and_family_are_those_of_the_packets() {
        let quic = (Transport::Quic, Family::Ip4);
        assert_eq!(known("/ip4/198.51.100.7/udp/4/quic-v1"), Some(quic));
        assert_eq!(known("/ip6/::ffff:198.51.100.7/udp/4/quic-v1"), Some(quic));
        assert_eq!(
            known("/ip6/2001:db8::7/tcp/4"),
            Some((Transport::Tcp, Family::Ip6))
        );
        assert_eq!(known("/memory/4"), None);
    }

    #[test]
    fn a_round_trip_is_remembered_until_its_connection_closes() {
        let (mut legs, id) = (Legs::default(), ConnectionId::new_unchecked(1));
        legs.measured(id, Duration::from_millis(7));
        assert!(legs.leg(id).is_none());
        let endpoint = ConnectedPoint::Listener {
            local_addr: "/ip4/203.0.113.10/tcp/443".parse().expect("a multiaddr"),
            send_back_addr: "/ip4/198.51.100.7/tcp/4".parse().expect("a multiaddr"),
        };
        legs.established(id, &endpoint);
        legs.measured(id, Duration::from_millis(7));
        assert_eq!(
            legs.leg(id).and_then(|leg| leg.rtt),
            Some(Duration::from_millis(7))
        );
        legs.closed(id);
        assert!(legs.leg(id).is_none());
    }
}
