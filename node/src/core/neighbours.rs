//! Which peer was at which address lately, and where nobody was. So a dial into a service of fifty peers need not try all fifty.
//! A responder that names places without peers delays one dial at most.
//!
//! Pure: the time is an argument.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::core::dialer::{Candidate, Standing};

/// How long an answer is believed. Within this time, another pod takes over an address only by chance. A dial to such an address
/// still finds its peer by the relays.
const BELIEVED: Duration = Duration::from_secs(30);

/// How long the place of a peer is dialed before places of which nothing is known.
const PREFERRED: Duration = Duration::from_secs(600);

/// How long a place at which nobody answered is dialed after all others.
const AVOIDED: Duration = Duration::from_secs(30);

/// The most addresses that are remembered, of peers and of silence each.
const ADDRESSES: usize = 1024;

/// The peers by their addresses.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    peers: BTreeMap<SocketAddr, (PeerId, Instant)>,
    silent: BTreeMap<SocketAddr, Instant>,
}

impl Neighbours {
    /// This peer answered there.
    pub(crate) fn handle_answer(&mut self, host: SocketAddr, peer: PeerId, now: Instant) {
        self.silent.remove(&host);
        if !self.peers.contains_key(&host) {
            make_room(&mut self.peers, |(_, since)| *since);
        }
        self.peers.insert(host, (peer, now));
    }

    /// No peer answered there.
    pub(crate) fn handle_silence(&mut self, host: SocketAddr, now: Instant) {
        self.peers.remove(&host);
        if !self.silent.contains_key(&host) {
            make_room(&mut self.silent, |since| *since);
        }
        self.silent.insert(host, now);
    }

    /// The candidates for `peer`: without those where others are, and with what is known of the rest. How many were left out.
    pub(crate) fn select(
        &self,
        candidates: &mut Vec<Candidate>,
        peer: PeerId,
        now: Instant,
    ) -> usize {
        let all = candidates.len();
        candidates.retain_mut(|candidate| {
            let host = &candidate.host;
            let standing = match self.peers.get(host) {
                Some((known, since)) if *known == peer && now < *since + BELIEVED => Standing::Here,
                Some((_, since)) if now < *since + BELIEVED => return false,
                Some((known, since)) if *known == peer && now < *since + PREFERRED => {
                    Standing::WasHere
                }
                Some(_) | None => match self.silent.get(host) {
                    Some(since) if now < *since + AVOIDED => Standing::Silent,
                    Some(_) | None => Standing::New,
                },
            };
            candidate.standing = standing;
            true
        });
        all - candidates.len()
    }
}

/// Forgets what is oldest, if there is no room for one more.
fn make_room<T>(known: &mut BTreeMap<SocketAddr, T>, since: impl Fn(&T) -> Instant) {
    if known.len() >= ADDRESSES {
        let oldest = known.iter().min_by_key(|(_, of)| since(of));
        if let Some(oldest) = oldest.map(|(host, _)| *host) {
            known.remove(&oldest);
        }
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

    /// What is selected of three places.
    fn selected(
        neighbours: &Neighbours,
        peer: PeerId,
        now: Instant,
    ) -> Vec<(SocketAddr, Standing)> {
        let candidate = |last| Candidate {
            host: host(last),
            addrs: Vec::new(),
            by: FoundBy::Dns,
            standing: Standing::New,
        };
        let mut candidates = (1..=3).map(candidate).collect();
        let others = neighbours.select(&mut candidates, peer, now);
        assert_eq!(candidates.len() + others, 3);
        let standings = candidates.iter().map(|one| (one.host, one.standing));
        standings.collect()
    }

    #[test]
    fn where_others_are_is_not_dialed_for_a_while_and_where_the_peer_is_is_known() {
        let (peer, other, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut neighbours = Neighbours::default();
        neighbours.handle_answer(host(1), other, now);
        neighbours.handle_answer(host(3), peer, now);
        assert_eq!(
            selected(&neighbours, peer, now),
            [(host(2), Standing::New), (host(3), Standing::Here)]
        );
        let later = now + BELIEVED;
        let standings = [Standing::New, Standing::New, Standing::WasHere];
        let all = [1, 2, 3].map(host).into_iter().zip(standings);
        assert_eq!(selected(&neighbours, peer, later), all.collect::<Vec<_>>());
        let standings = selected(&neighbours, peer, now + PREFERRED);
        assert!(
            standings
                .iter()
                .all(|(_, standing)| *standing == Standing::New)
        );
    }

    #[test]
    fn where_nobody_answered_is_avoided_for_a_while_and_until_somebody_answers() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut neighbours = Neighbours::default();
        neighbours.handle_answer(host(3), peer, now);
        for place in [1, 2, 3] {
            neighbours.handle_silence(host(place), now);
        }
        let silent = |(_, standing): &(_, Standing)| *standing == Standing::Silent;
        assert!(selected(&neighbours, peer, now).iter().all(silent));
        neighbours.handle_answer(host(2), peer, now);
        assert_eq!(
            selected(&neighbours, peer, now)[1],
            (host(2), Standing::Here)
        );
        assert!(
            !selected(&neighbours, peer, now + AVOIDED)
                .iter()
                .any(silent)
        );
    }

    #[test]
    fn what_is_oldest_makes_room_and_places_without_peers_displace_no_peer() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut neighbours = Neighbours::default();
        neighbours.handle_answer(host(1), peer, now);
        for last in 0..2 * u16::try_from(ADDRESSES).unwrap_or(u16::MAX) {
            let at = now + Duration::from_millis(last.into());
            neighbours.handle_silence(host(1000 + last), at);
        }
        assert_eq!(neighbours.silent.len(), ADDRESSES);
        assert_eq!(
            selected(&neighbours, peer, now)[0],
            (host(1), Standing::Here)
        );
        for last in 0..u16::try_from(ADDRESSES).unwrap_or(u16::MAX) {
            let at = now + Duration::from_secs(1);
            neighbours.handle_answer(host(1000 + last), PeerId::random(), at);
        }
        assert_eq!(neighbours.peers.len(), ADDRESSES);
        assert_eq!(
            selected(&neighbours, peer, now)[0],
            (host(1), Standing::New)
        );
    }
}
