//! Datagrams beside the transports: questions to a multicast group, which leave from a port of the range, and the listener
//! that hears such questions.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use p2pnode_protocol::{Family, Transport};
use tokio::net::UdpSocket;

use crate::{
    error::Error,
    net::{
        ports::{Claim, Ports},
        socket,
    },
};

/// A link of this host, as each family names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// By an address that this host has there.
    Ip4(Ipv4Addr),
    /// By the index of its interface.
    Ip6(u32),
}

/// A UDP socket on a port of the range. See [`Handle::datagrams`](crate::Handle::datagrams).
pub struct Datagrams {
    socket: UdpSocket,
    claim: Claim,
}

impl Datagrams {
    pub(crate) fn new(ports: &Arc<Ports>, family: Family) -> Result<Self, Error> {
        let (claim, socket) = ports.datagrams(family).map_err(Error::Exhausted)?;
        let opened = socket
            .set_nonblocking(true)
            .and_then(|()| UdpSocket::from_std(socket));
        match opened {
            Ok(socket) => Ok(Self { socket, claim }),
            Err(error) => Err(Error::NoSocket {
                transport: Transport::Quic,
                family,
                reason: error.to_string(),
            }),
        }
    }

    /// The port that datagrams leave from.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.claim.port()
    }

    /// Sends a datagram to a multicast group over one link. One at a time: the link is the socket's.
    ///
    /// # Errors
    ///
    /// The system's, such as `NetworkUnreachable` or, where a firewall forbids it, `PermissionDenied`.
    pub async fn send_over(
        &mut self,
        link: Link,
        group: SocketAddr,
        datagram: &[u8],
    ) -> io::Result<()> {
        socket::set_multicast_link(&self.socket, link)?;
        self.socket.send_to(datagram, group).await.map(drop)
    }

    /// The next datagram that comes in, and where from; what does not fit into `buffer` is cut off. Nothing is lost if the
    /// future is dropped.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams")
            .field("port", &self.port())
            .finish()
    }
}

/// A UDP socket that listens for datagrams to multicast groups, beside other programs that do. What it sends are answers, from
/// its port, to whoever asked: like a public listener it lies outside the range.
#[derive(Debug)]
pub struct GroupListener(UdpSocket);

impl GroupListener {
    /// Binds the port on all addresses. Must be called inside a tokio runtime with IO enabled.
    ///
    /// # Errors
    ///
    /// The system's: `AddrInUse` where somebody has the port for himself, `PermissionDenied` below 1024.
    pub fn bind(family: Family, port: u16) -> io::Result<Self> {
        UdpSocket::from_std(socket::listen_beside_others(family, port)?).map(Self)
    }

    /// Hears what is sent to `group` over `link`, from now on. To join twice is no error.
    ///
    /// # Errors
    ///
    /// The system's; `InvalidInput` where group and link are of two families.
    pub fn join(&self, group: IpAddr, link: Link) -> io::Result<()> {
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

    /// The next datagram, and where from. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buffer).await
    }

    /// Answers whoever asked.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn answer(&self, datagram: &[u8], asker: SocketAddr) -> io::Result<()> {
        self.0.send_to(datagram, asker).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251));

    #[tokio::test]
    async fn a_question_leaves_from_the_range_and_each_listener_of_the_port_hears_it() {
        let free = socket::lock(Family::Ip4, 0)
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let ports = Ports::new(crate::PortRange::new(free, free).unwrap(), b"a");
        let mut question = Datagrams::new(&ports, Family::Ip4).unwrap();
        assert_eq!((question.port(), ports.counts().in_use), (free, 1));
        assert!(matches!(
            Datagrams::new(&ports, Family::Ip4),
            Err(Error::Exhausted(_))
        ));
        assert_eq!(ports.exhausted(), None, "no transport lacks a port");

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
        assert_eq!(ports.counts().free, 1);
    }
}
