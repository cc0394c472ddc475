//! Legs that have missed a ping: another connection to the relay is dialed alongside, and replaces the leg unless that answers before.

use libp2p::{PeerId, swarm::ConnectionId};

use super::{
    RelayKeeper,
    leg::{Doubt, Leg},
};

impl RelayKeeper {
    /// A leg has missed a ping: another connection is dialed alongside. Returns whether this is a leg.
    pub(crate) fn handle_doubt(&mut self, connection: ConnectionId) -> bool {
        self.leg_over(connection).map(Leg::doubt).is_some()
    }

    /// A connection has answered a ping.
    pub(crate) fn handle_answered(&mut self, connection: ConnectionId) {
        if let Some(leg) = self.leg_over(connection) {
            leg.trust();
        }
    }

    /// The same for a circuit that is asked for now: a leg to the relay answers.
    pub(crate) fn is_usable(&self, relay: &PeerId) -> bool {
        !self.holds.contains_key(relay)
            && self
                .legs
                .iter()
                .any(|leg| leg.relay.peer == *relay && leg.is_usable())
    }

    /// The dial alongside a leg has failed, if this was one.
    pub(super) fn spare_failed(&mut self, connection: ConnectionId) {
        for leg in &mut self.legs {
            if let Doubt::Dialing {
                connection: spare,
                is_over,
            } = leg.doubt
                && spare == Some(connection)
            {
                leg.doubt = match is_over {
                    true => Doubt::None,
                    false => Doubt::Failed,
                };
            }
        }
    }
}
