//! Single datagrams on a UDP socket that others read as well, or nothing else.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use p2pnode_protocol::stun::LARGEST;
use quinn::{
    AsyncUdpSocket, Runtime as _, TokioRuntime,
    udp::{RecvMeta, Transmit},
};
use tokio::net::TcpStream;

use crate::net::socket;

/// What takes the datagrams of STUN off a socket.
pub trait StunHandler: Send + Sync + fmt::Debug + 'static {
    /// A socket was bound, whose datagrams will come.
    fn bound(&self, socket: &StunSocket);

    /// A datagram that looks like STUN has come. Runs where the socket is read: it must not wait.
    fn datagram(&self, socket: &StunSocket, received: Received<'_>);

    /// A probe of a search for ports has come. Runs where the socket is read, too.
    fn probe(&self, received: Received<'_>) {
        let _ = received;
    }

    /// A TCP connection to a listener begins like STUN.
    fn stream(&self, stream: TcpStream) {
        drop(stream);
    }
}

/// A datagram, and where it came from and to.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its source.
    pub remote: SocketAddr,
    /// The address of this host that it came to, if the system reports it. An answer leaves from there.
    pub to: Option<IpAddr>,
}

/// A UDP socket from which single datagrams are sent and, if nothing else reads it, received. Clones are one.
#[derive(Debug, Clone)]
pub struct StunSocket(pub(crate) Arc<dyn AsyncUdpSocket>);

/// The same, without keeping the socket open.
#[derive(Debug, Clone)]
pub struct WeakStunSocket(Weak<dyn AsyncUdpSocket>);

impl StunSocket {
    /// A socket of its own, bound to `addr`. Must be called inside a tokio runtime with IO enabled.
    ///
    /// # Errors
    ///
    /// `AddrInUse` where somebody has the port, `AddrNotAvailable` where the host has not the address.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self(TokioRuntime.wrap_udp_socket(socket::udp(addr)?)?))
    }

    /// Where it is bound.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Sends one datagram, from this address of the host if it is given.
    ///
    /// # Errors
    ///
    /// What the system says, `WouldBlock` included.
    pub fn send(&self, bytes: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        self.0.try_send(&Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: None,
            src_ip: from.filter(|from| from.is_ipv4() == to.is_ipv4()),
        })
    }

    /// Hands what comes to `handler`, until the socket fails. For a socket that nothing else reads.
    pub async fn serve(&self, handler: &dyn StunHandler) -> io::Error {
        handler.bound(self);
        loop {
            let received = std::future::poll_fn(|cx| self.poll_serve(cx, handler)).await;
            if let Err(error) = received {
                return error;
            }
        }
    }

    fn poll_serve(&self, cx: &mut Context<'_>, handler: &dyn StunHandler) -> Poll<io::Result<()>> {
        // Room for what the system may have joined.
        let mut buffer = vec![0; LARGEST * self.0.max_receive_segments()];
        let mut meta = [RecvMeta::default()];
        let mut buffers = [IoSliceMut::new(&mut buffer)];
        ready!(self.0.poll_recv(cx, &mut buffers, &mut meta))?;
        for bytes in segments(&buffer[..meta[0].len], meta[0].stride) {
            handler.datagram(self, received(bytes, &meta[0]));
        }
        Poll::Ready(Ok(()))
    }

    /// The same, without keeping the socket open.
    #[must_use]
    pub fn downgrade(&self) -> WeakStunSocket {
        WeakStunSocket(Arc::downgrade(&self.0))
    }
}

impl WeakStunSocket {
    /// The socket, if it is open.
    #[must_use]
    pub fn upgrade(&self) -> Option<StunSocket> {
        self.0.upgrade().map(StunSocket)
    }
}

pub(crate) fn received<'a>(bytes: &'a [u8], meta: &RecvMeta) -> Received<'a> {
    Received {
        bytes,
        remote: meta.addr,
        to: meta.dst_ip,
    }
}

/// The datagrams that the system has joined.
pub(crate) fn segments(bytes: &[u8], stride: usize) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(stride.max(1))
}
