//! The order of paths: smaller is better.

use std::time::{Duration, Instant};

use p2pnode_transports::FamilyPolicy;

use super::{Path, PathKind};

/// Two round trip times that differ by less than this count as equal: jitter must not move a path.
const RTT_STEP: Duration = Duration::from_millis(5);

/// The rank of a path among those of one peer. The fields stand in the order of their importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Direct before relayed.
    pub kind: PathKind,
    /// The configured family first.
    pub family: u8,
    /// Round trip time in steps of 5 ms; not yet measured sorts last.
    pub rtt_steps: u128,
    /// The older connection first: it has proven itself.
    pub since: Instant,
}

impl Score {
    /// The score of `path`, which is up since `since`.
    pub fn new(path: &Path, rtt: Option<Duration>, since: Instant, policy: FamilyPolicy) -> Self {
        let family = path.hops.first().and_then(|hop| hop.family).map_or(u8::MAX, |family| policy.rank(family));
        Self {
            kind: path.kind,
            family,
            rtt_steps: rtt.map_or(u128::MAX, |rtt| rtt.as_micros() / RTT_STEP.as_micros()),
            since,
        }
    }
}

#[cfg(test)]
mod tests {
    use p2pnode_transports::{Family, Kind};

    use super::*;
    use crate::peers::{Hop, How};

    fn path(kind: PathKind, family: Family) -> Path {
        let hop = Hop { transport: Some(Kind::Quic), family: Some(family), ..Hop::default() };
        Path { kind, relay: None, how: How::Dialed, hops: vec![hop] }
    }

    #[test]
    fn a_slow_direct_path_comes_before_a_fast_relayed_one() {
        let now = Instant::now();
        let direct = path(PathKind::Direct, Family::Ip4);
        let relayed = path(PathKind::Relayed, Family::Ip4);
        let slow = Score::new(&direct, Some(Duration::from_millis(300)), now, FamilyPolicy::Auto);
        let fast = Score::new(&relayed, Some(Duration::from_millis(3)), now, FamilyPolicy::Auto);
        assert!(slow < fast);
    }

    #[test]
    fn the_configured_family_comes_before_the_round_trip_time() {
        let now = Instant::now();
        let ip4 = Score::new(&path(PathKind::Direct, Family::Ip4), Some(Duration::from_millis(9)), now, FamilyPolicy::PreferIp6);
        let ip6 = Score::new(&path(PathKind::Direct, Family::Ip6), Some(Duration::from_millis(90)), now, FamilyPolicy::PreferIp6);
        assert!(ip6 < ip4);
    }

    #[test]
    fn jitter_within_a_step_does_not_move_a_path() {
        let now = Instant::now();
        let p = path(PathKind::Direct, Family::Ip4);
        let older = Score::new(&p, Some(Duration::from_millis(14)), now, FamilyPolicy::Auto);
        let younger = Score::new(&p, Some(Duration::from_millis(11)), now + Duration::from_secs(1), FamilyPolicy::Auto);
        assert!(older < younger);
    }
}
