//! The circuit over a relay that may lead to the peer.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

use super::request::Action;

/// How long a circuit may take before the dialer asks for it once more. A circuit that opens at all opens within a few round
/// trips. A libp2p relay silently drops handshakes beyond ten at a time with one peer, and its client then waits for a minute.
pub(crate) const CIRCUIT_WAIT: Duration = Duration::from_secs(3);

/// How long a peer may be absent from a relay before the dial believes it. A restarted relay has its reservations back within 5
/// s. A peer that has lost its reservation has it back as fast.
const ABSENCE: Duration = Duration::from_secs(5);

/// The first backoff from a failed circuit to the next one over the same relay. It doubles with each failure.
const AGAIN_MIN: Duration = Duration::from_millis(250);

/// The longest backoff.
const AGAIN_MAX: Duration = Duration::from_secs(4);

/// What the failure of a circuit means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CircuitFailure {
    /// It will be the same.
    Refused,
    /// The peer holds no reservation on the relay: it is not there, or the relay or the peer has just come back.
    Absent,
    /// It broke off.
    Broken,
}

/// A relay that may lead to the peer.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) peer: PeerId,
    /// Where it is, if it is not one of this node's but one that the peer's record names.
    pub(super) found: Option<Vec<Multiaddr>>,
    pub(super) state: Circuit,
    /// Circuits over it that have failed in a row.
    pub(super) failures: u32,
    /// Since when the peer has been absent from it.
    pub(super) absent_since: Option<Instant>,
    /// Why it cannot be reached.
    pub(super) unreachable: Option<String>,
    /// It was asked for the peer too often to be asked now.
    pub(super) is_paced: bool,
    /// Whether the dial has reported that.
    pub(super) is_reported: bool,
}

/// The circuit over a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circuit {
    /// The relay is not connected yet.
    Waiting,
    /// The circuit is being made.
    Dialing {
        /// How many dials of it are under way.
        dials: u32,
        /// When another is begun.
        again_at: Instant,
    },
    /// It could not be made, and is asked for again then.
    Again(Instant),
    /// There is or was one.
    Made,
    /// It could not be made.
    Failed,
}

impl Relay {
    /// One of this node's own, or one that was `found` at these addresses, in this state.
    pub(super) const fn new(peer: PeerId, found: Option<Vec<Multiaddr>>, state: Circuit) -> Self {
        Self {
            peer,
            found,
            state,
            failures: 0,
            absent_since: None,
            unreachable: None,
            is_paced: false,
            is_reported: false,
        }
    }

    /// Whether it may still lead to the peer.
    pub(super) fn is_tried(&self) -> bool {
        matches!(
            self.state,
            Circuit::Waiting | Circuit::Dialing { .. } | Circuit::Again(_)
        )
    }

    /// Whether it has neither led to the peer nor said why not.
    pub(super) fn is_silent(&self) -> bool {
        let has_answered = self.failures > 0 || self.absent_since.is_some() || self.is_paced;
        self.is_tried() && !has_answered && self.unreachable.is_none()
    }

    /// Why it cannot be reached, or is not asked, if so.
    pub(super) fn why_unreachable(&self) -> Option<String> {
        let peer = self.peer;
        match &self.unreachable {
            Some(reason) => Some(format!("relay {peer} is unreachable: {reason}")),
            None if self.is_paced && self.failures == 0 => Some(format!(
                "relay {peer} was not asked again: this node asks a relay for a circuit to a peer 12 times a minute at most"
            )),
            None => None,
        }
    }

    /// How a circuit over it is made.
    pub(super) fn dial(&self) -> Action {
        match &self.found {
            None => Action::DialCircuit(self.peer),
            Some(addrs) => Action::DialFound {
                relay: self.peer,
                addrs: addrs.clone(),
            },
        }
    }

    /// What follows the failure of its circuit.
    pub(super) fn next(&mut self, failure: CircuitFailure, now: Instant) -> Circuit {
        let absent_since = match failure {
            CircuitFailure::Refused => return Circuit::Failed,
            CircuitFailure::Absent => Some(*self.absent_since.get_or_insert(now)),
            CircuitFailure::Broken => {
                self.absent_since = None;
                None
            }
        };
        let wait = (AGAIN_MIN * 2u32.saturating_pow(self.failures)).min(AGAIN_MAX);
        self.failures = self.failures.saturating_add(1);
        match absent_since.map(|since| since + ABSENCE) {
            Some(until) if until <= now => Circuit::Failed,
            // Once more when the time is up.
            Some(until) => Circuit::Again((now + wait).min(until)),
            None => Circuit::Again(now + wait),
        }
    }
}
