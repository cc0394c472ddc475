//! Peers that services refuse: which of them the log and the commands name.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_services::config::ServiceName;

/// How often a peer is named at a service.
const NAMED: Duration = Duration::from_secs(60);

/// The most peers and services that are remembered. Beyond that refusals are only counted.
const MOST: usize = 1024;

/// Who was named lately, and at which service. `None`: at those that are not there, whose names are the peer's word.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<(PeerId, Option<ServiceName>), Instant>);

impl Refusals {
    /// Whether the peer is to be named.
    pub(super) fn handle(
        &mut self,
        peer: PeerId,
        service: Option<ServiceName>,
        now: Instant,
    ) -> bool {
        let key = (peer, service);
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < NAMED;
        if self.0.get(&key).is_some_and(is_recent) {
            return false;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, at| is_recent(at));
        }
        if self.0.len() >= MOST {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_peer_is_named_once_a_minute_at_each_service_and_many_peers_are_only_counted() {
        let (mut refusals, peer, now) = (Refusals::default(), PeerId::random(), Instant::now());
        let db = Some("db".parse::<ServiceName>().unwrap());
        assert!(refusals.handle(peer, db.clone(), now));
        assert!(!refusals.handle(peer, db.clone(), now + NAMED / 2));
        assert!(refusals.handle(peer, None, now));
        assert!(refusals.handle(peer, db.clone(), now + NAMED));
        let named = (0..2 * MOST).filter(|_| refusals.handle(PeerId::random(), None, now + NAMED));
        assert!(named.count() < MOST);
        assert!(refusals.handle(PeerId::random(), None, now + 2 * NAMED));
    }
}
