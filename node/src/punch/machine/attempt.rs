//! One attempt, from the first message to its record.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::{Family, Remote, Transport};

use crate::punch::{
    address::Candidate,
    candidates::{Admitted, Local, Mapping, has_many_ports},
    record::{CandidateOutcome, CandidateRecord, Outcome, Reason, Record, Role},
    vouch::Vouch,
};

use super::{Action, DialId};

/// An attempt that runs.
#[derive(Debug)]
pub(super) struct Attempt {
    /// `None` where a relay introduced the two: there is no handshake then.
    pub(super) circuit: Option<ConnectionId>,
    pub(super) role: Role,
    pub(super) number: u32,
    pub(super) began: Instant,
    pub(super) phase: Phase,
    /// Whether this round dials every transport at once.
    pub(super) everything: bool,
    pub(super) sent: Vec<Candidate>,
    received: Vec<(Candidate, CandidateOutcome)>,
    refused: Vec<Multiaddr>,
    /// Of `received` those at which no relay has seen the peer.
    pub(super) unvouched: HashSet<Candidate>,
    /// What the peer listed, as it came.
    pub(super) listed: Vec<Multiaddr>,
    skipped: usize,
    pub(super) rtt: Option<Duration>,
    /// Whether a search for ports has found the address that is dialed.
    pub(super) found: bool,
}

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Initiator: CONNECT is on its way.
    Offering { until: Instant },
    /// Responder: CONNECT came, and there is nothing to answer with yet.
    Holding { until: Instant },
    /// Responder: answered, SYNC is awaited.
    Answered { until: Instant },
    /// Initiator: SYNC is on its way, the dial starts when it arrives. Responder: the same with the answer, where both go by
    /// the round trip time in CONNECT.
    Synced { dial_at: Instant },
    /// The dial runs.
    Dialing {
        dial: DialId,
        began: Instant,
        until: Instant,
    },
    /// Nothing of ours runs; the peer's dial may still arrive.
    Waiting { until: Instant },
}

impl Phase {
    pub(super) fn deadline(self) -> Instant {
        match self {
            Self::Offering { until }
            | Self::Holding { until }
            | Self::Answered { until }
            | Self::Dialing { until, .. }
            | Self::Waiting { until } => until,
            Self::Synced { dial_at } => dial_at,
        }
    }

    /// Whether the handshake still needs the circuit.
    pub(super) fn is_handshake(self) -> bool {
        matches!(
            self,
            Self::Offering { .. } | Self::Holding { .. } | Self::Answered { .. }
        )
    }
}

/// Whether packets may have gone to an address of this outcome.
fn was_dialed(outcome: CandidateOutcome) -> bool {
    !matches!(
        outcome,
        CandidateOutcome::NotDialed | CandidateOutcome::OverBudget
    )
}

impl Attempt {
    pub(super) fn new(
        circuit: Option<ConnectionId>,
        role: Role,
        number: u32,
        began: Instant,
        phase: Phase,
    ) -> Self {
        Self {
            circuit,
            role,
            number,
            began,
            phase,
            everything: false,
            sent: Vec::new(),
            received: Vec::new(),
            refused: Vec::new(),
            unvouched: HashSet::new(),
            listed: Vec::new(),
            skipped: 0,
            rtt: None,
            found: false,
        }
    }

    /// Whether it came of an introduction, or of a search: without a handshake.
    pub(super) fn is_introduced(&self) -> bool {
        self.circuit.is_none()
    }

    pub(super) fn set_received(&mut self, admitted: Admitted, skipped: usize) {
        self.received = admitted
            .candidates
            .into_iter()
            .map(|c| (c, CandidateOutcome::NotDialed))
            .collect();
        self.refused = admitted.refused;
        self.unvouched = admitted.unvouched;
        self.skipped = skipped;
    }

    /// The same at the time of the dial, before which nothing has become of them.
    pub(super) fn set_received_again(&mut self, admitted: Admitted) {
        self.set_received(admitted, self.skipped);
    }

    /// Relays vouch for this. Whether that changes how an address is dialed.
    pub(super) fn vouch(&mut self, vouches: &[Vouch]) -> bool {
        let before = self.unvouched.len();
        self.unvouched.retain(|candidate| {
            let ip = candidate.socket.ip();
            !vouches.iter().any(|vouch| vouch.theirs.contains(&ip))
        });
        self.unvouched.len() != before
    }

    /// The addresses that are dialed or were.
    pub(super) fn dialed(&self) -> Vec<Candidate> {
        let dialed = self.received.iter().filter(|(_, o)| was_dialed(*o));
        dialed.map(|(candidate, _)| *candidate).collect()
    }

    /// Whether packets have gone where no relay vouches for the peer.
    pub(super) fn has_dialed_unvouched(&self) -> bool {
        let dialed = self.dialed();
        dialed
            .iter()
            .any(|candidate| self.unvouched.contains(candidate))
    }

    /// Whether nothing was dialed because the peer has sent too little for it.
    pub(super) fn is_over_budget(&self) -> bool {
        let over = |(_, o): &(_, CandidateOutcome)| *o == CandidateOutcome::OverBudget;
        self.received.iter().any(over) && !self.received.iter().any(|(_, o)| was_dialed(*o))
    }

    /// Announces a punch to these addresses.
    pub(super) fn expect(&self, peer: PeerId, addrs: &[Candidate], remote: Remote) -> Action {
        let (unvouched, addrs): (Vec<_>, Vec<_>) = addrs
            .iter()
            .partition(|candidate| self.unvouched.contains(candidate));
        let multiaddrs = |candidates: Vec<Candidate>| {
            let addrs = candidates.into_iter().map(Candidate::to_multiaddr);
            addrs.collect()
        };
        Action::Expect {
            peer,
            addrs: multiaddrs(addrs),
            unvouched: multiaddrs(unvouched),
            remote,
        }
    }

    pub(super) fn received(&self) -> Vec<Candidate> {
        self.received
            .iter()
            .map(|(candidate, _)| *candidate)
            .collect()
    }

    pub(super) fn set_outcome(&mut self, candidate: &Candidate, outcome: CandidateOutcome) {
        if let Some((_, known)) = self.received.iter_mut().find(|(c, _)| c == candidate) {
            *known = outcome;
        }
    }

    /// Why the peer is not direct, going by what became of its addresses.
    pub(super) fn reason(&self, local: &Local) -> Reason {
        let dialed: Vec<_> = self
            .received
            .iter()
            .filter(|(_, o)| was_dialed(*o))
            .collect();
        let all = |outcome| dialed.iter().all(|(_, o)| *o == outcome);
        let any = |outcome| dialed.iter().any(|(_, o)| *o == outcome);
        if dialed.is_empty() {
            return if !self.refused.is_empty() || self.is_over_budget() {
                Reason::Filtered
            } else if self.sent.is_empty() {
                Reason::NoCandidates
            } else {
                Reason::NoRemoteCandidates
            };
        }
        let ours_depends = dialed
            .iter()
            .all(|(c, _)| local.mapping(c.transport, c.family()) == Mapping::Dependent);
        let listed: Vec<Candidate> = self.listed.iter().filter_map(Candidate::parse).collect();
        let of_dialed = listed.iter().filter(|c| {
            let ip = c.socket.ip();
            let mut dialed = dialed.iter();
            dialed.any(|(d, _)| d.transport == c.transport && d.socket.ip() == ip)
        });
        if ours_depends && has_many_ports(of_dialed) {
            Reason::SymmetricBoth
        } else if any(CandidateOutcome::Timeout) || any(CandidateOutcome::Pending) {
            Reason::Timeout
        } else if all(CandidateOutcome::Refused) {
            Reason::Refused
        } else if all(CandidateOutcome::Unreachable) {
            Reason::Unreachable
        } else {
            Reason::DialFailed
        }
    }

    /// Whether the dial has run for less than `time`: too short to have failed for good.
    pub(super) fn is_fresh(&self, now: Instant, time: Duration) -> bool {
        matches!(self.phase, Phase::Dialing { began, .. } if now < began + time)
    }

    /// Transport and family of what is dialed, if that is of one kind.
    pub(super) fn dialed_via(&self) -> Option<(Transport, Family)> {
        let mut via = self
            .received
            .iter()
            .filter(|(_, outcome)| was_dialed(*outcome))
            .map(|(candidate, _)| (candidate.transport, candidate.family()));
        let first = via.next()?;
        via.all(|other| other == first).then_some(first)
    }

    pub(super) fn into_record(
        self,
        peer: PeerId,
        outcome: Outcome,
        via: Option<(Transport, Family)>,
        now: Instant,
    ) -> Record {
        let filtered = self
            .refused
            .into_iter()
            .map(|addr| (addr, CandidateOutcome::Filtered));
        Record {
            peer,
            circuit: self.circuit,
            found: self.found,
            role: self.role,
            attempt: self.number,
            locals: Vec::new(),
            sent: self.sent.into_iter().map(Candidate::to_multiaddr).collect(),
            received: self
                .received
                .into_iter()
                .map(|(candidate, outcome)| (candidate.to_multiaddr(), outcome))
                .chain(filtered)
                .map(|(addr, outcome)| CandidateRecord { addr, outcome })
                .collect(),
            skipped: self.skipped,
            rtt: self.rtt,
            took: now.saturating_duration_since(self.began),
            outcome,
            via,
        }
    }
}
