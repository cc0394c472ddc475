//! Ports of the range that have sent to nobody: a path moves to one, and a pair whose punch has failed tries two.

use std::time::Instant;

use libp2p::PeerId;
use p2pnode_protocol::port_search::{FRESH, Side};

use super::{
    rests::HOUR,
    searches::{Phase, SAMPLED, Searches, Step},
};

/// The most of these searches in an hour, for all peers together.
const PER_HOUR: usize = 600;

impl Searches {
    /// The path to a direct peer is to move to the next port before its mapping dies of age.
    pub(crate) fn handle_aged(&mut self, peer: PeerId, relay: PeerId, now: Instant) {
        let is_idle = self.active.is_none() && self.look.by.is_none();
        if self.enabled && is_idle && self.has_packets(now) {
            self.activate(peer, relay, Phase::Sampling(None), true, now);
            self.sample_next(relay, 1);
        }
    }

    /// Whether the path to a direct peer is being moved.
    pub(crate) fn is_moving(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.moves)
    }

    pub(super) fn sample_next(&mut self, relay: PeerId, count: usize) {
        self.look.by = None;
        self.steps.push_back(Step::SampleNext(relay, count));
    }

    /// Whether the offer of a side with one mapping for every destination waits until a relay has seen two fresh sockets: a router
    /// may have taken an early packet of the punch, which spoils the punch socket of either side for all destinations.
    pub(super) fn freshens(&mut self, side: Side, now: Instant) -> bool {
        let has_packets = self.has_packets(now);
        let Some(active) = &mut self.active else {
            return false;
        };
        let Phase::Sampling(theirs) = active.phase else {
            return false;
        };
        let serves = theirs.is_none_or(|theirs| theirs.side.fresh.is_some());
        let is_new = !active.moves && active.easy.is_none() && side.ports.is_none();
        if !serves || !is_new || !has_packets {
            return false;
        }
        active.easy = Some(side);
        active.until = now + SAMPLED;
        let relay = active.relay;
        self.sample_next(relay, FRESH);
        true
    }

    pub(super) fn has_packets(&mut self, now: Instant) -> bool {
        while self.small.front().is_some_and(|at| *at + HOUR <= now) {
            self.small.pop_front();
        }
        self.small.len() < PER_HOUR
    }
}
