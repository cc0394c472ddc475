//! What becomes of a record that is offered, beside the one that is kept: pure.

use libp2p::PeerId;

use super::Registration;

/// A record, and whether it ends within [`super::TAKEN_BACK`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) registration: &'a Registration,
    pub(super) ends_soon: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It replaces what is kept.
    Keep,
    /// What is kept ends when it does.
    Shorten,
    /// It is not new.
    Old,
}

/// Judges what `source` offers.
///
/// The peer itself may replace its record by one of any number: its clock may have been set back. What was `taken_back` here comes from
/// nobody else, unless it is newer: a relay that has just connected copies all that it has. A relay may take back what it has
/// told, by the same record with little time left, if that leads through this relay alone: whoever it does not let in cannot be
/// called there, and it gains no power over peers that others serve.
pub(super) fn judge(
    source: &PeerId,
    offered: Judged<'_>,
    kept: Option<Judged<'_>>,
    taken_back: Option<&Registration>,
) -> Verdict {
    let new = offered.registration;
    let own = *source == new.peer;
    if !own && taken_back.is_some_and(|taken| new.seq <= taken.seq) {
        return Verdict::Old;
    }
    let Some(kept) = kept else {
        return Verdict::Keep;
    };
    let old = kept.registration;
    if own || new.seq > old.seq {
        Verdict::Keep
    } else if new == old && offered.ends_soon && !kept.ends_soon && new.leads_only_through(source) {
        Verdict::Shorten
    } else {
        Verdict::Old
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use libp2p::{Multiaddr, identity::Keypair};

    use super::*;

    /// A record of number 2, and later and earlier ones, with circuits over these relays.
    struct Records {
        earlier: Registration,
        now: Registration,
        later: Registration,
    }

    fn records(relays: &[PeerId], more: &[&str]) -> Records {
        let key = Keypair::generate_ed25519();
        let circuits = relays
            .iter()
            .map(|relay| format!("/ip4/203.0.113.7/udp/443/quic-v1/p2p/{relay}/p2p-circuit"));
        let addrs: Vec<Multiaddr> = circuits
            .chain(more.iter().map(|addr| (*addr).to_owned()))
            .map(|addr| addr.parse().unwrap())
            .collect();
        let peer = key.public().to_peer_id();
        let [earlier, now, later] = [1, 2, 3].map(|seq| {
            let value = Registration::sign(&key, seq, &addrs).unwrap();
            Registration::read(&peer.to_bytes(), &value).unwrap()
        });
        Records {
            earlier,
            now,
            later,
        }
    }

    fn lasting(registration: &Registration) -> Judged<'_> {
        Judged {
            registration,
            ends_soon: false,
        }
    }

    fn ending(registration: &Registration) -> Judged<'_> {
        Judged {
            registration,
            ends_soon: true,
        }
    }

    #[test]
    fn a_peer_replaces_its_own_record_and_a_relay_brings_only_newer_ones() {
        let relay = PeerId::random();
        let Records {
            earlier,
            now,
            later,
        } = records(&[relay], &[]);
        let kept = Some(lasting(&now));
        for (source, offered, verdict) in [
            (now.peer, &earlier, Verdict::Keep),
            (now.peer, &now, Verdict::Keep),
            (relay, &earlier, Verdict::Old),
            (relay, &now, Verdict::Old),
            (relay, &later, Verdict::Keep),
        ] {
            assert_eq!(judge(&source, lasting(offered), kept, None), verdict);
            assert_eq!(judge(&source, lasting(offered), None, None), Verdict::Keep);
            assert_eq!(judge(&source, lasting(offered), None, Some(&now)), verdict);
        }
    }

    fn shorten(source: &PeerId, offered: &Registration, kept: Judged<'_>) -> Verdict {
        judge(source, ending(offered), Some(kept), None)
    }

    #[test]
    fn a_relay_takes_back_what_leads_through_it_alone_once_and_nothing_else() {
        let (relay, other) = (PeerId::random(), PeerId::random());
        let Records {
            earlier,
            now,
            later: _,
        } = records(&[relay, relay], &[]);
        assert_eq!(shorten(&relay, &now, lasting(&now)), Verdict::Shorten);
        assert_eq!(shorten(&relay, &now, ending(&now)), Verdict::Old, "again");
        assert_eq!(
            shorten(&other, &now, lasting(&now)),
            Verdict::Old,
            "another"
        );
        assert_eq!(shorten(&relay, &earlier, lasting(&now)), Verdict::Old);
        for more in ["/ip4/198.51.100.7/tcp/443", "/dns/example.net/tcp/443"] {
            let Records { now, .. } = records(&[relay], &[more]);
            assert_eq!(shorten(&relay, &now, lasting(&now)), Verdict::Old, "{more}");
        }
        let Records { now, .. } = records(&[relay, other], &[]);
        assert_eq!(shorten(&relay, &now, lasting(&now)), Verdict::Old);
        let Records { now, .. } = records(&[], &[]);
        assert_eq!(
            shorten(&relay, &now, lasting(&now)),
            Verdict::Old,
            "withdrawn"
        );
    }
}
