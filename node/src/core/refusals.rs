//! Peers that have refused a dial, and that have not answered since. Pure.

use std::{collections::BTreeMap, time::Instant};

use libp2p::PeerId;

/// The most peers that are remembered. For a further one, the oldest refusal is forgotten.
const MAX_PEERS: usize = 512;

/// How a peer has refused the last dial that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// When the dial ended.
    pub(crate) at: Instant,
    /// Why, and what to do.
    pub(crate) reason: String,
}

/// The refusals, by peer.
#[derive(Debug, Default)]
pub(crate) struct Refusals(BTreeMap<PeerId, Refused>);

impl Refusals {
    /// A dial has ended with a refusal, for this reason.
    pub(crate) fn handle_refused(&mut self, peer: PeerId, reason: String, now: Instant) {
        self.0.insert(peer, Refused { at: now, reason });
        if self.0.len() > MAX_PEERS {
            let oldest = self.0.iter().min_by_key(|(_, refused)| refused.at);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.0.remove(&oldest);
            }
        }
    }

    /// The peer has answered on a connection.
    pub(crate) fn handle_answered(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Refused)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn for_a_further_peer_the_oldest_refusal_is_forgotten() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let peers: Vec<PeerId> = (0..=MAX_PEERS).map(|_| PeerId::random()).collect();
        for (second, peer) in (0..).zip(&peers) {
            let at = now + Duration::from_secs(second);
            refusals.handle_refused(*peer, "refused".to_owned(), at);
        }
        assert_eq!(refusals.iter().count(), MAX_PEERS);
        assert!(refusals.iter().all(|(peer, _)| *peer != peers[0]));
        refusals.handle_answered(&peers[7]);
        assert!(refusals.iter().all(|(peer, _)| *peer != peers[7]));
    }
}
