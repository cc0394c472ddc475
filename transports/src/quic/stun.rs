//! STUN on sockets of QUIC: its datagrams are taken off before quinn reads
//! ([RFC 9443](https://www.rfc-editor.org/rfc/rfc9443)).

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use p2pnode_protocol::{port_search::is_probe, stun::is_stun};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use crate::net::stun_socket::{StunHandler, StunSocket, received, segments};

/// A socket of QUIC that others use for STUN.
pub(super) struct SharedSocket {
    datagrams: StunSocket,
    handler: Arc<dyn StunHandler>,
}

impl SharedSocket {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, handler: &Arc<dyn StunHandler>) -> Self {
        Self {
            datagrams: StunSocket(socket),
            handler: Arc::clone(handler),
        }
    }

    /// Has the handler send from this socket.
    pub(super) fn announce(&self) {
        self.handler.bound(&self.datagrams);
    }

    /// Takes the datagrams of STUN, and probes, out of `bytes`, of which `meta` says how many are filled.
    fn take(&self, bytes: &mut [u8], meta: &mut RecvMeta) {
        let stride = meta.stride.max(1);
        let is_taken = |bytes: &[u8]| is_stun(bytes) || is_probe(bytes);
        if !segments(&bytes[..meta.len], stride).any(is_taken) {
            return;
        }
        let mut kept = 0;
        let mut at = 0;
        while at < meta.len {
            let end = (at + stride).min(meta.len);
            if is_stun(&bytes[at..end]) {
                self.handler
                    .datagram(&self.datagrams, received(&bytes[at..end], meta));
            } else if is_probe(&bytes[at..end]) {
                self.handler.probe(received(&bytes[at..end], meta));
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
    use crate::net::stun_socket::Received;

    #[derive(Debug, Default)]
    struct Taken(Mutex<Vec<Vec<u8>>>);

    impl StunHandler for Taken {
        fn bound(&self, _: &StunSocket) {}

        fn datagram(&self, _: &StunSocket, received: Received<'_>) {
            self.0.lock().unwrap().push(received.bytes.to_vec());
        }
    }

    #[tokio::test]
    async fn stun_is_taken_out_of_datagrams_that_the_system_has_joined() {
        let taken = Arc::<Taken>::default();
        let handler: Arc<dyn StunHandler> = taken.clone();
        let socket = StunSocket::bind(([127, 0, 0, 1], 0).into()).unwrap();
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
