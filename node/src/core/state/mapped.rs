//! What routers map to this node.

use std::time::Instant;

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_transports::Family;

use super::{Action, NodeState};
use crate::core::{
    event::{self, MappingState},
    mappings::Claim,
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

    /// What the router maps.
    pub(crate) fn claims(&self) -> &[Claim] {
        &self.addresses.claims
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

/// What is different: a proof that is gone comes before anything that is new.
fn changes(before: &[Claim], now: &[Claim]) -> Vec<(MappingState, Claim)> {
    let of = |claims: &[Claim], claim: &Claim| {
        let same = |other: &&Claim| other.inside == claim.inside;
        claims.iter().find(same).copied()
    };
    let mut changes = Vec::new();
    for claim in before {
        match of(now, claim) {
            None => changes.push((MappingState::Lost, *claim)),
            Some(after) if claim.verified.is_some() && after.verified != claim.verified => {
                changes.push((MappingState::Withdrawn, *claim));
            }
            Some(_) => {}
        }
    }
    for claim in now {
        let earlier = of(before, claim);
        if earlier.is_none_or(|earlier| earlier.external != claim.external) {
            let unverified = Claim {
                verified: None,
                ..*claim
            };
            changes.push((MappingState::Claimed, unverified));
        }
        if claim.verified.is_some() && earlier.and_then(|of| of.verified) != claim.verified {
            changes.push((MappingState::Verified, *claim));
        }
    }
    changes
}
