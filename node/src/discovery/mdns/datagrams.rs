//! The sockets of multicast DNS: questions leave from a port of the range, and a listener on port 5353 hears those of others.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use p2pnode_transports::{ClaimedUdp, Error, Family, Handle};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::discovery::links::Link;

/// A socket on a port of the range, for questions.
#[derive(Debug)]
pub(super) struct Datagrams(ClaimedUdp);

impl Datagrams {
    /// # Errors
    ///
    /// As [`Handle::claim_udp`].
    pub(super) fn claim(sockets: &Handle, family: Family) -> Result<Self, Error> {
        sockets.claim_udp(family).map(Self)
    }

    /// Sends a datagram to a multicast group over one link. One at a time: the link is a setting of the socket.
    ///
    /// # Errors
    ///
    /// The system's, such as `NetworkUnreachable`, or `PermissionDenied` if a firewall forbids it.
    pub(super) async fn send_over(
        &mut self,
        link: Link,
        group: SocketAddr,
        datagram: &[u8],
    ) -> io::Result<()> {
        set_multicast_link(self.0.socket(), link)?;
        self.0.socket().send_to(datagram, group).await.map(drop)
    }

    /// The next datagram and its source; what does not fit into `buffer` is cut off. Nothing is lost if the future is dropped.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.socket().recv_from(buffer).await
    }
}

/// The link over which the next multicast datagram leaves. Its hop limit is that of multicast DNS, which shows receivers that it
/// has not passed a router ([RFC 6762](https://www.rfc-editor.org/rfc/rfc6762), section 11).
fn set_multicast_link(socket: &UdpSocket, link: Link) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match link {
        Link::Ip4(address) => {
            socket.set_multicast_ttl_v4(255)?;
            socket.set_multicast_if_v4(&address)
        }
        Link::Ip6(index) => {
            socket.set_multicast_hops_v6(255)?;
            socket.set_multicast_if_v6(index)
        }
    }
}

/// A UDP socket that listens for datagrams to multicast groups, alongside other programs that do. It sends only answers, from its
/// port to the asker: like a public listener it may lie outside the range.
#[derive(Debug)]
pub(super) struct GroupListener(UdpSocket);

impl GroupListener {
    /// Binds the port on all addresses. Must be called inside a tokio runtime with IO enabled.
    ///
    /// # Errors
    ///
    /// The system's: `AddrInUse` if another program has the port and does not share it, `PermissionDenied` below 1024.
    pub(super) fn bind(family: Family, port: u16) -> io::Result<Self> {
        UdpSocket::from_std(shared_socket(family, port)?).map(Self)
    }

    /// Joins `group` on `link`. To join twice is no error.
    ///
    /// # Errors
    ///
    /// The system's; `InvalidInput` if group and link are of two families.
    pub(super) fn join(&self, group: IpAddr, link: Link) -> io::Result<()> {
        let joined = match (group, link) {
            (IpAddr::V4(group), Link::Ip4(address)) => self.0.join_multicast_v4(group, address),
            (IpAddr::V6(group), Link::Ip6(index)) => self.0.join_multicast_v6(&group, index),
            (IpAddr::V4(_), Link::Ip6(_)) | (IpAddr::V6(_), Link::Ip4(_)) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
        };
        match joined {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
            joined => joined,
        }
    }

    /// The next datagram and its source. Nothing is lost if the future is dropped.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buffer).await
    }

    /// Answers `asker`.
    pub(super) async fn answer(&self, datagram: &[u8], asker: SocketAddr) -> io::Result<()> {
        self.0.send_to(datagram, asker).await.map(drop)
    }
}

/// A UDP socket at `port` on all addresses, alongside others of this host.
fn shared_socket(family: Family, port: u16) -> io::Result<std::net::UdpSocket> {
    let (domain, address) = match family {
        Family::Ip4 => (Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        Family::Ip6 => (Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if family == Family::Ip6 {
        socket.set_only_v6(true)?;
    }
    // Most programs ask for the one, libp2p's for the other.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use libp2p::identity::Keypair;
    use p2pnode_transports::{Config, Congestion, FamilyPolicy, PortRange, build};

    use super::*;

    const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251));

    #[tokio::test]
    async fn a_question_leaves_from_the_range_and_each_listener_of_the_port_hears_it() {
        let unused = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        let free = unused.local_addr().unwrap().port();
        drop(unused);
        // Without punch sockets: the question has the one port for itself.
        let config = Config {
            range: PortRange::new(free, free).unwrap(),
            quic: false,
            tcp: false,
            family: FamilyPolicy::Auto,
            congestion: Congestion::Cubic,
        };
        let (_transport, sockets) = build(&Keypair::generate_ed25519(), config).unwrap();
        let mut question = Datagrams::claim(&sockets, Family::Ip4).unwrap();
        assert_eq!((question.0.port(), sockets.pool_counts().in_use), (free, 1));
        assert!(matches!(
            Datagrams::claim(&sockets, Family::Ip4),
            Err(Error::Exhausted(_))
        ));
        assert_eq!(sockets.exhausted(), None, "no transport lacks a port");

        let first = GroupListener::bind(Family::Ip4, 0).unwrap();
        let port = first.0.local_addr().unwrap().port();
        let second = GroupListener::bind(Family::Ip4, port).unwrap();
        let loopback = Link::Ip4(Ipv4Addr::LOCALHOST);
        for listener in [&first, &second] {
            listener.join(GROUP, loopback).unwrap();
            listener.join(GROUP, loopback).unwrap();
        }
        let group = SocketAddr::new(GROUP, port);
        question.send_over(loopback, group, b"who?").await.unwrap();
        let mut buffer = [0; 16];
        for listener in [&first, &second] {
            let (length, from) = listener.receive(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..length], from.port()), (&b"who?"[..], free));
            listener.answer(b"me", from).await.unwrap();
            let (length, from) = question.receive(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..length], from.port()), (&b"me"[..], port));
        }
        drop(question);
        assert_eq!(sockets.pool_counts().free, 1);
    }
}
