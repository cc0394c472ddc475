//! What a search does, as it follows from both sides.

use std::{net::SocketAddr, time::Duration};

use libp2p::PeerId;

use super::{
    budget::{BURST, OUTSTANDING, PAUSE},
    pairs,
};
use crate::core::search_report::NoSearch;
use p2pnode_protocol::{
    Family,
    port_search::{Key, LOWEST_PORT, Part, Ports, Side},
};

/// The most packets of a series, and the most within 30 s.
pub(super) const IN_ALL: u32 = 3_000;
pub(super) const MOST_OUTSTANDING: u32 = 1_000;

/// The same where both sides are hard: 1,554 packets a side find a pair in nine of ten searches in blocks of 1,024, and all of
/// them have to be outstanding at once.
pub(super) const BOTH_HARD: u32 = 2_000;

/// The longest block that two hard sides search.
const BLOCK: u32 = 4_096;

/// Ports that others may have taken since a sequential NAT was looked at.
const TAKEN: u32 = 32;

/// How often a small space is searched.
const PASSES: u32 = 3;

/// How often each socket opens at most: the openings are repeated while the longest series lasts.
const ROUNDS: u32 = 16;

/// Probes arrive after this, and the relay's word.
const LATE: Duration = Duration::from_secs(3);

/// What this side does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// Opens sockets toward the remote's only port.
    Opens,
    /// Probes the remote's ports from the punch socket.
    Probes,
    /// Both.
    Both,
    /// Sends between known ports.
    Pairs,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) does: Does,
    /// Sockets that this side opens.
    pub(crate) sockets: u16,
    /// Where the remote is. Of a hard one the port is that toward the relay.
    pub(crate) remote: SocketAddr,
    /// The remote's ports, if they are to be found.
    pub(super) space: Option<Ports>,
    /// The remote's port for each of this side's sockets, if they are known.
    pub(super) pairs: Vec<u16>,
    /// Sockets that a hard side opens.
    pub(super) opened: u32,
    /// What is sent at most, in all and within 30 s.
    pub(super) packets: u32,
    pub(super) most_outstanding: u32,
    /// When both sides end it.
    pub(crate) lasts: Duration,
}

/// A search to begin.
#[derive(Debug, Clone)]
pub(crate) struct Begin {
    pub(crate) peer: PeerId,
    /// This side, as its relay sees it.
    pub(crate) own: Side,
    pub(crate) plan: Plan,
    pub(crate) key: Key,
    pub(crate) part: Part,
    pub(crate) seed: u64,
    /// Whether a direct path moves to this pair.
    pub(crate) moves: bool,
}

impl PartialEq for Begin {
    fn eq(&self, other: &Self) -> bool {
        (self.peer, &self.plan, self.part) == (other.peer, &other.plan, other.part)
    }
}

impl Plan {
    /// The plan of this side.
    ///
    /// # Errors
    ///
    /// If there is nothing to be gained.
    pub(crate) fn new(own: &Side, theirs: &Side) -> Result<Self, NoSearch> {
        let (ours, remote) = (own.mapped.ip(), theirs.mapped.ip());
        if Family::from(ours) != Family::from(remote) {
            return Err(NoSearch::Family);
        }
        if ours == remote {
            return Err(NoSearch::SameNat);
        }
        if let Some(pairs) = known(own, theirs) {
            return Ok(Self::of_pairs(theirs.mapped, pairs));
        }
        let (does, opened, most_outstanding) = match (own.ports, theirs.ports) {
            (None, None) => return Err(NoSearch::NotSymmetric),
            (Some(_), None) => (Does::Opens, own.sockets, MOST_OUTSTANDING),
            (None, Some(_)) => (Does::Probes, theirs.sockets, MOST_OUTSTANDING),
            (Some(one), Some(other)) if is_small(one) && is_small(other) => {
                (Does::Both, own.sockets.min(theirs.sockets), BOTH_HARD)
            }
            (Some(_), Some(_)) => return Err(NoSearch::RandomBoth),
        };
        if opened == 0 {
            return Err(NoSearch::NoPorts);
        }
        let opened = u32::from(opened);
        let searched = own.ports.or(theirs.ports).unwrap_or(Ports::Random);
        let probes = if does == Does::Both {
            BOTH_HARD
        } else {
            IN_ALL.min(size(searched, opened) * PASSES)
        };
        Ok(Self {
            does,
            sockets: if does == Does::Probes { 0 } else { own.sockets },
            remote: theirs.mapped,
            space: theirs.ports,
            pairs: Vec::new(),
            opened,
            packets: if does == Does::Opens {
                IN_ALL.min(opened * ROUNDS)
            } else {
                probes
            },
            most_outstanding,
            lasts: takes(probes, most_outstanding) + LATE,
        })
    }

    fn of_pairs(remote: SocketAddr, pairs: Vec<u16>) -> Self {
        let sockets = u16::try_from(pairs.len()).unwrap_or(u16::MAX);
        Self {
            does: Does::Pairs,
            sockets,
            remote: SocketAddr::new(remote.ip(), pairs.first().copied().unwrap_or_default()),
            space: None,
            pairs,
            opened: sockets.into(),
            packets: pairs::IN_ALL,
            most_outstanding: MOST_OUTSTANDING,
            lasts: takes(pairs::IN_ALL, MOST_OUTSTANDING) + LATE,
        }
    }

    /// Whether each side has known ports.
    pub(crate) fn is_of_pairs(&self) -> bool {
        self.does == Does::Pairs
    }

    /// The remote's ports in the order of their numbers.
    pub(super) fn ports(&self) -> Vec<u16> {
        match self.space {
            None => Vec::new(),
            Some(Ports::Random) => (LOWEST_PORT..=u16::MAX).collect(),
            Some(Ports::Block { from, to }) => (from..=to).collect(),
            Some(Ports::Sequential { last, step }) => (1..=ahead(self.opened))
                .filter_map(|nth| nth_after(last, step, nth))
                .collect(),
        }
    }
}

/// The remote's port for each socket of this side, if both sides name ports: the one that a path moves to, or fresh ones.
fn known(own: &Side, theirs: &Side) -> Option<Vec<u16>> {
    let one = |side: &Side| match side.ports {
        Some(Ports::Block { from, to }) if from == to && side.sockets == 1 => Some(from),
        _ => None,
    };
    match (own.ports, theirs.ports) {
        (None, None) => own.fresh.and(theirs.fresh).map(Vec::from),
        _ => one(own).and(one(theirs)).map(|port| vec![port]),
    }
}

/// The nth port after this one.
pub(super) fn nth_after(last: u16, step: u16, nth: u32) -> Option<u16> {
    u16::try_from(u32::from(last) + u32::from(step) * nth).ok()
}

const fn ahead(opened: u32) -> u32 {
    opened + TAKEN
}

fn size(ports: Ports, opened: u32) -> u32 {
    match ports {
        Ports::Random => u32::from(u16::MAX - LOWEST_PORT) + 1,
        Ports::Block { from, to } => u32::from(to - from) + 1,
        Ports::Sequential { .. } => ahead(opened),
    }
}

fn is_small(ports: Ports) -> bool {
    size(ports, 0) <= BLOCK
}

/// How long it takes to send so many packets.
fn takes(packets: u32, most_outstanding: u32) -> Duration {
    let pauses = packets.saturating_sub(1) / most_outstanding;
    let last = packets - pauses * most_outstanding;
    OUTSTANDING * pauses + PAUSE * last.div_ceil(BURST)
}
