//! The datagrams of one connection.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use libp2p::PeerId;
use quinn::SendDatagramError;
use tokio::task::JoinHandle;

use crate::net::datagrams::{Carrier, DatagramError, Datagrams};

/// How many bytes of datagrams wait in quinn for a congested path. Older ones give way. As many as a flow queues for a stream.
pub(super) const SEND_BUFFER: usize = 128 << 10;

/// How many bytes of them wait in quinn for [`Carrying`], which takes them at once. This is the longest datagram as well.
pub(super) const RECEIVE_BUFFER: usize = 64 << 10;

/// A connection that carries datagrams, registered as long as this lives.
pub(super) struct Carrying {
    datagrams: Datagrams,
    peer: PeerId,
    carrier: Option<Arc<Quic>>,
    taking: JoinHandle<()>,
}

struct Quic(quinn::Connection);

impl Carrying {
    /// `taken` learns how many bytes were taken from what arrived.
    pub(super) fn new(
        connection: quinn::Connection,
        peer: PeerId,
        datagrams: Datagrams,
        taken: impl Fn(usize) + Send + 'static,
    ) -> Self {
        let carrier = Arc::new(Quic(connection.clone()));
        datagrams.opened(peer, &carrier);
        let registry = datagrams.clone();
        let taking = tokio::spawn(async move {
            // Somebody has to, whether or not there is a reader: a datagram keeps the packet that it came in.
            while let Ok(datagram) = connection.read_datagram().await {
                taken(datagram.len());
                registry.received(&peer, datagram);
                tokio::task::consume_budget().await;
            }
        });
        Self {
            datagrams,
            peer,
            carrier: Some(carrier),
            taking,
        }
    }
}

impl Drop for Carrying {
    fn drop(&mut self) {
        // It holds the connection.
        self.taking.abort();
        self.carrier = None;
        self.datagrams.closed(&self.peer);
    }
}

impl Carrier for Quic {
    fn remote(&self) -> SocketAddr {
        self.0.remote_address()
    }

    fn max_size(&self) -> Option<usize> {
        let is_open = self.0.close_reason().is_none();
        is_open.then(|| self.0.max_datagram_size()).flatten()
    }

    fn send(&self, datagram: Bytes) -> Result<(), DatagramError> {
        self.0.send_datagram(datagram).map_err(|error| match error {
            SendDatagramError::TooLarge => DatagramError::TooLong,
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                DatagramError::Unsupported
            }
            SendDatagramError::ConnectionLost(_) => DatagramError::Closed,
        })
    }
}
