//! Peers that are found without any relay, and this node for its neighbours.

use std::{net::SocketAddr, time::Instant};

use libp2p::{
    Multiaddr, PeerId,
    multiaddr::Protocol,
    swarm::{
        DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use p2pnode_transports::to_socket_addr;

use super::{EventLoop, Purpose};
use crate::{
    core::dialer::{Candidate, LocalFailure},
    discovery::{Links, Presence, SearchEvent},
};

impl EventLoop {
    pub(super) fn on_search_event(&mut self, peer: PeerId, event: SearchEvent) {
        let now = Instant::now();
        match event {
            SearchEvent::Found(mut candidates) => {
                candidates.retain(|candidate| !self.is_own(candidate.host));
                let others = self.neighbours.select(&mut candidates, peer, now);
                tracing::debug!(%peer, others, ?candidates, "places where a peer may be");
                for dialer in self.dials_of(peer) {
                    dialer.handle_candidates(candidates.clone());
                }
            }
            SearchEvent::Failed(reason) => {
                for dialer in self.dials_of(peer) {
                    dialer.handle_search_failed(reason.clone());
                }
            }
            SearchEvent::Over => {
                for dialer in self.dials_of(peer) {
                    dialer.handle_searched();
                }
            }
        }
    }

    /// Dials a peer where it may be.
    pub(super) fn dial_candidate(&mut self, peer: PeerId, candidate: Candidate) {
        let opts = DialOpts::peer_id(peer)
            .addresses(candidate.addrs)
            .condition(PeerCondition::Always)
            .build();
        let host = candidate.host;
        self.dial(opts, Purpose::Local { peer, host });
    }

    /// The peer is not there, or somebody else is.
    pub(super) fn on_candidate_failed(
        &mut self,
        peer: PeerId,
        host: SocketAddr,
        error: &DialError,
        reason: String,
    ) {
        let failure = match error {
            DialError::WrongPeerId { obtained, .. } => {
                tracing::debug!(%peer, %host, %obtained, "another peer is there");
                self.neighbours.answered(host, *obtained, Instant::now());
                LocalFailure::OtherPeer
            }
            DialError::LocalPeerId { .. } => LocalFailure::OtherPeer,
            DialError::Transport(_)
            | DialError::Denied { .. }
            | DialError::NoAddresses
            | DialError::DialPeerConditionFalse(_)
            | DialError::Aborted => {
                tracing::debug!(%peer, %host, %reason, "nobody is there");
                self.neighbours.silent(&host);
                LocalFailure::NoAnswer(reason)
            }
        };
        for dialer in self.dials_of(peer) {
            dialer.handle_local_failed(host, failure.clone());
        }
    }

    /// Whether this node itself listens there.
    fn is_own(&self, host: SocketAddr) -> bool {
        let listens =
            |addr: &Multiaddr| to_socket_addr(addr).is_some_and(|at| at.port() == host.port());
        self.listeners().any(listens) && self.sockets.source_ip(host.ip()) == Some(host.ip())
    }

    fn listeners(&self) -> impl Iterator<Item = &Multiaddr> {
        let is_public = |addr: &&Multiaddr| !addr.iter().any(|part| part == Protocol::P2pCircuit);
        self.swarm.listeners().filter(is_public)
    }

    /// Tells searches the links of this host.
    pub(super) fn show_links(&mut self) {
        let links = Links::of(self.interfaces.networks());
        self.links.send_replace(links);
        self.is_moved = true;
    }

    /// Tells neighbours who ask where this node is: at its listeners and its punch ports, which accept.
    pub(super) fn announce(&mut self) {
        let Some(responder) = &self.responder else {
            return;
        };
        let ports = self.sockets.punch_ports();
        if !self.is_moved && ports == self.announced {
            return;
        }
        let links = self.links.borrow().clone();
        let mut addrs: Vec<Multiaddr> = self.listeners().cloned().collect();
        addrs.extend(self.interfaces.at(&ports));
        self.announced = ports;
        responder.announce(Presence { links, addrs });
    }
}
