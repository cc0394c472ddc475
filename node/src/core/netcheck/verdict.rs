//! Which peers become direct.

use p2pnode_transports::{Family, Transport};

use super::{
    Facts, Filtering, Nat, PathFacts, PeerClass, Verdict,
    mapping::is_open,
    relay::{is_up, loses_long, takes_short},
};

/// What a NAT lets happen with a class of peers: whether they become direct, `None` if that is not known.
fn becomes_direct(nat: &Nat, peer: PeerClass) -> Option<bool> {
    match peer {
        // They let in whom they have sent to, whatever the port.
        PeerClass::Public | PeerClass::FullCone | PeerClass::AddressRestricted => Some(true),
        PeerClass::EimApdf => nat.mapping.is_stable(),
        PeerClass::Symmetric => {
            let lets_in = match nat.filtering {
                Filtering::None | Filtering::Eif | Filtering::Adf => Some(true),
                Filtering::Apdf => Some(false),
                Filtering::Unknown => None,
            };
            match (nat.mapping.is_stable(), lets_in) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                (None, _) | (_, None) => None,
            }
        }
    }
}

/// Whether connections to peers can be made over a path: a relay is there, no NAT64 leads to relays alone, and no long packets are
/// lost that they need.
fn is_usable(path: &PathFacts, facts: &Facts) -> bool {
    is_up(path, facts) && !path.is_translated() && (!loses_long(path) || takes_short(path, facts))
}

/// Peers have IPv4, so IPv6 counts only without it. Of the transports the better one counts.
pub(super) fn verdict(nats: &[(&PathFacts, Nat)], facts: &Facts) -> Verdict {
    let of_family = |family| {
        let of = move |(path, _): &&(&PathFacts, Nat)| path.family == family;
        nats.iter()
            .filter(of)
            .filter(|(path, _)| is_usable(path, facts))
    };
    let family = Family::ALL
        .into_iter()
        .find(|family| of_family(*family).next().is_some());
    let mut verdict = Verdict::default();
    let Some(family) = family else {
        let up = || facts.paths.iter().filter(|path| is_up(path, facts));
        if up().any(PathFacts::is_translated) {
            // Public hosts may have IPv6. What is behind a NAT has IPv4.
            let (public, behind) = PeerClass::ALL.split_at(1);
            (verdict.unknown, verdict.relayed) = (public.to_vec(), behind.to_vec());
        } else if up().next().is_some() {
            verdict.relayed.extend(PeerClass::ALL);
        }
        return verdict;
    };
    for peer in PeerClass::ALL {
        let outcomes: Vec<_> = of_family(family)
            .map(|(path, nat)| match is_open(path, facts) {
                true => Some(true),
                // The peer learns nothing that leads here, and this node sends first.
                false if path.is_hidden() => {
                    Some(matches!(peer, PeerClass::Public | PeerClass::FullCone))
                }
                false => becomes_direct(nat, peer),
            })
            .collect();
        if outcomes.contains(&Some(true)) {
            verdict.direct.push(peer);
        } else if outcomes.contains(&None) {
            verdict.unknown.push(peer);
        } else {
            verdict.relayed.push(peer);
        }
    }
    let relayed = &mut verdict.relayed;
    let is_hard = |(path, nat): &(&PathFacts, Nat)| {
        path.transport == Transport::Quic && nat.mapping.is_stable() == Some(false)
    };
    // With a peer that has one mapping for all. Of two that map by destination, it takes the ports of both to know.
    if facts.searches
        && of_family(family).any(is_hard)
        && let Some(at) = relayed.iter().position(|peer| *peer == PeerClass::EimApdf)
    {
        verdict.search.push(relayed.remove(at));
    }
    verdict
}
