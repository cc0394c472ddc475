//! What the log names once a minute: peers that services refuse, and why sessions ended. One that comes again and again hides no other.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_services::{config::ServiceName, core::sessions::Role};

/// How often the same is named.
const NAMED: Duration = Duration::from_secs(60);

/// The most that is remembered. Beyond that nothing is named, and metrics count on.
const MOST: usize = 1024;

/// A peer, and the service that refuses it. `None`: one that is not there, whose name is the peer's word.
pub(super) type Refused = (PeerId, Option<ServiceName>);

/// The role of this node, the service as it is reported, and why its session ended.
pub(super) type Ended = (Role, String, &'static str);

/// What was named lately.
#[derive(Debug)]
pub(super) struct Named<K>(BTreeMap<K, Instant>);

impl<K> Default for Named<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Named<K> {
    /// Whether it is to be named.
    pub(super) fn handle(&mut self, key: K, now: Instant) -> bool {
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
        let (mut refusals, peer, now) = (
            Named::<Refused>::default(),
            PeerId::random(),
            Instant::now(),
        );
        let db = Some("db".parse::<ServiceName>().unwrap());
        assert!(refusals.handle((peer, db.clone()), now));
        assert!(!refusals.handle((peer, db.clone()), now + NAMED / 2));
        assert!(refusals.handle((peer, None), now));
        assert!(refusals.handle((peer, db), now + NAMED));
        let mut named = |at| refusals.handle((PeerId::random(), None), at);
        assert!((0..2 * MOST).filter(|_| named(now + NAMED)).count() < MOST);
        assert!(named(now + 2 * NAMED));
    }

    #[test]
    fn a_session_that_ends_again_and_again_hides_no_other() {
        let (mut ends, now) = (Named::<Ended>::default(), Instant::now());
        let mut named =
            |service: &str, why| ends.handle((Role::Service, service.to_owned(), why), now);
        assert!(named("refuse", "refused"));
        assert!((0..1000).all(|_| !named("refuse", "refused")));
        assert!(named("refuse", "unreachable") && named("hole", "refused"));
    }
}
