//! A punch without a handshake: a relay introduces the two sides to each other.
//!
//! Both sides dial when the introduction arrives. This needs no alignment by round trip times. The relay sends both introductions
//! at the same time. A packet of one side leaves only after the introduction has arrived at that side. So the other side's
//! introduction nearly always arrives before that packet. If it does not, the other side's own packet gets through, or a
//! retransmission does.
//!
//! The handshake of DCUtR follows over the circuit. The side that begins the handshake waits for a short while. A handshake that
//! arrives nevertheless supersedes the attempt.

use std::{collections::HashSet, net::IpAddr, time::Instant};

use p2pnode_transports::{Remote, Transport};

use crate::punch::{
    address::Candidate,
    candidates::{Admitted, MAX_CANDIDATES},
    machine::{
        Action, Context, FoundPair, Introduced, IntroductionResponse, Side,
        attempt::{Attempt, Phase},
        directs::decides,
        round::{choose, common},
    },
    record::{CandidateOutcome, Role},
};

use super::{
    MAX_CIRCUIT_RTT, Peer, Plan, multiaddrs,
    series::{BUDGET_WINDOW, MAX_ATTEMPTS},
};

impl Peer {
    /// A relay introduced the peer.
    ///
    /// The peer is not punched while an attempt runs or rests. Nor is it if both sides are behind the same NAT: the relay does
    /// not see the addresses inside, and DCUtR exchanges them.
    pub(in crate::punch::machine) fn handle_introduced(
        &mut self,
        cx: &mut Context<'_>,
        introduced: &Introduced,
    ) -> IntroductionResponse {
        self.dials = Some(introduced.asked);
        let is_idle = self.attempt.is_none()
            && self.directs.is_empty()
            && matches!(self.plan, Plan::Nothing | Plan::Peer { .. });
        if !cx.enabled || !is_idle || self.budget_frees(cx, BUDGET_WINDOW).is_some() {
            return IntroductionResponse::Ignored;
        }
        let own = introduced.own_addrs.iter().filter_map(Candidate::parse);
        let sent: Vec<Candidate> = own.take(MAX_CANDIDATES).collect();
        let relays = &cx.relays.sockets;
        let vouches = self.vouches.at(cx.now);
        let listed = &introduced.addrs;
        let admitted = cx
            .local
            .admit(cx.policy, relays, self.id, &vouches, &sent, listed);
        let ours: HashSet<IpAddr> = sent.iter().map(|c| c.socket.ip()).collect();
        let same_nat = admitted
            .candidates
            .iter()
            .any(|candidate| ours.contains(&candidate.socket.ip()));
        let Some(transport) = common(&sent, &admitted.candidates).next() else {
            return IntroductionResponse::Ignored;
        };
        if same_nat {
            return IntroductionResponse::Ignored;
        }
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
        attempt.listed = introduced.addrs.clone();
        for candidate in &chosen {
            attempt.set_outcome(candidate, CandidateOutcome::Pending);
        }
        // Relays introduce only peers that support the protocol, and every such peer accepts TLS.
        let expect = attempt.expect(self.id, &chosen, Remote::TakesTls);
        self.attempt = Some(attempt);
        self.plan = Plan::Nothing;
        self.begun.push_back(cx.now);
        let addrs = multiaddrs(&chosen);
        cx.actions.push_back(expect);
        cx.actions.push_back(Action::Dial {
            peer: self.id,
            dial,
            addrs,
            role,
        });
        IntroductionResponse::Punches
    }

    /// A search has found a pair of sockets. Its dial takes the place of any other attempt.
    pub(in crate::punch::machine) fn handle_found(
        &mut self,
        cx: &mut Context<'_>,
        pair: &FoundPair,
    ) {
        if !cx.enabled || self.directs.is_empty() == pair.moves {
            return;
        }
        self.supersede(cx);
        let candidate = |socket| Candidate {
            transport: Transport::Quic,
            socket,
        };
        let (theirs, dial) = (candidate(pair.remote), cx.dial_id());
        let phase = Phase::Dialing {
            dial,
            began: cx.now,
            until: cx.now + cx.timing.dial,
        };
        let number = (self.series.attempts + 1).min(MAX_ATTEMPTS);
        let mut attempt = Attempt::new(None, pair.role, number, cx.now, phase);
        attempt.found = true;
        attempt.sent = vec![candidate(pair.own)];
        let admitted = Admitted {
            candidates: vec![theirs],
            ..Admitted::default()
        };
        attempt.set_received(admitted, 0);
        attempt.set_outcome(&theirs, CandidateOutcome::Pending);
        let expect = attempt.expect(self.id, &[theirs], Remote::TakesTls);
        self.attempt = Some(attempt);
        self.plan = Plan::Nothing;
        cx.actions.push_back(expect);
        cx.actions.push_back(Action::Dial {
            peer: self.id,
            dial,
            addrs: multiaddrs(&[theirs]),
            role: pair.role,
        });
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
