//! What relays vouch for: whether a peer is in this node's network, and at which addresses they see the peer. Pure.
//!
//! A peer may list any address, also one of a third party or of a service inside this node's network. A configured relay sees from
//! where the peer connects. Nothing that the peer says of itself vouches.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_protocol::{Source, hop::Near};

use super::address::Scope;

/// How long a relay's word holds: longer than the longest wait between two punches of a relayed peer, which is 10 min. While a
/// circuit is open, the relay repeats every 30 s what both ends share; where it sees them, it says in an introduction alone.
const HOLDS: Duration = Duration::from_secs(15 * 60);

/// The most words about one peer that are kept: two of each of four relays.
const WORDS: usize = 8;

/// What a relay sees of a peer and of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Vouch {
    /// Both show one public address (of IPv6, one /64).
    pub(crate) same_network: bool,
    /// Where the relay sees the peer.
    pub(crate) theirs: BTreeSet<IpAddr>,
    /// Where the relay sees this node, as far as the peer learned it.
    pub(crate) ours: BTreeSet<IpAddr>,
}

impl Vouch {
    /// What the addresses of an introduction show.
    pub(crate) fn introduced(
        theirs: impl Iterator<Item = IpAddr>,
        ours: impl Iterator<Item = IpAddr>,
    ) -> Self {
        let (theirs, ours): (BTreeSet<_>, BTreeSet<_>) = (theirs.collect(), ours.collect());
        let public = |ips: &BTreeSet<IpAddr>| -> BTreeSet<Source> {
            let ips = ips.iter().copied().filter(|ip| Scope::is_global(*ip));
            ips.map(Source::from).collect()
        };
        Self {
            same_network: !public(&theirs).is_disjoint(&public(&ours)),
            theirs,
            ours,
        }
    }

    /// What the answer about a circuit says: `seen` are those of the peer's own words at which the relay sees it.
    pub(crate) fn of_circuit(near: Near, seen: &[IpAddr]) -> Self {
        let seen = seen.iter().copied().filter(|ip| Scope::is_global(*ip));
        Self {
            same_network: near.same_network,
            theirs: seen.chain(near.private.map(|ips| ips.other)).collect(),
            ours: near.private.iter().map(|ips| ips.own).collect(),
        }
    }

    /// Whether the relay sees the peer, and this node, at addresses of this scope.
    pub(super) fn sees_both(&self, scope: Scope) -> bool {
        let of = |ips: &BTreeSet<IpAddr>| ips.iter().any(|ip| Scope::of(*ip) == scope);
        of(&self.theirs) && of(&self.ours)
    }
}

/// How a relay said it: an answer about a circuit names of the public addresses those that were asked for, so it does not replace an
/// introduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Introducing,
    OfCircuit,
}

/// The words of all relays about one peer.
#[derive(Debug, Default)]
pub(super) struct Vouches(Vec<(PeerId, Said, Vouch, Instant)>);

impl Vouches {
    pub(super) fn add(&mut self, relay: PeerId, said: Said, vouch: Vouch, now: Instant) {
        self.0
            .retain(|(by, how, _, since)| (*by, *how) != (relay, said) && *since + HOLDS > now);
        if self.0.len() == WORDS {
            self.0.remove(0);
        }
        self.0.push((relay, said, vouch, now));
    }

    /// The words that hold.
    pub(super) fn at(&self, now: Instant) -> Vec<Vouch> {
        let hold = self.0.iter().filter(|(.., since)| *since + HOLDS > now);
        hold.map(|(_, _, vouch, _)| vouch.clone()).collect()
    }
}
