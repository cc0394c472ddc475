//! Direct paths that move to the next port of the range, before the NAT drops their mapping by its age.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_transports::Transport;

use super::{Action, NodeState};
use crate::{
    core::peers::{PathCause, PathKind},
    punch::{By, Record, record::Outcome},
};

/// After a move has failed or could not begin, the next try follows after this. A leg that has died of age is back by then.
const AGAIN: Duration = Duration::from_secs(3);

/// The most peers of which is remembered where they were met.
const PEERS: usize = 512;

impl NodeState {
    /// A relay sees the punch socket here.
    pub(crate) fn handle_punch_socket_seen(&mut self, at: SocketAddr, now: Instant) {
        if let Some(lifetime) = self.aging.handle_seen(at, now) {
            tracing::info!(
                ?lifetime,
                "the NAT drops mappings that are used; direct paths leave them after half of that"
            );
        }
        if let Some(relay) = self.watching {
            self.searches.handle_seen(relay, at);
        }
        self.advance(now);
    }

    /// How long the NAT keeps a mapping of the punch socket that is used, and the mapping's address.
    pub(crate) fn measured_lifetime(&self) -> Option<(IpAddr, Duration)> {
        self.aging.measured()
    }

    /// This node and the peer are known to this relay.
    pub(super) fn note_met(&mut self, peer: PeerId, relay: PeerId) {
        self.met.insert(peer, relay);
        while self.met.len() > PEERS {
            self.met.pop_first();
        }
    }

    /// Has a relay look at the punch socket, if the NAT maps it alike for all destinations.
    pub(super) fn watch_port(&mut self) {
        let is_own = |ip: IpAddr| self.addresses.interfaces.iter().any(|own| own.ip == ip);
        let stable = self.searches.stable_at();
        let stable = stable.filter(|(_, at)| self.aging.is_measured() && !is_own(at.ip()));
        let relay = stable.map(|(relay, _)| relay);
        if self.watching != relay {
            self.watching = relay;
            self.actions.push_back(Action::WatchPort(relay));
        }
    }

    /// The direct path over QUIC that a peer uses, and when it is to be left.
    fn aging_paths(&self) -> impl Iterator<Item = (PeerId, Instant)> {
        let peers = self.peers.peers().filter(|peer| !self.is_relay(peer));
        peers.filter_map(|peer| {
            let id = self.peers.best(peer)?;
            let connection = self.peers.connection(id)?;
            let path = &connection.path;
            let hop = path.hops.first()?;
            let is_quic = path.kind == PathKind::Direct && hop.transport == Some(Transport::Quic);
            let is_punch_socket = self.leaves_from_punch_port(id);
            let at = self.aging.leave_at(connection.since, is_punch_socket);
            let at = at.filter(|_| is_quic)?;
            Some((*peer, self.moves.get(peer).map_or(at, |next| at.max(*next))))
        })
    }

    /// When a path is to be left next.
    pub(super) fn next_move(&self) -> Option<Instant> {
        self.searches.stable_at()?;
        self.aging_paths().map(|(_, at)| at).min()
    }

    /// Moves the paths that are old.
    pub(super) fn move_paths(&mut self, now: Instant) {
        self.watch_port();
        if self.searches.stable_at().is_none() {
            return;
        }
        let due: Vec<PeerId> = self
            .aging_paths()
            .filter_map(|(peer, at)| (at <= now).then_some(peer))
            .collect();
        if due.is_empty() {
            return;
        }
        self.moves.retain(|_, next| *next > now);
        for peer in due {
            self.moves.insert(peer, now + AGAIN);
            let known = self.met.get(&peer).into_iter().chain(&self.introducers);
            let relay = known
                .copied()
                .find(|relay| self.relays.up(relay).next().is_some());
            if let Some(relay) = relay {
                self.searches.handle_aged(peer, relay, now);
            }
        }
    }

    /// Whether a direct connection to this peer goes to this address.
    pub(super) fn is_direct_at(&self, peer: &PeerId, ip: IpAddr) -> bool {
        let ids = self.peers.connections_of(peer).iter();
        let mut paths = ids.filter_map(|id| Some(&self.peers.connection(*id)?.path));
        paths.any(|path| {
            path.kind == PathKind::Direct && path.remote().is_some_and(|remote| remote.ip() == ip)
        })
    }

    /// If a search has found a pair for a direct peer, its path moves there; the punch machine closes the old one.
    pub(super) fn note_moved(&mut self, record: &Record, now: Instant) {
        let Outcome::Direct { connection, .. } = record.outcome else {
            return;
        };
        if record.by() == By::Search {
            self.peers.handle_punched(connection);
            if self.peers.handle_moved(connection, now) {
                self.report_moved(record.peer, connection);
            }
        }
    }

    fn report_moved(&mut self, peer: PeerId, connection: ConnectionId) {
        tracing::info!(%peer, %connection, "the path has moved to another port, before the NAT drops its mapping by age");
        if let Some(connection) = self.peers.connection(connection) {
            let cause = PathCause::Made(connection.path.how);
            self.report_path(peer, cause);
        }
        if let Some(best) = self.best_path(&peer) {
            for dialer in self.dials_of(peer) {
                dialer.handle_path(best.clone());
            }
        }
    }
}
