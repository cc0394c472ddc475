//! Which peer was at which address a moment ago. So a dial into a service of fifty peers need not try all fifty.
//!
//! Pure: the time is an argument.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::core::dialer::Candidate;

/// How long an answer is believed. Within this time, another pod takes over an address only by chance. A dial to such an address
/// still finds its peer by the relays.
const BELIEVED: Duration = Duration::from_secs(30);

/// The most addresses that are remembered.
const ADDRESSES: usize = 1024;

/// The peers by their addresses.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(BTreeMap<SocketAddr, (PeerId, Instant)>);

impl Neighbours {
    /// This peer answered there.
    pub(crate) fn handle_answer(&mut self, host: SocketAddr, peer: PeerId, now: Instant) {
        if self.0.len() >= ADDRESSES && !self.0.contains_key(&host) {
            self.0.retain(|_, (_, since)| now < *since + BELIEVED);
        }
        if self.0.len() < ADDRESSES || self.0.contains_key(&host) {
            self.0.insert(host, (peer, now));
        }
    }

    /// No peer answered there.
    pub(crate) fn handle_silence(&mut self, host: &SocketAddr) {
        self.0.remove(host);
    }

    /// The candidates for `peer`: without those where others are, and with a word where it is itself. How many were left out.
    pub(crate) fn select(
        &self,
        candidates: &mut Vec<Candidate>,
        peer: PeerId,
        now: Instant,
    ) -> usize {
        let all = candidates.len();
        candidates.retain_mut(|candidate| match self.0.get(&candidate.host) {
            Some((known, since)) if now < *since + BELIEVED => {
                candidate.is_known = *known == peer;
                candidate.is_known
            }
            Some(_) | None => true,
        });
        all - candidates.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::FoundBy;

    fn host(last: u16) -> SocketAddr {
        let [high, low] = last.to_be_bytes();
        SocketAddr::from(([10, 0, high, low], 443))
    }

    fn candidates() -> Vec<Candidate> {
        let candidate = |last| Candidate {
            host: host(last),
            addrs: Vec::new(),
            by: FoundBy::Dns,
            is_known: false,
        };
        (1..=3).map(candidate).collect()
    }

    #[test]
    fn where_others_are_is_not_dialed_for_a_while_and_where_the_peer_is_is_known() {
        let (peer, other, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut neighbours = Neighbours::default();
        neighbours.handle_answer(host(1), other, now);
        neighbours.handle_answer(host(3), peer, now);
        let mut selected = candidates();
        assert_eq!(neighbours.select(&mut selected, peer, now), 1);
        let hosts: Vec<_> = selected
            .iter()
            .map(|one| (one.host, one.is_known))
            .collect();
        assert_eq!(hosts, [(host(2), false), (host(3), true)]);
        neighbours.handle_silence(&host(3));
        let mut selected = candidates();
        neighbours.select(&mut selected, peer, now);
        assert!(selected.iter().all(|candidate| !candidate.is_known));
        let mut selected = candidates();
        assert_eq!(neighbours.select(&mut selected, peer, now + BELIEVED), 0);
    }

    #[test]
    fn what_is_no_longer_believed_makes_room() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        for last in 0..2 * u16::try_from(ADDRESSES).unwrap_or(u16::MAX) {
            neighbours.handle_answer(host(last), PeerId::random(), now);
        }
        assert_eq!(neighbours.0.len(), ADDRESSES);
        neighbours.handle_answer(host(9999), PeerId::random(), now + BELIEVED);
        assert_eq!(neighbours.0.len(), 1);
    }
}
