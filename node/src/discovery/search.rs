//! One search: what it may use, and what it reports.

use std::net::SocketAddr;

use libp2p::{Multiaddr, PeerId};
use p2pnode_transports::{FamilyPolicy, Transport, to_multiaddr};
use tokio::sync::mpsc;

use crate::core::dialer::Candidate;

/// The transports and families in which places are dialed.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) transports: Vec<Transport>,
    pub(super) family: FamilyPolicy,
}

/// An event of a search.
#[derive(Debug)]
pub(crate) enum SearchEvent {
    /// The peer may be there.
    Found(Vec<Candidate>),
    /// A place could not be asked: why, and what to do.
    Failed(String),
    /// The search has ended.
    Over,
}

/// Sends the events of one search.
#[derive(Debug)]
pub(super) struct EventSender {
    pub(super) peer: PeerId,
    pub(super) sender: mpsc::Sender<(PeerId, SearchEvent)>,
}

impl EventSender {
    pub(super) async fn send(&self, event: SearchEvent) {
        // An error means that the node is gone.
        let _ = self.sender.send((self.peer, event)).await;
    }
}

impl Means {
    /// The addresses of a socket, in each transport.
    pub(super) fn addrs(&self, host: SocketAddr) -> Vec<Multiaddr> {
        let addr = |transport: &Transport| to_multiaddr(*transport, host);
        self.transports.iter().map(addr).collect()
    }
}
