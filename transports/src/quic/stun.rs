//! STUN on sockets of QUIC: its datagrams are taken off before quinn reads, and others can be sent
//! ([RFC 9443](https://www.rfc-editor.org/rfc/rfc9443)).

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use p2pnode_protocol::stun::{LARGEST, is_stun};
use quinn::{
    AsyncUdpSocket, Runtime as _, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::net::TcpStream;

use crate::net::socket;

/// What takes the datagrams of STUN off a socket.
pub trait StunHandler: Send + Sync + fmt::Debug + 'static {
    /// A socket was bound, whose datagrams will come.
    fn bound(&self, socket: &Datagrams);

    /// A datagram that looks like STUN has come. Runs where the socket is read: it must not wait.
    fn datagram(&self, socket: &Datagrams, received: Received<'_>);

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
pub struct Datagrams(Arc<dyn AsyncUdpSocket>);

/// The same, without keeping the socket open.
#[derive(Debug, Clone)]
pub struct WeakDatagrams(Weak<dyn AsyncUdpSocket>);

impl Datagrams {
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
    pub fn downgrade(&self) -> WeakDatagrams {
        WeakDatagrams(Arc::downgrade(&self.0))
    }
}

impl WeakDatagrams {
    /// The socket, if it is open.
    #[must_use]
    pub fn upgrade(&self) -> Option<Datagrams> {
        self.0.upgrade().map(Datagrams)
    }
}

fn received<'a>(bytes: &'a [u8], meta: &RecvMeta) -> Received<'a> {
    Received {
        bytes,
        remote: meta.addr,
        to: meta.dst_ip,
    }
}

/// The datagrams that the system has joined.
fn segments(bytes: &[u8], stride: usize) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(stride.max(1))
}

/// A socket of QUIC that others use for STUN.
pub(super) struct SharedSocket {
    datagrams: Datagrams,
    handler: Arc<dyn StunHandler>,
}

impl SharedSocket {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, handler: &Arc<dyn StunHandler>) -> Self {
        let datagrams = Datagrams(socket);
        handler.bound(&datagrams);
        Self {
            datagrams,
            handler: Arc::clone(handler),
        }
    }

    /// Takes the datagrams of STUN out of `bytes`, of which `meta` says how many are filled.
    fn take(&self, bytes: &mut [u8], meta: &mut RecvMeta) {
        let stride = meta.stride.max(1);
        if !segments(&bytes[..meta.len], stride).any(is_stun) {
            return;
        }
        let mut kept = 0;
        let mut at = 0;
        while at < meta.len {
            let end = (at + stride).min(meta.len);
            if is_stun(&bytes[at..end]) {
                self.handler
                    .datagram(&self.datagrams, received(&bytes[at..end], meta));
            } else {
                bytes.copy_within(at..end, kept);
                kept += end - at;
            }
            at = end;
        }
        meta.len = kept;
    }
}

impl fmt::Debug for SharedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.datagrams.0.fmt(f)
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.datagrams.0).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.datagrams.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.datagrams.0.poll_recv(cx, bufs, meta))?;
        for (buf, meta) in bufs.iter_mut().zip(meta).take(received) {
            self.take(buf, meta);
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.datagrams.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.datagrams.0.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.datagrams.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.datagrams.0.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::sync::Mutex;

    use p2pnode_protocol::stun::{Class, Message, Transaction};

    use super::*;

    #[derive(Debug, Default)]
    struct Taken(Mutex<Vec<Vec<u8>>>);

    impl StunHandler for Taken {
        fn bound(&self, _: &Datagrams) {}

        fn datagram(&self, _: &Datagrams, received: Received<'_>) {
            self.0.lock().unwrap().push(received.bytes.to_vec());
        }
    }

    #[tokio::test]
    async fn stun_is_taken_out_of_datagrams_that_the_system_has_joined() {
        let taken = Arc::<Taken>::default();
        let handler: Arc<dyn StunHandler> = taken.clone();
        let socket = Datagrams::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let socket = SharedSocket::new(socket.0, &handler);
        let stun = Message::new(Class::Request, Transaction::new([7; 12])).encode();
        let quic = |first| [first; 20].to_vec();
        for (joined, left, count) in [
            (
                vec![quic(0xc1), quic(0x42)],
                vec![quic(0xc1), quic(0x42)],
                0,
            ),
            (vec![stun.clone()], vec![], 1),
            (
                vec![stun.clone(), quic(1), stun.clone(), quic(2)],
                vec![quic(1), quic(2)],
                2,
            ),
            (
                vec![quic(1), stun.clone(), vec![9; 7]],
                vec![quic(1), vec![9; 7]],
                1,
            ),
            (vec![quic(1), stun.clone()], vec![quic(1)], 1),
        ] {
            let mut bytes = joined.concat();
            let mut meta = RecvMeta {
                len: bytes.len(),
                stride: 20,
                ..RecvMeta::default()
            };
            socket.take(&mut bytes, &mut meta);
            assert_eq!(bytes[..meta.len], left.concat());
            let taken = std::mem::take(&mut *taken.0.lock().unwrap());
            assert_eq!(taken, vec![stun.clone(); count]);
        }
    }
}
