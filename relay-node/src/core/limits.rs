//! The configured limits as what enforces them has them. 0 is unlimited in the configuration, everywhere.

use std::time::Duration;

use libp2p::connection_limits::ConnectionLimits;
use p2pnode_protocol::circuit::Limit;

use crate::config::Limits;

/// The longest that a reservation or a circuit lasts, 136 years: the protocol carries seconds in 32 bits.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// What a circuit may carry.
pub(crate) fn circuit(limits: &Limits) -> Limit {
    let duration = limits.circuit_duration.min(LONGEST);
    Limit {
        duration: (!duration.is_zero()).then_some(duration),
        bytes: (limits.circuit_bytes != 0).then_some(limits.circuit_bytes),
    }
}

/// The most records that the directory keeps.
pub(crate) fn records(limits: &Limits) -> usize {
    count(limits.records)
}

/// The limits of connections, of a relay that knows that many others.
pub(crate) fn connections(limits: &Limits, relays: usize) -> ConnectionLimits {
    let some = |limit: u32| (limit != 0).then_some(limit);
    ConnectionLimits::default()
        .with_max_pending_incoming(some(limits.pending_connections))
        .with_max_established(some(limits.connections))
        .with_max_established_per_peer(some(limits.connections_per_peer))
        // The relay dials the other relays and nobody else.
        .with_max_pending_outgoing(Some(u32::try_from(relays).unwrap_or(u32::MAX)))
}

/// The most of something.
pub(crate) fn count(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

/// How long something lasts.
pub(crate) fn duration(limit: Duration) -> Duration {
    if limit.is_zero() {
        LONGEST
    } else {
        limit.min(LONGEST)
    }
}

/// No limits at all.
#[cfg(test)]
pub(crate) const UNLIMITED: Limits = Limits {
    reservations: 0,
    reservations_per_peer: 0,
    reservations_per_source: crate::config::PerSource { ip4: 0, ip6_net: 0 },
    reservation_duration: Duration::ZERO,
    circuits: 0,
    circuits_per_peer: 0,
    circuit_duration: Duration::ZERO,
    circuit_bytes: 0,
    bytes_per_second_per_peer: 0,
    connections: 0,
    connections_per_peer: 0,
    connections_per_source: crate::config::PerSource { ip4: 0, ip6_net: 0 },
    pending_connections: 0,
    records: 0,
    memory: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_unlimited_everywhere() {
        assert_eq!(duration(UNLIMITED.reservation_duration), LONGEST);
        assert_eq!(count(UNLIMITED.circuits), usize::MAX);
        let unlimited = Limit {
            duration: None,
            bytes: None,
        };
        assert_eq!(circuit(&UNLIMITED), unlimited);
        assert_eq!(records(&UNLIMITED), usize::MAX);
    }

    #[test]
    fn durations_beyond_what_the_protocol_carries_are_cut() {
        let limits = Limits {
            circuit_duration: LONGEST + Duration::from_secs(1),
            circuit_bytes: 7,
            ..UNLIMITED
        };
        let limit = Limit {
            duration: Some(LONGEST),
            bytes: Some(7),
        };
        assert_eq!(circuit(&limits), limit);
        assert_eq!(duration(Duration::MAX), LONGEST);
    }
}
