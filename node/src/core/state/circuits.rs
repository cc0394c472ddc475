//! Over which leg to a relay a circuit goes, and what its relay reports about the other leg.

use std::time::Instant;

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_protocol::hop::HopReply;

use super::{Action, NodeState, Purpose};
use crate::core::{
    dialer::CircuitFailure,
    inquiries::Circuit,
    peers::{Hop, How, PathCause, PathKind},
};

impl NodeState {
    /// A question of [`Action::AskHop`] has ended. `connection` is that of the circuit.
    pub(crate) fn handle_hop_reply(
        &mut self,
        connection: ConnectionId,
        reply: &HopReply,
        now: Instant,
    ) {
        if let Some(circuit) = self.inquiries.handle_reply(connection, reply, now) {
            tracing::debug!(peer = %circuit.peer, relay = %circuit.relay, %connection, ?reply, "asked for the other leg of a circuit");
            self.on_hop_reply(&circuit, reply, now);
        }
        self.advance(now);
    }

    fn on_hop_reply(&mut self, circuit: &Circuit, reply: &HopReply, now: Instant) {
        if let HopReply::Leg(leg) = reply {
            if self.relays.is_configured(&circuit.relay) {
                self.actions.push_back(Action::Vouch {
                    relay: circuit.relay,
                    peer: circuit.peer,
                    near: leg.near,
                    seen: leg.seen.clone(),
                });
            }
            let hop = Hop::reported(leg);
            self.peers.handle_far_hop(circuit.connection, hop);
            self.report_path(circuit.peer, PathCause::Ranked);
        }
        // Where there is a punch, a circuit is made again after it.
        if !self.punches && self.match_families(circuit.peer, now) == FamilyMatch::Dialed {
            return;
        }
        self.report_far_hop(circuit.peer);
    }

    /// The dials of a peer need not wait for the far hop of its circuit any longer.
    pub(super) fn report_far_hop(&mut self, peer: PeerId) {
        let best = self.best_path(&peer);
        for dialer in self.dials_of(peer) {
            dialer.handle_far_hop(best.clone());
        }
    }

    /// From now on asks about the other leg of a connection, if it is a circuit whose relay is known.
    pub(super) fn inquire(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.peers.connection(id) else {
            return;
        };
        let (PathKind::Relayed, Some(relay), Some(via)) =
            (connection.path.kind, connection.path.relay, connection.via)
        else {
            return;
        };
        let circuit = Circuit {
            connection: id,
            peer: connection.peer,
            dialed: connection.path.how == How::Dialed,
            relay,
            via,
        };
        self.inquiries.handle_opened(circuit, now);
        for dialer in self.dials_of(circuit.peer) {
            dialer.await_far_hop(now);
        }
    }

    /// Asks what is to be asked.
    pub(super) fn ask_relays(&mut self, now: Instant) {
        self.inquiries.handle_timeout(now);
        while let Some((circuit, request)) = self.inquiries.poll_action() {
            self.actions.push_back(Action::AskHop(circuit, request));
        }
    }

    /// Dials a peer through a relay, over the best leg to it.
    pub(super) fn dial_circuit(
        &mut self,
        peer: PeerId,
        relay: PeerId,
        purpose: Purpose,
        now: Instant,
    ) {
        if !self.is_paced(peer, relay, now) {
            return;
        }
        if !self.relays.is_configured(&relay) {
            self.dial_known(peer, relay, purpose);
        } else if let Some(leg) = self.peers.best_leg(self.relays.up(&relay)) {
            let address = leg.addr.clone();
            self.dial_over(peer, relay, address, purpose);
        }
    }

    /// Whether a circuit may be asked for now. If not, the dials of the peer ask again later, and so does the search for a lost
    /// peer.
    pub(super) fn is_paced(&mut self, peer: PeerId, relay: PeerId, now: Instant) -> bool {
        let Err(until) = self.pace.begin(peer, relay, now) else {
            return true;
        };
        tracing::debug!(%peer, %relay, wait = ?until - now, "a circuit was asked for too often");
        for dialer in self.dials_of(peer) {
            dialer.handle_circuit_paced(relay, until);
        }
        false
    }

    /// Dials a peer through a relay that is connected at this address.
    pub(super) fn dial_over(
        &mut self,
        peer: PeerId,
        relay: PeerId,
        address: Multiaddr,
        purpose: Purpose,
    ) {
        let circuit = address
            .with(Protocol::P2p(relay))
            .with(Protocol::P2pCircuit)
            .with(Protocol::P2p(peer));
        self.dial(peer, vec![circuit], purpose);
    }

    /// A peer stays relayed for now. This node may have dialed the peer over a leg of one family while the relay reaches the peer
    /// over the other. Then the node makes the circuit again over a leg of that other family, if there is one.
    pub(super) fn match_families(&mut self, peer: PeerId, now: Instant) -> FamilyMatch {
        let Some((relay, far)) = self.peers.bridged(&peer) else {
            return FamilyMatch::NotNeeded;
        };
        let leg = self.relays.up(&relay).find(|leg| leg.family == far);
        let Some(address) = leg.map(|leg| leg.addr.clone()) else {
            return FamilyMatch::NoLeg;
        };
        if self.pace.begin(peer, relay, now).is_err() {
            return FamilyMatch::NoLeg;
        }
        tracing::info!(%peer, %relay, family = %far, "making the circuit again in the family of its far hop");
        self.dial_over(peer, relay, address, Purpose::SameFamilyCircuit(peer));
        FamilyMatch::Dialed
    }

    /// A circuit of [`NodeState::match_families`] is there: the ones that bridge families are closed.
    pub(super) fn close_bridges(&mut self, peer: PeerId) {
        let bridges = |id: &ConnectionId| {
            let path = self.peers.path(*id);
            path.is_some_and(|path| path.bridges_families())
        };
        let ids = self.peers.connections_of(&peer).iter().copied();
        let closed = ids.filter(bridges).map(Action::Close);
        self.actions.extend(closed);
    }

    /// A relay has refused a circuit. While the relay has not answered whether it admits this node, the dial gets the refusal
    /// later.
    pub(super) fn on_circuit_refused(&mut self, purpose: Purpose, reason: String, now: Instant) {
        let relay = match purpose {
            Purpose::Circuit { relay, .. }
            | Purpose::Reconnect {
                relay: Some(relay), ..
            } => Some(relay),
            Purpose::Leg(_)
            | Purpose::FoundLeg(_)
            | Purpose::Direct(_)
            | Purpose::Local { .. }
            | Purpose::SameFamilyCircuit(_)
            | Purpose::Reconnect { relay: None, .. } => None,
        };
        let refused = (purpose, reason);
        let refused = match relay {
            Some(relay) => self.joins.handle_circuit_refused(relay, refused),
            None => Some(refused),
        };
        if let Some((purpose, reason)) = refused {
            self.on_circuit_failed(purpose, CircuitFailure::Refused, reason, now);
        }
    }

    /// A circuit was not made, or a peer that was lost was not reached.
    pub(super) fn on_circuit_failed(
        &mut self,
        purpose: Purpose,
        failure: CircuitFailure,
        reason: String,
        now: Instant,
    ) {
        match purpose {
            Purpose::Circuit { peer, relay } => {
                for dialer in self.dials_of(peer) {
                    dialer.handle_circuit_failed(relay, failure, reason.clone(), now);
                }
            }
            Purpose::Reconnect { peer, relay } => {
                tracing::debug!(%peer, %reason, "a lost peer was not reached");
                if let Some(relay) = relay {
                    self.reconnector.handle_failed(&peer, &relay, now);
                }
            }
            Purpose::SameFamilyCircuit(peer) => {
                tracing::debug!(%peer, %reason, "the circuit stays as it is");
                self.report_far_hop(peer);
            }
            Purpose::Leg(_) | Purpose::FoundLeg(_) | Purpose::Direct(_) | Purpose::Local { .. } => {
            }
        }
    }
}

/// Whether a circuit is made again in the family of its far hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FamilyMatch {
    /// It is.
    Dialed,
    /// No leg of that family is up, or the circuit was asked for too often.
    NoLeg,
    /// Its hops are of one family, or the other side dialed it.
    NotNeeded,
}
