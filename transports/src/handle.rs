//! The node's side of its transport, while the swarm owns the transport itself.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{PeerId, multiaddr::Multiaddr};
use p2pnode_protocol::{Family, Reach, Transport};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::net::{
    addr::to_socket_addr,
    budget::Budgets,
    datagrams::Datagrams,
    error::Error,
    files::explained,
    found::FoundSocket,
    kin::Kin,
    learned::Learned,
    pool::{Exhausted, PoolCounts},
    ports::{Claim, Lease},
    punches::{PunchGuard, Punches, Remote},
    range::PortRange,
    record::Sockets,
    shared::Shared,
    socket::{self, Segments},
    stun::StunClient,
};

/// What a node reads of the transport that [`build`](crate::build) made, and the punches that it announces. Cheap to clone. Works
/// from any thread and without the swarm.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Shared,
}

impl Handle {
    /// The range of source ports.
    pub fn range(&self) -> PortRange {
        self.shared.ports.range()
    }

    /// The active punch port of each transport and family: the port that dials and accepts. A pair is missing if the
    /// configuration or the host excludes it, and as long as the range is exhausted.
    pub fn punch_ports(&self) -> BTreeMap<(Transport, Family), u16> {
        self.shared.ports.punch_ports()
    }

    /// How many ports of the range are in which state.
    pub fn pool_counts(&self) -> PoolCounts {
        self.shared.ports.counts()
    }

    /// The exhaustion of the range and what holds its ports, until a port can be had again.
    pub fn exhausted(&self) -> Option<Exhausted> {
        self.shared.ports.exhausted()
    }

    /// The exhaustion of the range while a punch socket is missing because of it. Unlike [`exhausted`](Self::exhausted), dials
    /// that only wanted another port do not count.
    pub fn unbound(&self) -> Option<Exhausted> {
        self.shared.ports.unbound()
    }

    /// The sockets of the last successful dial of this address, with or without its `/p2p/PEER`. For a name, these are the
    /// sockets of the address that won. The last 1024 addresses are remembered.
    pub fn sockets(&self, dialed: &Multiaddr) -> Option<Sockets> {
        self.shared.sockets(dialed)
    }

    /// What dials have learned about paths, as long as it may still hold.
    pub fn learned(&self) -> Vec<Learned> {
        self.shared.lessons().fresh(Instant::now()).collect()
    }

    /// What peers may make this process hold. Every peer has the largest class until [`Budgets::begin_as`] and
    /// [`Budgets::set_class`] say otherwise.
    #[must_use]
    pub fn budgets(&self) -> &Budgets {
        &self.shared.budgets
    }

    /// The peers that run these programs.
    #[must_use]
    pub fn kin(&self) -> &Kin {
        &self.shared.kin
    }

    /// The QUIC datagrams of direct connections.
    #[must_use]
    pub fn datagrams(&self) -> &Datagrams {
        &self.shared.datagrams
    }

    /// The source address that this host's routes give packets to `remote`. `None` without a route. Sends nothing.
    ///
    /// QUIC sockets are bound to the wildcard address, so this is how the local address of a QUIC connection is known.
    pub fn source_ip(&self, remote: IpAddr) -> Option<IpAddr> {
        socket::source_ip(remote).ok()
    }

    /// Whether this host has a route to `remote`. Sends nothing.
    ///
    /// # Errors
    ///
    /// What the system says if that cannot be seen, because too many files are open.
    pub fn has_route(&self, remote: IpAddr) -> io::Result<bool> {
        match socket::source_ip(remote) {
            Err(error) if socket::is_out_of_files(&error) => Err(error),
            source => Ok(source.is_ok()),
        }
    }

    /// Begins dials that lead only to addresses within `reach`, also where they dial a name; `None` is no limit. What `begin` has
    /// not begun when it returns is not limited.
    pub fn dial_within<T>(&self, reach: Option<Reach>, begin: impl FnOnce() -> T) -> T {
        self.shared.set_reach(reach);
        let begun = begin();
        self.shared.set_reach(None);
        begun
    }

    /// A UDP socket on a port of the range, for another protocol whose packets have to leave from the range as well. Nothing else
    /// of this node uses the port as long as the socket lives. Must be called inside a tokio runtime with IO enabled.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] if no port is left, [`Error::NoSocket`] if the system refuses the socket.
    pub fn claim_udp(&self, family: Family) -> Result<ClaimedUdp, Error> {
        let claimed = self.shared.ports.claim_udp(family);
        let (claim, socket) = claimed.map_err(Error::Exhausted)?;
        let opened = socket
            .set_nonblocking(true)
            .and_then(|()| UdpSocket::from_std(socket));
        match opened {
            Ok(socket) => Ok(ClaimedUdp { socket, claim }),
            Err(error) => Err(Error::NoSocket {
                transport: Transport::Quic,
                family,
                reason: explained(error).to_string(),
            }),
        }
    }

    /// Gives a claimed socket to QUIC: dials of `remote` leave from it, and what comes in there is accepted. It closes once no
    /// connection uses it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn adopt(&self, claimed: ClaimedUdp, remote: SocketAddr) -> io::Result<()> {
        let ClaimedUdp { socket, claim } = claimed;
        socket::set_hops(&socket, None)?;
        let socket = socket.into_std()?;
        self.shared.found.add(FoundSocket {
            socket,
            claim,
            remote,
        });
        Ok(())
    }

    /// A port of the range for TCP connections, which nothing else of this node uses for as long as the value lives.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] if no port is left.
    pub fn claim_tcp(&self, family: Family) -> Result<ClaimedTcp, Error> {
        let lease = self.shared.ports.lease(family).map_err(Error::Exhausted)?;
        Ok(ClaimedTcp { lease, family })
    }

    /// As [`claim_udp`](Self::claim_udp), at `port` or at a port near it. `None` if they are taken.
    #[must_use]
    pub fn claim_udp_near(&self, family: Family, port: u16) -> Option<ClaimedUdp> {
        let (claim, socket) = self.shared.ports.claim_udp_near(family, port)?;
        socket.set_nonblocking(true).ok()?;
        let socket = UdpSocket::from_std(socket).ok()?;
        Some(ClaimedUdp { socket, claim })
    }

    /// Why there is no punch socket of this transport and family: no port of the range was left for it. `None` if there is one, or
    /// if the host lacks the family.
    #[must_use]
    pub fn unbound_for(&self, transport: Transport, family: Family) -> Option<Exhausted> {
        self.shared.ports.unbound_for(transport, family)
    }

    /// Who answers QUIC at `remote`, as a handshake from the punch socket proves. The connection ends with it, and is none of the
    /// swarm's.
    ///
    /// # Errors
    ///
    /// What the handshake failed with, [`Error::NoSocket`] without a punch socket of that family.
    pub async fn identify_quic(&self, remote: SocketAddr) -> Result<PeerId, Error> {
        let family = Family::from(remote.ip());
        let identify = self.shared.identifying.quic().get(&family).cloned();
        let identify = identify.ok_or_else(|| Error::NoSocket {
            transport: Transport::Quic,
            family,
            reason: "none is open".to_owned(),
        })?;
        identify(remote).await
    }

    /// Who answers on a TCP connection to `remote`, as a handshake proves. The connection ends with it.
    ///
    /// # Errors
    ///
    /// What the handshake failed with, [`Error::TransportDisabled`] without TCP.
    pub async fn identify_tcp(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> Result<PeerId, Error> {
        let transport = Transport::Tcp;
        let identify = self.shared.identifying.tcp.get();
        let identify = identify.ok_or(Error::TransportDisabled { transport })?;
        identify(stream, remote).await
    }

    /// A TCP connection from the punch port to `remote`, alongside the port's listener. It ends with a reset, so that its 4-tuple is
    /// free at once.
    ///
    /// # Errors
    ///
    /// `NotConnected` without a punch port of that family, and what the system says.
    pub async fn connect_from_punch(
        &self,
        remote: SocketAddr,
        segments: Segments,
    ) -> io::Result<TcpStream> {
        let of = (Transport::Tcp, Family::from(remote.ip()));
        let port = self.punch_ports().get(&of).copied();
        let port = port.ok_or(io::ErrorKind::NotConnected)?;
        let stream = socket::connect(port, remote, segments).await?;
        socket::reset_on_close(&stream)?;
        Ok(stream)
    }

    /// STUN from the punch sockets of QUIC.
    #[must_use]
    pub fn stun(&self) -> &Arc<StunClient> {
        &self.shared.stun
    }

    /// Announces a punch towards these addresses. As long as the guard lives:
    ///
    /// - A QUIC dial of one of them repeats its first packet after some 30 ms, not after quinn's 300 ms.
    /// - A TCP dial of one of them stays on the punch port and goes on for 5 s where it is refused.
    /// - An inbound TCP connection from the remote completes that dial, in the role of the dial. It may come from the very
    ///   address, or else from its IP: a symmetric NAT of the remote maps another port for this node. A connection that arrives
    ///   before the dial is kept for it.
    ///
    /// If `remote` is known to support TLS, a TCP dial does not wait for its consent, which saves a round trip. A punch cannot
    /// fall back from that: the connection could not be made a second time.
    ///
    /// If `remote` is unvouched, each address gets one first packet instead, which is not repeated until something comes back.
    ///
    /// Drop the guard when the punch is decided. Until then other peers at that IP may be taken for the remote, and their
    /// connections fail. A dial in the role of the listener implies a guard of its own.
    #[must_use = "the punch is expected only as long as the guard lives"]
    pub fn expect_punch(&self, remotes: &[Multiaddr], remote: Remote) -> PunchGuard {
        let of_transport = |transport| {
            let addrs = remotes
                .iter()
                .filter(move |addr| Transport::of(addr) == Some(transport));
            addrs.filter_map(to_socket_addr).collect()
        };
        Punches::expect(
            &self.shared.punches,
            of_transport(Transport::Tcp),
            of_transport(Transport::Quic),
            remote,
        )
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("range", &self.range())
            .field("punch_ports", &self.punch_ports())
            .finish()
    }
}

/// A UDP socket on a port of the range. See [`Handle::claim_udp`].
pub struct ClaimedUdp {
    socket: UdpSocket,
    claim: Claim,
}

impl ClaimedUdp {
    /// The port that datagrams leave from.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.claim.port()
    }

    /// The socket. It is bound to the wildcard address.
    #[must_use]
    pub const fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Has datagrams that are sent from now on pass so many routers; `None` is as many as the system lets them.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_hops(&self, hops: Option<u8>) -> io::Result<()> {
        socket::set_hops(&self.socket, hops)
    }

    /// A TCP connection from the same port, which nothing else has while this value lives. Dropping it resets it, so that no
    /// `TIME_WAIT` keeps the port from the next connection to that remote.
    ///
    /// # Errors
    ///
    /// What binding or connecting failed with.
    pub async fn connect_tcp(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let (socket, any): (_, IpAddr) = match to {
            SocketAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
            SocketAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into()),
        };
        socket.set_reuseaddr(true)?;
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        socket.bind(SocketAddr::new(any, self.port()))?;
        socket.connect(to).await
    }
}

impl fmt::Debug for ClaimedUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimedUdp")
            .field("port", &self.port())
            .finish()
    }
}

/// A port of the range for TCP. See [`Handle::claim_tcp`].
pub struct ClaimedTcp {
    lease: Lease,
    family: Family,
}

impl ClaimedTcp {
    /// The port that connections leave from.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.lease.port()
    }

    /// Connects from the port to `remote`. The connection ends with a reset, so that its 4-tuple is free at once.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub async fn connect(&self, remote: SocketAddr, segments: Segments) -> io::Result<TcpStream> {
        let stream = socket::connect(self.port(), remote, segments).await?;
        socket::reset_on_close(&stream)?;
        Ok(stream)
    }

    /// Connects from the port to `remote`. The connection ends as others do, and afterwards the port rests as long as the kernel
    /// may keep its 4-tuple.
    ///
    /// # Errors
    ///
    /// What the system says: `AddrNotAvailable` if the 4-tuple is still there.
    pub async fn connect_to_end(&mut self, remote: SocketAddr) -> io::Result<TcpStream> {
        let stream = socket::connect(self.port(), remote, Segments::Full).await?;
        self.lease.connected();
        Ok(stream)
    }

    /// Accepts connections at the port.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn listen(&self) -> io::Result<TcpListener> {
        socket::listen(self.family, self.port())
    }
}

impl fmt::Debug for ClaimedTcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimedTcp")
            .field("port", &self.port())
            .finish()
    }
}
