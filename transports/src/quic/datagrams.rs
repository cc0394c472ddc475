//! The datagrams of one connection.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use libp2p::PeerId;
use quinn::SendDatagramError;
use tokio::task::JoinHandle;

use super::{flight::Flight, tolerance};
use crate::net::datagrams::{Carrier, DatagramError, Datagrams};

/// How many bytes of datagrams wait in quinn at most, whatever the path carries. [`Flight`] bounds how long they wait.
pub(super) const SEND_BUFFER: usize = 128 << 10;

/// How many bytes of them wait in quinn for [`Carrying`], which takes them at once. quinn reads many packets in a row before others
/// have their turn: after a pause of the process of 20 ms, 250 kB at 100 Mbit/s. The longest datagram is 64 KiB.
pub(super) const RECEIVE_BUFFER: usize = 256 << 10;

/// A connection that carries datagrams, registered as long as this lives.
pub(super) struct Carrying {
    datagrams: Datagrams,
    peer: PeerId,
    carrier: Option<Arc<Quic>>,
    taking: JoinHandle<()>,
}

struct Quic {
    connection: quinn::Connection,
    flight: Option<Arc<Flight>>,
}

impl Carrying {
    /// `taken` learns how many bytes were taken from what arrived.
    pub(super) fn new(
        connection: quinn::Connection,
        peer: PeerId,
        datagrams: Datagrams,
        taken: impl Fn(usize) + Send + 'static,
    ) -> Self {
        let carrier = Arc::new(Quic {
            connection: connection.clone(),
            flight: tolerance::flight(&connection),
        });
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
        self.connection.remote_address()
    }

    fn max_size(&self) -> Option<usize> {
        let is_open = self.connection.close_reason().is_none();
        is_open
            .then(|| self.connection.max_datagram_size())
            .flatten()
    }

    fn admits_on_stream(&self, length: usize) -> bool {
        let now = tokio::time::Instant::now().into_std();
        let flight = self.flight.as_ref();
        flight.is_none_or(|flight| flight.admits_on_stream(length, now))
    }

    fn send(&self, datagram: Bytes) -> Result<(), DatagramError> {
        // One that no path takes is refused for that, whatever the path carries at present.
        let most = self.connection.max_datagram_size();
        if most.is_some_and(|most| datagram.len() <= most)
            && let Some(flight) = &self.flight
        {
            let queued = SEND_BUFFER.saturating_sub(self.connection.datagram_send_buffer_space());
            let now = tokio::time::Instant::now().into_std();
            if !flight.admits(datagram.len(), queued, now) {
                return Err(DatagramError::Congested);
            }
        }
        let sent = self.connection.send_datagram(datagram);
        sent.map_err(|error| match error {
            SendDatagramError::TooLarge => DatagramError::TooLong,
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                DatagramError::Unsupported
            }
            SendDatagramError::ConnectionLost(_) => DatagramError::Closed,
        })
    }
}
