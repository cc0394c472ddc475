//! A punch without a handshake: a relay has told both sides, in one moment, where the other is.
//!
//! Both dial as soon as they hear. That needs no alignment by round trip times: what one side sends goes to the other by way of
//! the internet, and the relay's word goes there by way of the relay, from where it started earlier by what the first side's leg
//! takes. So the mapping is nearly always open when the packet comes; where it is not, the other side's own packet gets through,
//! or the dial that begins anew.
//!
//! The handshake of DCUtR comes after it, over the circuit: the side that is to begin it holds it back for a short while, and
//! one that comes nevertheless takes the place of the attempt.

use std::{collections::HashSet, net::IpAddr, time::Instant};

use p2pnode_transports::{Remote, Transport};

use crate::punch::{
    address::Candidate,
    candidates::MAX_CANDIDATES,
    machine::{
        Action, Context, Introduced, Side,
        attempt::{Attempt, Phase},
        directs::decides,
        round::{choose, common},
    },
    record::{CandidateOutcome, Role},
};

use super::{MAX_CIRCUIT_RTT, Peer, Plan, multiaddrs};

impl Peer {
    /// A relay has told where the peer is. Whether it is punched because of that.
    ///
    /// It is not while anything else is under way, or rests for a time; nor where both sides are behind one NAT, since the relay
    /// sees nothing of the addresses inside, which DCUtR tells.
    pub(in crate::punch::machine) fn handle_introduced(
        &mut self,
        cx: &mut Context<'_>,
        introduced: &Introduced,
    ) -> bool {
        let is_idle = self.attempt.is_none()
            && self.directs.is_empty()
            && matches!(self.plan, Plan::Nothing | Plan::Peer { .. });
        if !cx.enabled || !is_idle || self.budget_frees(cx).is_some() {
            return false;
        }
        let told = introduced.told.iter().filter_map(Candidate::parse);
        let sent: Vec<Candidate> = told.take(MAX_CANDIDATES).collect();
        let relays = &cx.relays.sockets;
        let admitted = cx
            .local
            .admit_seen_as(cx.policy, relays, self.id, &sent, &introduced.addrs);
        let ours: HashSet<IpAddr> = sent.iter().map(|c| c.socket.ip()).collect();
        let same_nat = admitted
            .candidates
            .iter()
            .any(|candidate| ours.contains(&candidate.socket.ip()));
        let Some(transport) = common(&sent, &admitted.candidates).next() else {
            return false;
        };
        if same_nat {
            return false;
        }
        self.learn_remote_ips(&introduced.addrs);
        let role = match (transport, introduced.asked) {
            (Transport::Quic, true) => Role::Responder,
            (Transport::Quic, false) => Role::Initiator,
            // Two that ask for each other at once must not have the same role in the one connection that their dials make.
            (Transport::Tcp, _) if decides(cx.local_id, self.id) => Role::Initiator,
            (Transport::Tcp, _) => Role::Responder,
        };
        let dial = cx.dial_id();
        let phase = Phase::Dialing {
            dial,
            began: cx.now,
            until: cx.now + cx.timing.dial,
        };
        let chosen = choose(&sent, &admitted.candidates, false);
        let mut attempt = Attempt::new(None, role, 1, cx.now, phase);
        attempt.sent = sent;
        attempt.set_received(admitted, 0);
        for candidate in &chosen {
            attempt.set_outcome(candidate, CandidateOutcome::Pending);
        }
        self.attempt = Some(attempt);
        self.plan = Plan::Nothing;
        self.begun.push_back(cx.now);
        let addrs = multiaddrs(&chosen);
        cx.actions.push_back(Action::Expect {
            peer: self.id,
            addrs: addrs.clone(),
            // Relays introduce only those who speak the protocol, and who speaks it takes TLS.
            remote: Remote::TakesTls,
        });
        cx.actions.push_back(Action::Dial {
            peer: self.id,
            dial,
            addrs,
            role,
        });
        true
    }

    /// When the attempt has to go on or to end.
    pub(super) fn attempt_due(&self, cx: &Context<'_>) -> Option<Instant> {
        let attempt = self.attempt.as_ref()?;
        let due = attempt.phase.deadline();
        let mut circuits = self.circuits.iter();
        // It is this side's part to begin the handshake.
        let ours = circuits.find(|circuit| circuit.side == Side::Listener && !circuit.refuses);
        Some(match ours {
            Some(circuit) if attempt.is_introduced() => {
                let rtt = circuit.rtt.unwrap_or_default().min(MAX_CIRCUIT_RTT);
                due.min(attempt.began + cx.timing.introduction.max(rtt * 4))
            }
            Some(_) | None => due,
        })
    }
}
