//! What routers map to this node.

use std::time::Instant;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::Family;

use super::{Action, NodeState};
use crate::core::{
    event,
    mappings::{Claim, changes},
};

impl NodeState {
    /// A router maps these ports, and those of them that are verified are reached from outside.
    pub(crate) fn handle_mapped(&mut self, claims: Vec<Claim>, now: Instant) {
        let before = std::mem::replace(&mut self.addresses.claims, claims);
        for (state, claim) in changes(&before, &self.addresses.claims) {
            self.report(event::Event::Mapping {
                t: self.t(now),
                protocol: claim.inside.protocol,
                port: claim.inside.port,
                method: claim.method,
                state,
                address: claim.verified.unwrap_or(claim.external),
            });
        }
        self.addresses.changed();
        let mapped = self.addresses.mapped();
        self.actions.push_back(Action::SetMapped(mapped));
        self.advance(now);
    }

    /// Whether a claim is about a punch port, and no other port of the range.
    pub(crate) fn is_punch_port(&self, claim: &Claim) -> bool {
        self.addresses.is_punch_port(claim)
    }

    /// What the router maps.
    pub(crate) fn claims(&self) -> &[Claim] {
        &self.addresses.claims
    }

    /// The addresses of relays to which connections are open.
    pub(crate) fn connected_addresses(&self) -> Vec<(PeerId, Multiaddr)> {
        let up = |relay: PeerId| {
            let legs: Vec<_> = self.relays.up(&relay).map(|leg| leg.addr.clone()).collect();
            legs.into_iter().map(move |addr| (relay, addr))
        };
        self.relays.relays().flat_map(up).collect()
    }

    /// A connection to each connected relay in this family, in the order of the configuration.
    pub(crate) fn legs_of(&self, family: Family) -> Vec<(PeerId, ConnectionId)> {
        let leg = |relay: PeerId| {
            let legs = self.relays.up(&relay).filter(|leg| leg.family == family);
            let connection = self.peers.best_leg(legs)?.connection;
            Some((relay, connection))
        };
        self.relays.relays().filter_map(leg).collect()
    }
}
