//! Sockets with options that libp2p does not set: the only code here that uses socket2.

use p2pnode_protocol::Family;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::pin,
    time::Duration,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The wildcard address of a family, at a port.
pub(crate) const fn wildcard(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::Ip4 => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        Family::Ip6 => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
    }
}

/// Binds a UDP socket to `port` and holds it. Two sockets may share a TCP port without an error when both set
/// `SO_REUSEPORT`; a UDP bind without it fails when the port is taken, so it is the lock on a number.
pub(crate) fn lock(family: Family, port: u16) -> io::Result<UdpSocket> {
    bind_udp(wildcard(family, port), |_| Ok(()))
}

/// A UDP socket of one family, bound to `addr` once it is prepared.
fn bind_udp(
    addr: SocketAddr,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    prepare(&socket)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Whether TCP has the port in this family: a socket, or a connection that the kernel ends for nobody. Also if UDP has it.
///
/// Without `SO_REUSEADDR` a bind fails for any of them, which takes microseconds. A list of connections takes milliseconds.
pub(crate) fn is_taken(family: Family, port: u16) -> bool {
    let bind = || {
        let _lock = lock(family, port)?;
        let addr = wildcard(family, port);
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if family == Family::Ip6 {
            socket.set_only_v6(true)?;
        }
        socket.bind(&addr.into())
    };
    bind().is_err_and(|error: io::Error| error.kind() == io::ErrorKind::AddrInUse)
}

/// How much of what has arrived and what is to be sent the kernel keeps for a UDP socket, in bytes: every connection of a node or
/// a relay shares one. The kernel gives at most `net.core.rmem_max` and `wmem_max` (212,992 unless set), without an error.
const UDP_BUFFER: usize = 4 << 20;

/// A UDP socket bound to `addr`, for many connections.
///
/// # Errors
///
/// `AddrInUse` where somebody has the port, `AddrNotAvailable` where the host has not the address.
pub(crate) fn udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    bind_udp(addr, |socket| {
        socket.set_recv_buffer_size(UDP_BUFFER)?;
        socket.set_send_buffer_size(UDP_BUFFER)?;
        socket.set_nonblocking(true)
    })
}

/// The same of a socket that is bound.
///
/// # Errors
///
/// What the system says.
pub(crate) fn for_connections(socket: &UdpSocket) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_recv_buffer_size(UDP_BUFFER)?;
    socket.set_send_buffer_size(UDP_BUFFER)?;
    socket.set_nonblocking(true)
}

/// Has datagrams pass so many routers; `None` is as many as the system lets them.
///
/// # Errors
///
/// What the system says.
pub(crate) fn set_hops(socket: &tokio::net::UdpSocket, hops: Option<u8>) -> io::Result<()> {
    /// What Linux has unless it is told otherwise (RFC 1340).
    const ALL: u32 = 64;
    let is_ip6 = socket.local_addr()?.is_ipv6();
    let hops = hops.map_or(ALL, u32::from);
    let socket = SockRef::from(socket);
    match is_ip6 {
        true => socket.set_unicast_hops_v6(hops),
        false => socket.set_ttl_v4(hops),
    }
}

/// The most that a TCP packet carries, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segments {
    /// What the links of both ends take.
    Full,
    /// As much as fits wherever QUIC does.
    Small,
}

impl From<bool> for Segments {
    /// Small ones for a path that is narrow.
    fn from(is_narrow: bool) -> Self {
        match is_narrow {
            true => Self::Small,
            false => Self::Full,
        }
    }
}

/// The MSS of [`Segments::Small`]: its packets have 1,228 bytes over IPv4 and 1,248 over IPv6, those of QUIC's first datagrams
/// (RFC 9000, 14.1).
const SMALL: u32 = 1188;

/// Connects from `port` on the wildcard address to `remote`.
///
/// # Errors
///
/// Apart from what a remote answers: `AddrInUse` where the port is bound by somebody who does not share it, `AddrNotAvailable`
/// where a connection with the same 4-tuple exists (also in TIME_WAIT, if TCP timestamps are off).
pub(crate) async fn connect(
    port: u16,
    remote: SocketAddr,
    segments: Segments,
) -> io::Result<TcpStream> {
    let socket = bound(port, remote)?;
    if segments == Segments::Small {
        socket.set_tcp_mss(SMALL)?;
    }
    TcpSocket::from_std_stream(socket.into())
        .connect(remote)
        .await
}

/// Accepts connections at `port`, from which others may connect at the same time.
///
/// # Errors
///
/// `AddrInUse` where the port is bound by somebody who does not share it.
pub(crate) fn listen(family: Family, port: u16) -> io::Result<TcpListener> {
    let socket = bound(port, wildcard(family, 0))?;
    socket.listen(16)?;
    TcpListener::from_std(socket.into())
}

/// A TCP socket that connects from `port` to `remote`.
fn bound(port: u16, remote: SocketAddr) -> io::Result<Socket> {
    let family = Family::from(remote.ip());
    let socket = Socket::new(
        Domain::for_address(remote),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if family == Family::Ip6 {
        socket.set_only_v6(true)?;
    }
    // Both: the port is that of our listener, and of connections that closed a moment ago.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&wildcard(family, port).into())?;
    Ok(socket)
}

/// How long the one SYN of [`connect_once`] is waited for: less than the kernel waits before it repeats a SYN (1 s, RFC 6298).
const ONCE: Duration = Duration::from_millis(900);

/// The same with one SYN, which the kernel does not repeat unless the remote `is_vouched` by then.
///
/// # Errors
///
/// As [`connect`], and `TimedOut`.
pub(crate) async fn connect_once(
    port: u16,
    remote: SocketAddr,
    is_vouched: impl Fn() -> bool,
) -> io::Result<TcpStream> {
    let socket = bound(port, remote)?;
    // Holds also if this process gets no CPU when its own timer is due.
    socket.set_tcp_user_timeout(Some(ONCE))?;
    let same = socket.try_clone()?;
    let mut connecting = pin!(TcpSocket::from_std_stream(socket.into()).connect(remote));
    let connected = tokio::time::timeout(ONCE, &mut connecting).await;
    if connected.is_err() && !is_vouched() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    // The same SYN goes on: NATs on the way know its sequence number.
    same.set_tcp_user_timeout(None)?;
    drop(same);
    match connected {
        Ok(connected) => connected,
        Err(_) => connecting.await,
    }
}

/// Makes the close of a connection its end at once: what was not acknowledged is dropped, and the remote and the NATs on the
/// way are sent a reset.
pub(crate) fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// The source address that the host's routes give packets to `remote`.
///
/// Connecting a UDP socket looks the route up and sends nothing, so that the socket is bound outside of the range is not seen
/// by anybody.
///
/// # Errors
///
/// What the kernel says where there is no route, as `NetworkUnreachable`.
pub(crate) fn source_ip(remote: IpAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(wildcard(Family::from(remote), 0))?;
    // Any port but 0 does.
    socket.connect(SocketAddr::new(remote, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Whether this process, or the host, has as many files open as it may.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn a_locked_port_is_locked_against_everybody() {
        let held = lock(Family::Ip4, 0).unwrap();
        let port = held.local_addr().unwrap().port();
        assert_eq!(
            lock(Family::Ip4, port).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(held);
        lock(Family::Ip4, port).unwrap();
    }

    #[test]
    fn the_source_of_loopback_is_loopback() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(source_ip(loopback).unwrap(), loopback);
    }

    #[tokio::test]
    async fn a_connection_leaves_from_the_port_it_was_given() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = lock(Family::Ip4, 0).unwrap().local_addr().unwrap().port();
        let (stream, accepted) = tokio::join!(
            connect(free, listener.local_addr().unwrap(), Segments::Full),
            listener.accept()
        );
        assert_eq!(stream.unwrap().local_addr().unwrap().port(), free);
        assert_eq!(accepted.unwrap().1.port(), free);
    }
}
