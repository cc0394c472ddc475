//! Addresses that can be punched: one socket of one transport.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an address may hold any of forty protocols, of which few matter here"
)]

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
pub(crate) use p2pnode_protocol::Scope;
use p2pnode_transports::{Family, Transport};

/// An address that a punch can go to: a socket and its transport. The type cannot hold names, relays and wrapped transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Candidate {
    /// The transport.
    pub(crate) transport: Transport,
    /// The socket.
    pub(crate) socket: SocketAddr,
}

impl Candidate {
    /// Reads `/ip4|ip6/../udp/../quic-v1` and `/ip4|ip6/../tcp/..`; a `/p2p` at the end is dropped.
    ///
    /// Anything else, port 0 and IPv4 addresses dressed as IPv6 ones give `None`.
    pub(crate) fn parse(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let ip = match parts.next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            Protocol::Ip6(ip) if ip.to_ipv4_mapped().is_none() => IpAddr::V6(ip),
            _ => return None,
        };
        let (transport, port) = match parts.next()? {
            Protocol::Udp(port) => {
                let Protocol::QuicV1 = parts.next()? else {
                    return None;
                };
                (Transport::Quic, port)
            }
            Protocol::Tcp(port) => (Transport::Tcp, port),
            _ => return None,
        };
        match (parts.next(), parts.next()) {
            (None | Some(Protocol::P2p(_)), None) if port != 0 => Some(Self {
                transport,
                socket: SocketAddr::new(ip, port),
            }),
            _ => None,
        }
    }

    /// The IP family.
    pub(crate) fn family(&self) -> Family {
        Family::from(self.socket.ip())
    }

    /// How far the address reaches.
    pub(crate) fn scope(&self) -> Scope {
        Scope::of(self.socket.ip())
    }

    /// The multiaddr, without a peer id.
    pub(crate) fn to_multiaddr(self) -> Multiaddr {
        let address = Multiaddr::from(self.socket.ip());
        match self.transport {
            Transport::Quic => address
                .with(Protocol::Udp(self.socket.port()))
                .with(Protocol::QuicV1),
            Transport::Tcp => address.with(Protocol::Tcp(self.socket.port())),
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_multiaddr().fmt(f)
    }
}

/// The peer id at the end of an address.
pub(crate) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last()? {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

    use super::*;

    fn parse(text: &str) -> Option<Candidate> {
        Candidate::parse(&text.parse().unwrap())
    }

    #[test]
    fn quic_and_tcp_addresses_are_read_and_written_alike() {
        for text in [
            "/ip4/1.2.3.4/udp/5/quic-v1",
            "/ip4/1.2.3.4/tcp/5",
            "/ip6/2001:db8::1/udp/5/quic-v1",
        ] {
            assert_eq!(parse(text).unwrap().to_multiaddr().to_string(), text);
        }
    }

    #[test]
    fn a_peer_id_at_the_end_is_dropped() {
        let peer = PeerId::random();
        assert_eq!(
            parse(&format!("/ip4/1.2.3.4/tcp/5/p2p/{peer}")),
            parse("/ip4/1.2.3.4/tcp/5")
        );
    }

    #[test]
    fn what_cannot_be_punched_is_no_candidate() {
        let peer = PeerId::random();
        for text in [
            "/dns4/example.net/tcp/5".to_owned(),
            "/ip4/1.2.3.4/tcp/0".to_owned(),
            "/ip4/1.2.3.4/tcp/5/ws".to_owned(),
            "/ip4/1.2.3.4/udp/5".to_owned(),
            "/ip4/1.2.3.4/udp/5/quic".to_owned(),
            "/ip6/::ffff:1.2.3.4/tcp/5".to_owned(),
            format!("/ip4/1.2.3.4/tcp/5/p2p/{peer}/p2p-circuit"),
            format!("/p2p/{peer}"),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
    }
}
