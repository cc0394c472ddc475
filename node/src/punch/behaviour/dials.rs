//! The dials of the machine in the swarm: each address is a dial of its own there.

use std::collections::HashMap;

use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        ConnectionId, DialFailure,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::outcome;
use crate::punch::{
    address::Candidate,
    machine::DialId,
    record::{CandidateOutcome, Role},
};

/// The dials of the machine that have not ended.
#[derive(Default)]
pub(super) struct Dials {
    /// The dials of the swarm, one address each.
    addrs: HashMap<ConnectionId, Dialing>,
    rounds: HashMap<DialId, Round>,
}

/// One address of a dial of the machine.
struct Dialing {
    peer: PeerId,
    dial: DialId,
    addr: Multiaddr,
}

/// The state of a dial of the machine.
#[derive(Default)]
struct Round {
    /// Addresses whose outcome is not known yet.
    open: usize,
    /// Whether one of them connected.
    connected: bool,
    /// The outcomes of the others.
    outcomes: Vec<(Candidate, CandidateOutcome)>,
}

/// A dial of the machine of which every address failed.
pub(super) struct Failed {
    pub(super) peer: PeerId,
    pub(super) dial: DialId,
    pub(super) outcomes: Vec<(Candidate, CandidateOutcome)>,
}

impl Dials {
    /// Dials each address by itself. In a single dial of the swarm the first address that connects ends the others. Each side
    /// would then end the connection that the other side has chosen, and none would be left. So all connections stay, and the
    /// machines agree on the one that survives.
    pub(super) fn begin(
        &mut self,
        peer: PeerId,
        dial: DialId,
        addrs: Vec<Multiaddr>,
        role: Role,
    ) -> Vec<DialOpts> {
        self.rounds.entry(dial).or_default().open = addrs.len();
        addrs
            .into_iter()
            .map(|addr| {
                let opts = DialOpts::peer_id(peer)
                    .condition(PeerCondition::Always)
                    .addresses(vec![addr.clone()]);
                let opts = match role {
                    Role::Initiator => opts.override_role().build(),
                    Role::Responder => opts.build(),
                };
                let dialing = Dialing { peer, dial, addr };
                self.addrs.insert(opts.connection_id(), dialing);
                opts
            })
            .collect()
    }

    /// A direct connection was established.
    pub(super) fn handle_connected(&mut self, connection: ConnectionId) {
        if let Some(Dialing { dial, .. }) = self.addrs.remove(&connection)
            && let Some(round) = self.rounds.get_mut(&dial)
        {
            round.connected = true;
            round.open -= 1;
            if round.open == 0 {
                self.rounds.remove(&dial);
            }
        }
    }

    /// A dial of the swarm failed. `Some` if it was the last address of a dial of the machine, and none has connected.
    pub(super) fn handle_failed(&mut self, failure: DialFailure<'_>) -> Option<Failed> {
        let Dialing { peer, dial, addr } = self.addrs.remove(&failure.connection_id)?;
        tracing::debug!(%peer, connection = %failure.connection_id, error = %failure.error, "punch failed");
        let round = self.rounds.get_mut(&dial)?;
        let outcomes = outcome::outcomes(failure.error, std::slice::from_ref(&addr));
        round.outcomes.extend(outcomes);
        round.open -= 1;
        if round.open > 0 {
            return None;
        }
        let round = self.rounds.remove(&dial)?;
        (!round.connected).then_some(Failed {
            peer,
            dial,
            outcomes: round.outcomes,
        })
    }
}
