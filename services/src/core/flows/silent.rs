//! Flows that are silent give up their places.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::{End, FlowKey, Flows, Role};
use crate::wire::datagram::FlowNumber;

/// A flow without a datagram for so long gives up its place if there are too many: longer than most answers take.
pub(super) const SILENT: Duration = Duration::from_secs(2);

impl Flows {
    /// The peer has almost as many sessions and flows here as it may: the flow that has been silent longest gives up its place.
    pub fn handle_crowded(&mut self, peer: PeerId, now: Instant) {
        self.end_silent(peer, Role::Service, now);
    }

    pub(super) fn end_silent(&mut self, peer: PeerId, role: Role, now: Instant) {
        let in_use = self.peer(peer).in_use[role as usize];
        if in_use.is_some_and(|until| now < until) {
            return;
        }
        let number = |number| FlowKey { peer, role, number };
        let of_peer = self
            .flows
            .range(number(FlowNumber::FIRST)..=number(FlowNumber::LAST));
        let oldest = of_peer.min_by_key(|(_, flow)| flow.last);
        let Some((key, silent_at)) = oldest.map(|(key, flow)| (*key, flow.last + SILENT)) else {
            return self.forget(peer);
        };
        match silent_at <= now {
            true => drop(self.end(key, End::Idle)),
            false => self.peer(peer).in_use[role as usize] = Some(silent_at),
        }
    }
}
