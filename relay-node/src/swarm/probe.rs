//! Sends nonces to ports of peers, each from a port that the system has just chosen.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use p2pnode_protocol::{mapping::Protocol, probe::Nonce};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};
use tracing::trace;

/// Nonces at once, and how long one is tried over TCP: one SYN.
const AT_ONCE: usize = 64;
const CONNECT: Duration = Duration::from_millis(900);

/// Sends nonces.
#[derive(Debug)]
pub(crate) struct Prober(Arc<Semaphore>);

impl Default for Prober {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Prober {
    /// Begins to send a nonce, if not too many are being sent.
    pub(crate) fn send(&self, to: SocketAddr, protocol: Protocol, nonce: Nonce) {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let _place = place;
            let sent = timeout(CONNECT, send(to, protocol, &nonce.message(to))).await;
            trace!(%to, ?protocol, ?sent, "tried to reach a port of a peer");
        });
    }
}

async fn send(to: SocketAddr, protocol: Protocol, bytes: &[u8]) -> io::Result<()> {
    match protocol {
        Protocol::Udp => {
            let any: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.send_to(bytes, to).await.map(drop)
        }
        Protocol::Tcp => {
            let mut stream = TcpStream::connect(to).await?;
            stream.write_all(bytes).await?;
            stream.shutdown().await
        }
    }
}
