//! The handshake and the dial that follows it.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, swarm::ConnectionId};
use p2pnode_protocol::dcutr::Addresses;
use p2pnode_transports::{Remote, Transport};

use crate::punch::{
    address::Candidate,
    candidates::Admitted,
    machine::{
        Action, Context, DialId, Event, HandshakeError,
        attempt::{Attempt, Phase},
        directs::decides,
        round::{choose, common, is_mixed},
    },
    record::{CandidateOutcome, Reason, Role},
};

use super::{
    MAX_CIRCUIT_RTT, Peer, Plan, multiaddrs,
    series::{BUDGET_WINDOW, MAX_ATTEMPTS},
};

/// The longest that SYNC is waited for to arrive: a peer that answers late must not delay the dial by as much.
const MAX_SYNC_DELAY: Duration = Duration::from_millis(500);

impl Peer {
    /// CONNECT came over a circuit: this node is the responder.
    pub(in crate::punch::machine) fn handle_connect(
        &mut self,
        cx: &mut Context<'_>,
        circuit: ConnectionId,
        addrs: Addresses,
    ) {
        if !self.may_answer(cx, circuit) {
            cx.actions.push_back(Action::Drop {
                peer: self.id,
                circuit,
                role: Role::Responder,
            });
            return;
        }
        self.give_way(cx);
        self.begun.push_back(cx.now);

        let until = cx.now + cx.timing.first_candidate;
        let number = self.series.attempts + 1;
        let mut attempt = Attempt::new(
            Some(circuit),
            Role::Responder,
            number,
            cx.now,
            Phase::Holding { until },
        );
        let listed: Vec<_> = addrs.known.iter().filter_map(Candidate::parse).collect();
        attempt.everything = is_mixed(&listed) && self.series.mixed > 0;
        self.series.mixed += u32::from(is_mixed(&listed));
        attempt.set_received(self.admit(cx, &addrs.known), addrs.skipped);
        attempt.rtt = addrs.rtt.filter(|rtt| *rtt <= MAX_CIRCUIT_RTT);
        attempt.listed = addrs.known;
        self.attempt = Some(attempt);
        self.report_listed(cx);
        self.plan = Plan::Nothing;
        if !self.offer(cx).is_empty() {
            self.answer(cx);
        }
    }

    /// SYNC came: dial now.
    pub(in crate::punch::machine) fn handle_sync(
        &mut self,
        cx: &mut Context<'_>,
        circuit: ConnectionId,
    ) {
        let awaited = self.attempt.as_ref().is_some_and(|a| {
            a.circuit == Some(circuit) && matches!(a.phase, Phase::Answered { .. })
        });
        if awaited {
            self.dial(cx);
        }
    }

    /// The answer to our CONNECT came, and SYNC is on its way.
    pub(in crate::punch::machine) fn handle_answer(
        &mut self,
        cx: &mut Context<'_>,
        circuit: ConnectionId,
        addrs: Addresses,
        rtt: Duration,
        synced: Instant,
    ) {
        let admitted = self.admit(cx, &addrs.known);
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        if attempt.circuit != Some(circuit) || !matches!(attempt.phase, Phase::Offering { .. }) {
            return;
        }
        attempt.set_received(admitted, addrs.skipped);
        attempt.listed = addrs.known;
        // Only our own nodes return it, and only after they received it.
        let agreed = addrs.rtt.is_some() && addrs.rtt == attempt.rtt;
        attempt.rtt = Some(rtt);
        if let Some(circuit) = self.circuits.iter_mut().find(|c| c.connection == circuit) {
            circuit.rtt = Some(rtt).filter(|rtt| *rtt <= MAX_CIRCUIT_RTT);
        }
        let dial_at = if agreed {
            cx.now
        } else {
            synced + (rtt / 2).min(MAX_SYNC_DELAY)
        };
        attempt.phase = Phase::Synced { dial_at };
        self.report_listed(cx);
        if self.same_nat_is_news(cx) {
            self.supersede(cx);
            self.series.knows_nat = true;
            self.plan = Plan::Begin { at: cx.now };
            self.begin_attempt(cx);
        } else if dial_at <= cx.now {
            self.dial(cx);
        }
    }

    pub(in crate::punch::machine) fn handle_handshake_failed(
        &mut self,
        cx: &mut Context<'_>,
        circuit: ConnectionId,
        role: Role,
        error: HandshakeError,
    ) {
        let concerns = self.attempt.as_ref().is_some_and(|a| {
            a.circuit == Some(circuit) && a.role == role && a.phase.is_handshake()
        });
        if !concerns {
            return;
        }
        let reason = match error {
            HandshakeError::Unsupported => Reason::RemoteUnsupported,
            HandshakeError::Timeout => Reason::HandshakeTimeout,
            HandshakeError::Broken => Reason::HandshakeFailed,
        };
        if let Some(circuit) = self.circuits.iter_mut().find(|c| c.connection == circuit) {
            circuit.refuses |= error == HandshakeError::Unsupported;
        }
        self.fail(cx, reason);
    }

    pub(in crate::punch::machine) fn handle_dial_failed(
        &mut self,
        cx: &mut Context<'_>,
        dial: DialId,
        outcomes: &[(Candidate, CandidateOutcome)],
    ) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let Phase::Dialing {
            dial: running,
            began,
            until,
        } = attempt.phase
        else {
            return;
        };
        if running != dial {
            return;
        }
        for (candidate, outcome) in outcomes {
            attempt.set_outcome(candidate, *outcome);
            self.series.both_dialed |= *outcome == CandidateOutcome::BothDialed;
        }
        if let Some(id) = attempt.circuit {
            let answered = outcomes.iter().filter(|(candidate, outcome)| {
                *outcome == CandidateOutcome::Failed && attempt.unvouched.contains(candidate)
            });
            let more: u64 = answered.map(|(candidate, _)| cost(candidate)).sum();
            let mut circuits = self.circuits.iter_mut();
            if let Some(circuit) = circuits.find(|circuit| circuit.connection == id) {
                circuit.spent += more;
            }
        }
        // The responder leaves the next word to the initiator; its dials may outlast ours.
        let linger = match attempt.role {
            Role::Initiator => cx.timing.linger,
            Role::Responder => cx.timing.attempt,
        };
        // What is behind an address that no relay vouches for decides nothing that the peer sees.
        let until = if attempt.has_dialed_unvouched() {
            until
        } else {
            (began + linger).max(cx.now)
        };
        attempt.phase = Phase::Waiting { until };
        self.handle_timeout(cx);
    }

    /// Sends the answer to CONNECT, with the transports that the initiator listed, or all if we have none of these.
    pub(super) fn answer(&mut self, cx: &mut Context<'_>) {
        let mut offer = self.offer(cx);
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        // An answer is to what came over a circuit.
        let Some(circuit) = attempt.circuit else {
            return;
        };
        self.offered = offer.iter().copied().collect();
        let received = attempt.received();
        let listed =
            |candidate: &Candidate| received.iter().any(|r| r.transport == candidate.transport);
        if offer.iter().any(listed) {
            offer.retain(listed);
        }
        attempt.sent = offer;
        attempt.phase = match attempt.rtt {
            Some(rtt) => Phase::Synced {
                dial_at: cx.now + rtt / 2,
            },
            None => Phase::Answered {
                until: cx.now + cx.timing.handshake,
            },
        };
        let rtt = attempt.rtt;
        let addrs = multiaddrs(&attempt.sent);
        // The initiator's packets may overtake its SYNC.
        let expected = choose(&attempt.sent, &received, attempt.everything);
        let expect = attempt.expect(self.id, &expected, Remote::Unknown);
        cx.actions.push_back(expect);
        self.series.gave_up = false;
        self.keep_circuits(cx, true);
        cx.actions.push_back(Action::Reply {
            peer: self.id,
            circuit,
            addrs,
            rtt,
        });
    }

    /// Whether the answer shows that both sides are behind one NAT, after CONNECT went out without our private addresses.
    ///
    /// Over QUIC our dial of the peer's private address is enough. Over TCP the peer takes the role that fits only for a
    /// connection from an address that it knows, so the handshake starts again.
    fn same_nat_is_news(&self, cx: &Context<'_>) -> bool {
        let Some(attempt) = &self.attempt else {
            return false;
        };
        if self.series.knows_nat
            || common(&attempt.sent, &attempt.received()).next() == Some(Transport::Quic)
        {
            return false;
        }
        let offer = self.offer(cx);
        let listed = |transport| {
            attempt
                .sent
                .iter()
                .any(|candidate| candidate.transport == transport)
        };
        offer
            .iter()
            .any(|candidate| listed(candidate.transport) && !attempt.sent.contains(candidate))
    }

    /// Reports the peer's list, and those of its addresses at which no relay has seen it.
    fn report_listed(&self, cx: &mut Context<'_>) {
        let listed = self.attempt.iter().flat_map(|attempt| &attempt.listed);
        let listed = listed.filter_map(Candidate::parse);
        cx.report(Event::Listed {
            peer: self.id,
            ips: listed.map(|candidate| candidate.socket.ip()).collect(),
        });
        let unvouched = self.attempt.iter().flat_map(|attempt| &attempt.unvouched);
        let ips: BTreeSet<IpAddr> = unvouched.map(|candidate| candidate.socket.ip()).collect();
        if !ips.is_empty() {
            cx.report(Event::Unvouched {
                peer: self.id,
                ips: ips.into_iter().collect(),
            });
        }
    }

    /// What of a peer's list may be dialed now.
    fn admit(&self, cx: &Context<'_>, listed: &[Multiaddr]) -> Admitted {
        let vouches = self.vouches.at(cx.now);
        let relays = &cx.relays.sockets;
        cx.local
            .admit(cx.policy, relays, self.id, &vouches, &[], listed)
    }

    pub(super) fn dial(&mut self, cx: &mut Context<'_>) {
        let listed = self.attempt.iter().flat_map(|attempt| &attempt.listed);
        let listed: Vec<Multiaddr> = listed.cloned().collect();
        // A relay may have vouched for more since the message came.
        let admitted = self.admit(cx, &listed);
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        attempt.set_received_again(admitted);
        let received = attempt.received();
        let mut chosen = choose(&attempt.sent, &received, attempt.everything);
        if attempt.role == Role::Initiator {
            let tcp_too =
                common(&attempt.sent, &received).any(|transport| transport == Transport::Tcp);
            self.series.tcp_left_out =
                tcp_too && chosen.iter().all(|c| c.transport == Transport::Quic);
        }
        let mut circuits = self.circuits.iter_mut();
        let mut circuit = circuits.find(|circuit| attempt.circuit == Some(circuit.connection));
        chosen.retain(|candidate| {
            let may_be_dialed = !attempt.unvouched.contains(candidate)
                || circuit
                    .as_mut()
                    .is_some_and(|circuit| circuit.spend(cost(candidate)));
            let outcome = match may_be_dialed {
                true => CandidateOutcome::Pending,
                false => CandidateOutcome::OverBudget,
            };
            attempt.set_outcome(candidate, outcome);
            may_be_dialed
        });
        if chosen.is_empty() {
            attempt.phase = Phase::Waiting {
                until: cx.now + cx.timing.attempt,
            };
            return;
        }
        let dial = cx.dial_id();
        let rtts = attempt.rtt.unwrap_or_default() * 8;
        let short = cx.timing.attempt.max(rtts).min(cx.timing.dial);
        let attempt_time = match attempt.role {
            // The next round dials another transport, so it need not wait until this one's sockets are free.
            Role::Initiator if self.series.tcp_left_out && attempt.number == 1 => short,
            // It ends then whatever the addresses answer.
            Role::Initiator | Role::Responder if attempt.has_dialed_unvouched() => short,
            Role::Initiator | Role::Responder => cx.timing.dial,
        };
        attempt.phase = Phase::Dialing {
            dial,
            began: cx.now,
            until: cx.now + attempt_time,
        };
        cx.actions
            .push_back(attempt.expect(self.id, &chosen, Remote::Unknown));
        cx.actions.push_back(Action::Dial {
            peer: self.id,
            dial,
            addrs: multiaddrs(&chosen),
            role: role_of_dial(attempt, self.series.both_dialed),
        });
    }

    /// Drops the stream of the handshake, if the attempt still has one.
    pub(super) fn drop_handshake(&mut self, cx: &mut Context<'_>) {
        if let Some(attempt) = self
            .attempt
            .as_ref()
            .filter(|attempt| attempt.phase.is_handshake())
            && let Some(circuit) = attempt.circuit
        {
            cx.actions.push_back(Action::Drop {
                peer: self.id,
                circuit,
                role: attempt.role,
            });
        }
    }

    fn may_answer(&mut self, cx: &Context<'_>, circuit: ConnectionId) -> bool {
        let known = self.circuits.iter().any(|c| c.connection == circuit);
        if !cx.enabled
            || !known
            || !self.directs.is_empty()
            || self.budget_frees(cx, BUDGET_WINDOW).is_some()
        {
            return false;
        }
        match &self.attempt {
            None => true,
            Some(attempt) if attempt.is_introduced() => true,
            // Both began at once: the one with the smaller peer id goes on.
            Some(attempt) if attempt.role == Role::Initiator => !decides(cx.local_id, self.id),
            Some(attempt) => !attempt.phase.is_handshake(),
        }
    }
}

/// The role in which an attempt dials: the one of the handshake. With a peer of another make it is the other one in the last attempt, and
/// as soon as an attempt has shown that both sides dial.
///
/// go-libp2p before 0.48 has the roles the wrong way round over TCP, so both sides of its punches dial. A transport in the role of
/// the listener takes the other role if the remote waits as well, so this role fits every remote and only takes longer. Peers of
/// ours have named the round trip time of the circuit by then.
fn role_of_dial(attempt: &Attempt, both_dialed: bool) -> Role {
    let is_swapped = both_dialed || attempt.number == MAX_ATTEMPTS;
    match is_swapped && attempt.rtt.is_none() {
        true => Role::Initiator,
        false => attempt.role,
    }
}

/// The bytes that the first packets to an address have at the most, in whole IP packets: a QUIC Initial; a SYN, and the first bytes
/// of a connection to a service that is not libp2p's.
fn cost(candidate: &Candidate) -> u64 {
    match candidate.transport {
        Transport::Quic => 1_300,
        Transport::Tcp => 400,
    }
}
