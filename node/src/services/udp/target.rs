//! The socket of a flow at its target.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use p2pnode_services::config::{Address, Host};
use socket2::SockRef;
use tokio::net::UdpSocket;

use crate::services::sources::Sources;

/// Datagrams that wait until the target's name is looked up.
const WAITING: usize = 64;

/// The socket, once it is there.
#[derive(Debug, Default)]
pub(super) struct Target {
    socket: Option<Arc<UdpSocket>>,
    /// Goes before the first datagram, in the same packet.
    header: Vec<u8>,
    waiting: VecDeque<Bytes>,
}

impl Target {
    pub(super) fn connected(&mut self, socket: Arc<UdpSocket>, header: Vec<u8>) {
        self.socket = Some(socket);
        self.header = header;
        for payload in std::mem::take(&mut self.waiting) {
            self.send(payload);
        }
    }

    pub(super) fn send(&mut self, payload: Bytes) {
        let Some(socket) = &self.socket else {
            if self.waiting.len() == WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(payload);
            return;
        };
        let mut header = std::mem::take(&mut self.header);
        let sent = match header.is_empty() {
            true => send(socket, &payload),
            false => {
                header.extend_from_slice(&payload);
                send(socket, &header)
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a datagram did not reach its target");
        }
    }
}

/// Sends at once. tokio would refuse what comes before it knows that a new socket is writable.
fn send(socket: &UdpSocket, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(socket).send(bytes)
}

/// A socket that sends to `target`, as it is written, from one of `sources`.
pub(super) async fn connect(
    target: &p2pnode_services::config::Target,
    sources: Sources,
) -> io::Result<Arc<UdpSocket>> {
    let found: Vec<SocketAddr> = match target {
        Address::Udp(Host::Ip(ip), port) => vec![(*ip, *port).into()],
        Address::Udp(Host::Name(name), port) => tokio::net::lookup_host((name.as_str(), *port))
            .await?
            .collect(),
        Address::Tcp(..) | Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for remote in found {
        let connected = async {
            let socket = UdpSocket::bind(sources.local(remote)).await?;
            socket.connect(remote).await?;
            Ok(socket)
        };
        match connected.await {
            Ok(socket) => return Ok(Arc::new(socket)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
