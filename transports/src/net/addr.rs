//! Dialable addresses, taken apart: the transport, the host, the port and the peer.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "multiaddr has forty protocols, of which a transport knows a few"
)]

use std::net::{IpAddr, SocketAddr};

use libp2p::{
    PeerId,
    multiaddr::{Multiaddr, Protocol},
};
use p2pnode_protocol::{Family, Transport};

/// The host of a [`DialAddr`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Ip(IpAddr),
    /// A name, and the family that the address restricts it to.
    Name(String, Option<Family>),
    /// A name whose TXT records hold whole addresses.
    DnsAddr(String),
}

/// A dialable address, taken apart: `/HOST/tcp/PORT[/p2p/PEER]` or `/HOST/udp/PORT/quic-v1[/p2p/PEER]`, or
/// `/dnsaddr/NAME`, which has no port. Anything before, between or behind (`/ws`, `/p2p-circuit`) is another transport's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DialAddr {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
    pub(crate) peer: Option<PeerId>,
}

impl DialAddr {
    /// `None` where the address is not of the form above, or names port 0 or an unspecified IP, which cannot be dialed.
    pub(crate) fn parse(addr: &Multiaddr) -> Option<Self> {
        let mut parts = addr.iter();
        let host = match parts.next()? {
            Protocol::Ip4(ip) => Host::Ip(ip.into()),
            Protocol::Ip6(ip) => Host::Ip(ip.into()),
            Protocol::Dns(name) => Host::Name(name.into_owned(), None),
            Protocol::Dns4(name) => Host::Name(name.into_owned(), Some(Family::Ip4)),
            Protocol::Dns6(name) => Host::Name(name.into_owned(), Some(Family::Ip6)),
            Protocol::Dnsaddr(name) => {
                let host = Host::DnsAddr(name.into_owned());
                return Some(Self {
                    host,
                    port: 0,
                    transport: Transport::Quic,
                    peer: None,
                });
            }
            _ => return None,
        };
        if matches!(&host, Host::Ip(ip) if ip.is_unspecified()) {
            return None;
        }
        let (transport, port) = match parts.next()? {
            Protocol::Tcp(port) => (Transport::Tcp, port),
            Protocol::Udp(port) => match parts.next()? {
                Protocol::QuicV1 => (Transport::Quic, port),
                _ => return None,
            },
            _ => return None,
        };
        let peer = match parts.next() {
            None => None,
            Some(Protocol::P2p(peer)) => Some(peer),
            Some(_) => return None,
        };
        (port != 0 && parts.next().is_none()).then_some(Self {
            host,
            port,
            transport,
            peer,
        })
    }

    /// The same target at an IP address that its name stands for.
    pub(crate) fn at(&self, ip: IpAddr) -> Multiaddr {
        let addr = to_multiaddr(self.transport, SocketAddr::new(ip, self.port));
        match self.peer {
            Some(peer) => addr.with(Protocol::P2p(peer)),
            None => addr,
        }
    }
}

/// The address of a socket.
pub fn to_multiaddr(transport: Transport, socket: SocketAddr) -> Multiaddr {
    let addr = Multiaddr::from(socket.ip());
    match transport {
        Transport::Quic => addr
            .with(Protocol::Udp(socket.port()))
            .with(Protocol::QuicV1),
        Transport::Tcp => addr.with(Protocol::Tcp(socket.port())),
    }
}

/// The socket address at the head of an address, whatever follows.
pub fn to_socket_addr(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The address without its trailing `/p2p/PEER`.
pub(crate) fn without_peer(addr: &Multiaddr) -> Multiaddr {
    let mut addr = addr.clone();
    if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        addr.pop();
    }
    addr
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn parse(text: &str) -> Option<DialAddr> {
        DialAddr::parse(&text.parse().unwrap())
    }

    #[test]
    fn a_target_is_a_host_a_port_a_transport_and_perhaps_a_peer() {
        let target = parse(&format!(
            "/dns4/relay.example.net/udp/443/quic-v1/p2p/{PEER}"
        ))
        .unwrap();
        assert_eq!(
            target.host,
            Host::Name("relay.example.net".into(), Some(Family::Ip4))
        );
        assert_eq!((target.port, target.transport), (443, Transport::Quic));
        assert_eq!(
            target.at("192.0.2.1".parse().unwrap()).to_string(),
            format!("/ip4/192.0.2.1/udp/443/quic-v1/p2p/{PEER}")
        );
        let target = parse("/ip6/2001:db8::1/tcp/443").unwrap();
        assert_eq!((target.transport, target.peer), (Transport::Tcp, None));
    }

    #[test]
    fn what_another_transport_serves_is_no_target() {
        for text in [
            "/ip4/192.0.2.1",
            "/ip4/192.0.2.1/udp/1",
            "/ip4/192.0.2.1/udp/1/quic",
            "/ip4/192.0.2.1/tcp/1/ws",
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::/udp/1/quic-v1",
            "/p2p-circuit",
            "/memory/1",
            &format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}/p2p-circuit"),
            &format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}"),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(DialAddr::parse(&Multiaddr::empty()), None);
    }

    #[test]
    fn only_a_trailing_peer_is_cut_off() {
        let bare: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        assert_eq!(without_peer(&bare), bare);
        assert_eq!(
            without_peer(&format!("{bare}/p2p/{PEER}").parse().unwrap()),
            bare
        );
    }

    proptest! {
        #[test]
        fn a_socket_survives_the_way_through_an_address(ip: IpAddr, port in 1..=u16::MAX, quic: bool) {
            prop_assume!(!ip.is_unspecified());
            let transport = if quic { Transport::Quic } else { Transport::Tcp };
            let addr = to_multiaddr(transport, SocketAddr::new(ip, port));
            prop_assert_eq!(to_socket_addr(&addr), Some(SocketAddr::new(ip, port)));
            prop_assert_eq!(Transport::of(&addr), Some(transport));
            prop_assert_eq!(Family::of(&addr), Some(Family::from(ip)));
            let target = DialAddr::parse(&addr).unwrap();
            prop_assert_eq!((target.host, target.port, target.transport), (Host::Ip(ip), port, transport));
        }
    }
}
