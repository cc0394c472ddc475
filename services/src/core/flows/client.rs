//! The clients of forwards, and what they send.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use libp2p::PeerId;

use crate::{config::ServiceName, wire::SessionId};

/// A forward that listens for datagrams, numbered by the task that drives the flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ForwardId(pub u64);

/// A client at a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId {
    /// The forward.
    pub forward: ForwardId,
    /// The client.
    pub client: SocketAddr,
    /// Where it sends to: answers leave from there.
    pub listener: SocketAddr,
}

/// Whose datagrams a flow carries, and where they may go.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) to: Destinations,
}

impl Client {
    /// Whether another destination follows that of this flow.
    pub(super) fn has_next(&self, of: &PeerId, service: &ServiceName) -> bool {
        let is_last = |(name, peer): &(ServiceName, PeerId)| name == service && peer == of;
        !self.to.last().is_none_or(is_last)
    }
}

/// The services that a forward leads to, each with its peer, in the order in which they are tried.
pub type Destinations = Arc<[(ServiceName, PeerId)]>;

/// A datagram of a client, at a forward.
#[derive(Debug, Clone)]
pub struct FromClient {
    /// The client.
    pub id: ClientId,
    /// What the forward leads to.
    pub to: Destinations,
    /// 128 random bits, for a new flow.
    pub session: SessionId,
    /// The datagram.
    pub payload: Bytes,
}
