//! What becomes of a record that is offered while another one is kept.

use std::time::Instant;

use libp2p::PeerId;
use p2pnode_protocol::directory::{Offer, TAKEN_BACK};

/// A record that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) value: Vec<u8>,
    pub(crate) expires: Instant,
}

impl From<Offer> for Record {
    fn from(offer: Offer) -> Self {
        Self {
            seq: offer.registration.seq,
            value: offer.value,
            expires: offer.expires,
        }
    }
}

/// What becomes of a record that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It replaces what is kept.
    Keep,
    /// Its relay takes back what is kept.
    TakesBack,
    /// It is not new.
    Old,
}

/// Judges an offer.
///
/// The peer itself may replace its record by one of any number: its clock may have been set back. What was `taken_back` here comes
/// from nobody else, unless it is newer: a relay that has just connected copies all that it has. A relay takes back what it has
/// copied here by the same record with little time left. What becomes of that depends on whether others vouch for it.
pub(crate) fn judge(
    offer: &Offer,
    kept: Option<&Record>,
    taken_back: Option<&Record>,
    now: Instant,
) -> Verdict {
    let (source, new): (&PeerId, _) = (&offer.source, &offer.registration);
    let own = *source == new.peer;
    if !own && kept.is_none() && taken_back.is_some_and(|taken| new.seq <= taken.seq) {
        return Verdict::Old;
    }
    let ends_soon = |expires| expires <= now + TAKEN_BACK;
    let Some(kept) = kept else {
        // A relay takes it back that has not heard that it is not here.
        let ends = !own && ends_soon(offer.expires);
        return if ends { Verdict::Old } else { Verdict::Keep };
    };
    if own || new.seq > kept.seq {
        Verdict::Keep
    } else if offer.value == kept.value && ends_soon(offer.expires) && !ends_soon(kept.expires) {
        Verdict::TakesBack
    } else {
        Verdict::Old
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::time::Duration;

    use libp2p::{Multiaddr, identity::Keypair};
    use p2pnode_protocol::directory::{Registration, TTL};

    use super::*;

    /// A record as its peer offers it; earlier and later ones have other numbers.
    struct Peer {
        key: Keypair,
        addrs: Vec<Multiaddr>,
        now: Instant,
    }

    impl Peer {
        /// One that holds reservations at these relays, and is reached at `more`.
        fn new(relays: &[PeerId], more: &[&str]) -> Self {
            let circuits = relays
                .iter()
                .map(|relay| format!("/ip4/203.0.113.7/udp/443/quic-v1/p2p/{relay}/p2p-circuit"));
            let addrs = circuits.chain(more.iter().map(|addr| (*addr).to_owned()));
            Self {
                key: Keypair::generate_ed25519(),
                addrs: addrs.map(|addr| addr.parse().unwrap()).collect(),
                now: Instant::now(),
            }
        }

        fn id(&self) -> PeerId {
            self.key.public().to_peer_id()
        }

        /// Its record of this number, which expires in `left`.
        fn offer(&self, source: PeerId, seq: u64, left: Duration) -> Offer {
            let value = Registration::sign(&self.key, seq, &self.addrs).unwrap();
            Offer {
                source,
                registration: Registration::read(&self.id().to_bytes(), &value).unwrap(),
                value,
                expires: self.now + left,
            }
        }

        fn kept(&self, seq: u64, left: Duration) -> Record {
            Record::from(self.offer(self.id(), seq, left))
        }

        /// What becomes of record `seq` that `source` copies with little time left, where number 2 is kept for `left`.
        fn shorten(&self, source: PeerId, seq: u64, left: Duration) -> Verdict {
            let offer = self.offer(source, seq, TAKEN_BACK);
            judge(&offer, Some(&self.kept(2, left)), None, self.now)
        }
    }

    #[test]
    fn a_peer_replaces_its_own_record_and_a_relay_brings_only_newer_ones() {
        let relay = PeerId::random();
        let peer = Peer::new(&[relay], &[]);
        let kept = peer.kept(2, TTL);
        for (source, seq, verdict) in [
            (peer.id(), 1, Verdict::Keep),
            (peer.id(), 2, Verdict::Keep),
            (relay, 1, Verdict::Old),
            (relay, 2, Verdict::Old),
            (relay, 3, Verdict::Keep),
        ] {
            let offer = peer.offer(source, seq, TTL);
            let judge = |kept, taken_back| judge(&offer, kept, taken_back, peer.now);
            assert_eq!(judge(Some(&kept), None), verdict);
            assert_eq!(judge(None, None), Verdict::Keep);
            assert_eq!(judge(None, Some(&kept)), verdict);
        }
    }

    #[test]
    fn a_relay_takes_back_by_the_same_record_with_little_time_left_once() {
        let relay = PeerId::random();
        let peer = Peer::new(&[relay], &["/ip4/198.51.100.7/tcp/443"]);
        assert_eq!(peer.shorten(relay, 2, TTL), Verdict::TakesBack);
        assert_eq!(peer.shorten(relay, 2, TAKEN_BACK), Verdict::Old, "again");
        assert_eq!(peer.shorten(relay, 1, TTL), Verdict::Old);
        let offer = peer.offer(relay, 2, TAKEN_BACK);
        assert_eq!(judge(&offer, None, None, peer.now), Verdict::Old);
    }
}
