//! The socket of a forward that takes datagrams. It answers from the address at which it was asked.
//!
//! Left to the kernel, an answer from a wildcard address leaves from the address that the routes choose. A client drops an answer that
//! comes from another address than the one it asked. See `IP_PKTINFO` in ip(7).

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd as _,
    task::{Context, Poll, ready},
};

use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use socket2::SockRef;
use tokio::{
    io::{Interest, ReadBuf},
    net::UdpSocket,
};

/// Where datagrams of clients come, and where answers leave.
#[derive(Debug)]
pub(super) struct ListenSocket {
    socket: UdpSocket,
    local: SocketAddr,
}

impl ListenSocket {
    pub(super) fn bind(at: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(at)?;
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        match local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => {
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            }
            IpAddr::V6(ip) if ip.is_unspecified() => {
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { socket, local })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// A datagram: from which client, and to which address.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<(SocketAddr, SocketAddr)>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let receive = || self.receive(buffer);
            match self.socket.try_io(Interest::READABLE, receive) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    fn receive(&self, buffer: &mut ReadBuf<'_>) -> io::Result<(SocketAddr, SocketAddr)> {
        let mut parts = [IoSliceMut::new(buffer.initialize_unfilled())];
        let mut control = cmsg_space!(libc::in6_pktinfo);
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        let received = recvmsg::<SockaddrStorage>(socket, &mut parts, Some(&mut control), flags)?;
        let asked = received.cmsgs()?.find_map(|message| asked(&message));
        let (bytes, client) = (received.bytes, received.address.as_ref().and_then(address));
        let client = client.ok_or(io::ErrorKind::InvalidData)?;
        buffer.advance(bytes);
        let ip = asked.unwrap_or(self.local.ip());
        Ok((client, (ip, self.local.port()).into()))
    }

    /// Sends at once: tokio would refuse what comes before it knows that the socket is writable.
    pub(super) fn send(
        &self,
        client: SocketAddr,
        from: SocketAddr,
        payload: &[u8],
    ) -> io::Result<()> {
        if !self.local.ip().is_unspecified() {
            let sent = SockRef::from(&self.socket).send_to(payload, &client.into());
            return sent.map(drop);
        }
        let (ip4, ip6);
        let control = match from.ip() {
            IpAddr::V4(ip) => {
                ip4 = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: in_addr(ip),
                    ipi_addr: in_addr(Ipv4Addr::UNSPECIFIED),
                };
                ControlMessage::Ipv4PacketInfo(&ip4)
            }
            IpAddr::V6(ip) => {
                ip6 = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: ip.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                ControlMessage::Ipv6PacketInfo(&ip6)
            }
        };
        let (parts, to) = ([IoSlice::new(payload)], SockaddrStorage::from(client));
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        sendmsg(socket, &parts, &[control], flags, Some(&to))?;
        Ok(())
    }
}

fn in_addr(ip: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(ip.octets()),
    }
}

fn asked(message: &ControlMessageOwned) -> Option<IpAddr> {
    if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
        return Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
    }
    if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
        return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
    }
    None
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let ip4 = storage.as_sockaddr_in().map(|ip4| SocketAddrV4::from(*ip4));
    let ip6 = || {
        storage
            .as_sockaddr_in6()
            .map(|ip6| SocketAddrV6::from(*ip6))
    };
    ip4.map(SocketAddr::from).or_else(|| ip6().map(Into::into))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn an_answer_leaves_from_the_address_that_the_client_has_sent_to() {
        for (wildcard, asked) in [
            ("0.0.0.0:0", "127.0.0.9"),
            ("[::]:0", "::1"),
            // IPv4 at a socket of both families.
            ("[::]:0", "127.0.0.7"),
            ("127.0.0.5:0", "127.0.0.5"),
        ] {
            let listener = ListenSocket::bind(wildcard.parse().unwrap()).unwrap();
            let asked = SocketAddr::new(asked.parse().unwrap(), listener.local().port());
            let any = match asked {
                SocketAddr::V4(_) => "0.0.0.0:0",
                SocketAddr::V6(_) => "[::]:0",
            };
            let client = std::net::UdpSocket::bind(any).unwrap();
            client.send_to(b"question", asked).unwrap();
            let mut bytes = [0; 64];
            let mut buffer = ReadBuf::new(&mut bytes);
            let (from, to) = poll_fn(|cx| listener.poll_recv(cx, &mut buffer))
                .await
                .unwrap();
            assert_eq!(buffer.filled(), b"question");
            assert_eq!(to.ip().to_canonical(), asked.ip());
            listener.send(from, to, b"answer").unwrap();
            let mut answer = [0; 64];
            let (length, source) = client.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..length], source), (&b"answer"[..], asked));
        }
    }
}
