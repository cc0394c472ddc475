//! The order of paths: smaller is better.

use std::{
    cmp::Ordering,
    fmt,
    time::{Duration, Instant},
};

use p2pnode_transports::FamilyPolicy;
use serde::{Deserialize, Serialize};

use super::{Path, PathKind};

/// The rank of a path among those of one peer. The fields stand in the order of their importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// Direct before relayed.
    pub kind: PathKind,
    /// The same IP family on both hops before a relay that changes it; what is unknown counts as the same.
    pub bridges_families: bool,
    /// The configured family first.
    pub family: u8,
    /// Round trip time in steps of 5 ms; not yet measured sorts last.
    pub rtt_steps: u128,
    /// The older connection first: it has proven itself.
    pub since: Instant,
}

impl Score {
    /// Two round trip times that differ by less than this count as equal: jitter must not move a path.
    pub(crate) const RTT_STEP: Duration = Duration::from_millis(5);

    /// The score of `path`, which is up since `since`.
    pub(crate) fn new(
        path: &Path,
        rtt: Option<Duration>,
        since: Instant,
        policy: FamilyPolicy,
    ) -> Self {
        let family = path
            .hops
            .first()
            .and_then(|hop| hop.family)
            .map_or(u8::MAX, |family| policy.rank(family));
        Self {
            kind: path.kind,
            bridges_families: path.bridges_families(),
            family,
            rtt_steps: Self::rtt_steps(rtt),
            since,
        }
    }

    /// A round trip time in steps; one that is not known sorts last.
    pub(crate) fn rtt_steps(rtt: Option<Duration>) -> u128 {
        rtt.map_or(u128::MAX, |rtt| {
            rtt.as_micros() / Self::RTT_STEP.as_micros()
        })
    }
}

impl Score {
    /// Whether a path of this score replaces the path in use, whose score is `used`. A round trip time has to be shorter by more
    /// than a step, or a path would move at each crossing of a step. The round trip time in use has to be known. Age alone moves
    /// no path.
    pub(crate) fn promotes_over(&self, used: &Self) -> bool {
        let axes = |score: &Self| (score.kind, score.bridges_families, score.family);
        match axes(self).cmp(&axes(used)) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                used.rtt_steps != u128::MAX && self.rtt_steps.saturating_add(1) < used.rtt_steps
            }
        }
    }
}

/// One axis of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Direct before relayed.
    Kind,
    /// The same family on both hops before a relay that changes it.
    #[serde(rename = "crossed")]
    BridgesFamilies,
    /// The configured family first.
    Family,
    /// The smaller round trip time, in steps.
    Rtt,
    /// The older first.
    Age,
}

/// What puts one path before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecidedBy {
    /// The path is in use, and the other one is not better by enough.
    Kept,
    /// An axis of the score.
    #[serde(untagged)]
    Axis(Axis),
}

impl fmt::Display for DecidedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => f.pad("kept"),
            Self::Axis(axis) => axis.fmt(f),
        }
    }
}

impl Score {
    /// The axis that puts `self` before `other`, or the other way round; `None` if they are equal.
    pub(crate) fn decided_by(&self, other: &Self) -> Option<Axis> {
        let axes = [
            (self.kind != other.kind, Axis::Kind),
            (
                self.bridges_families != other.bridges_families,
                Axis::BridgesFamilies,
            ),
            (self.family != other.family, Axis::Family),
            (self.rtt_steps != other.rtt_steps, Axis::Rtt),
            (self.since != other.since, Axis::Age),
        ];
        axes.into_iter()
            .find(|(differs, _)| *differs)
            .map(|(_, axis)| axis)
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use p2pnode_transports::{Family, Transport};

    use super::*;
    use crate::core::peers::{Hop, How};

    fn path(kind: PathKind, family: Family) -> Path {
        let hop = Hop {
            transport: Some(Transport::Quic),
            family: Some(family),
            ..Hop::default()
        };
        Path {
            kind,
            relay: None,
            how: How::Dialed,
            hops: vec![hop],
        }
    }

    #[test]
    fn a_slow_direct_path_comes_before_a_fast_relayed_one() {
        let now = Instant::now();
        let direct = path(PathKind::Direct, Family::Ip4);
        let relayed = path(PathKind::Relayed, Family::Ip4);
        let slow = Score::new(
            &direct,
            Some(Duration::from_millis(300)),
            now,
            FamilyPolicy::Auto,
        );
        let fast = Score::new(
            &relayed,
            Some(Duration::from_millis(3)),
            now,
            FamilyPolicy::Auto,
        );
        assert!(slow < fast);
    }

    #[test]
    fn the_configured_family_comes_before_the_round_trip_time() {
        let now = Instant::now();
        let ip4 = Score::new(
            &path(PathKind::Direct, Family::Ip4),
            Some(Duration::from_millis(9)),
            now,
            FamilyPolicy::PreferIp6,
        );
        let ip6 = Score::new(
            &path(PathKind::Direct, Family::Ip6),
            Some(Duration::from_millis(90)),
            now,
            FamilyPolicy::PreferIp6,
        );
        assert!(ip6 < ip4);
    }

    #[test]
    fn jitter_within_a_step_does_not_move_a_path() {
        let now = Instant::now();
        let p = path(PathKind::Direct, Family::Ip4);
        let older = Score::new(&p, Some(Duration::from_millis(14)), now, FamilyPolicy::Auto);
        let younger = Score::new(
            &p,
            Some(Duration::from_millis(11)),
            now + Duration::from_secs(1),
            FamilyPolicy::Auto,
        );
        assert!(older < younger);
    }
}
