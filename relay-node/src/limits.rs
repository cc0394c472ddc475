//! The configured limits in libp2p's terms.

use std::time::Duration;

use libp2p::{connection_limits::ConnectionLimits, relay};

use crate::{config::Limits, requests::Requests};

/// The longest time that libp2p's relay can put into a reservation or a circuit, 136 years: the protocol carries seconds
/// in 32 bits, and libp2p panics above.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// The relay's limits.
///
/// 0 is unlimited in our configuration, everywhere. In libp2p's it is so for bytes only: a duration of 0 expires at once,
/// and a count of 0 admits nothing.
///
/// libp2p's default limits the *rate* of requests as well, per peer and per IP address. These go: there may be a thousand
/// peers behind one NAT, and after a restart of the relay all of them come back at once. In their place stands `requests`, which
/// judges each request by itself, and reservations by their number, too.
pub(crate) fn relay(limits: &Limits, requests: &Requests) -> relay::Config {
    relay::Config {
        max_reservations: usize::MAX,
        max_reservations_per_peer: usize::MAX,
        reservation_duration: duration(limits.reservation_duration),
        reservation_rate_limiters: vec![requests.reservations()],
        max_circuits: count(limits.circuits),
        max_circuits_per_peer: per_peer(limits.circuits_per_peer),
        max_circuit_duration: duration(limits.circuit_duration),
        max_circuit_bytes: limits.circuit_bytes,
        circuit_src_rate_limiters: vec![requests.circuits()],
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

fn count(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

/// libp2p compares what a peer has with `>` before it grants one more, and so grants one more than its limit says.
fn per_peer(limit: usize) -> usize {
    count(limit) - 1
}

fn duration(limit: Duration) -> Duration {
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
    use crate::admission::Admission;

    fn relay(limits: &Limits) -> relay::Config {
        super::relay(limits, &Requests::new(limits, Admission::open()))
    }

    #[test]
    fn zero_is_unlimited_everywhere() {
        let config = relay(&UNLIMITED);
        assert_eq!(config.reservation_duration, LONGEST);
        assert_eq!(config.max_circuits, usize::MAX);
        assert!(config.max_circuits_per_peer > u32::MAX as usize);
        assert_eq!(config.max_circuit_duration, LONGEST);
        assert_eq!(config.max_circuit_bytes, 0);
        assert_eq!(records(&UNLIMITED), usize::MAX);
    }

    #[test]
    fn requests_are_judged_by_us_alone_and_not_by_rate() {
        let limits = Limits {
            reservations: 1,
            reservations_per_peer: 1,
            ..UNLIMITED
        };
        let config = relay(&limits);
        assert_eq!(config.max_reservations, usize::MAX);
        assert_eq!(config.max_reservations_per_peer, usize::MAX);
        assert_eq!(config.reservation_rate_limiters.len(), 1);
        assert_eq!(config.circuit_src_rate_limiters.len(), 1);
    }

    #[test]
    fn durations_beyond_what_the_protocol_carries_are_cut() {
        let limits = Limits {
            reservation_duration: Duration::MAX,
            circuit_duration: LONGEST + Duration::from_secs(1),
            ..UNLIMITED
        };
        let config = relay(&limits);
        assert_eq!(config.reservation_duration, LONGEST);
        assert_eq!(config.max_circuit_duration, LONGEST);
    }
}
