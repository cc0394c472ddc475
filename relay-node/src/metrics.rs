//! What the relay counts. Labels are bounded: never a peer id or an address.

use std::{fmt, time::Duration};

use libp2p::relay::StatusCode;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::ledger::Ledger;

/// Why the relay denied something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// `access.allow` does not name the peer.
    Access,
    /// Too many connections, in all or of the peer.
    ConnectionLimit,
    /// Too many connections from the peer's IPv4 address or IPv6 /64.
    SourceConnectionLimit,
    /// Too many reservations, in all or of the peer.
    ReservationLimit,
    /// Too many reservations from the peer's IPv4 address or IPv6 /64.
    SourceReservationLimit,
    /// Too many circuits, in all or of the peer.
    CircuitLimit,
    /// A circuit to a peer that has no reservation here.
    NoReservation,
    /// A circuit to a peer that has a reservation and did not take the circuit.
    DestinationFailed,
    /// The relay drains.
    Draining,
    /// A record of the directory that is none, or that is not its peer's to offer.
    Record,
    /// Too many records in the directory.
    RecordLimit,
    /// A request that is not one.
    Malformed,
}

impl Reason {
    /// Why libp2p denied a circuit.
    pub(crate) fn of_circuit(status: StatusCode) -> Self {
        match status {
            StatusCode::ResourceLimitExceeded | StatusCode::ReservationRefused => {
                Self::CircuitLimit
            }
            StatusCode::PermissionDenied => Self::Access,
            StatusCode::NoReservation => Self::NoReservation,
            StatusCode::ConnectionFailed => Self::DestinationFailed,
            StatusCode::MalformedMessage | StatusCode::UnexpectedMessage | StatusCode::OK => {
                Self::Malformed
            }
        }
    }

    /// The label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::ConnectionLimit => "connection_limit",
            Self::SourceConnectionLimit => "source_connection_limit",
            Self::ReservationLimit => "reservation_limit",
            Self::SourceReservationLimit => "source_reservation_limit",
            Self::CircuitLimit => "circuit_limit",
            Self::NoReservation => "no_reservation",
            Self::DestinationFailed => "destination_failed",
            Self::Draining => "draining",
            Self::Record => "record",
            Self::RecordLimit => "record_limit",
            Self::Malformed => "malformed",
        }
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// Why a connection that somebody began never came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HandshakeFailure {
    /// The other side did not finish it in time.
    Timeout,
    /// It broke off, or was none.
    Broken,
}

impl EncodeLabelValue for HandshakeFailure {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        let text = match self {
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    reason: HandshakeFailure,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeniedLabels {
    reason: Reason,
}

/// The relay's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    reservations: Gauge,
    circuits: Gauge,
    records: Gauge,
    circuit_seconds: Histogram,
    denied: Family<DeniedLabels, Counter>,
    handshake_failures: Family<HandshakeLabels, Counter>,
    draining: Gauge,
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reservations: Gauge::default(),
            circuits: Gauge::default(),
            records: Gauge::default(),
            // From a punch that succeeds at once (under a second) to a circuit that carries traffic for a day.
            circuit_seconds: Histogram::new(exponential_buckets(0.25, 4.0, 10)),
            denied: Family::default(),
            handshake_failures: Family::default(),
            draining: Gauge::default(),
        };
        registry.register(
            "relay_reservations",
            "Reservations held",
            metrics.reservations.clone(),
        );
        registry.register("relay_circuits", "Circuits open", metrics.circuits.clone());
        registry.register(
            "relay_records",
            "Records in the directory",
            metrics.records.clone(),
        );
        registry.register_with_unit(
            "relay_circuit",
            "How long closed circuits were open",
            Unit::Seconds,
            metrics.circuit_seconds.clone(),
        );
        registry.register(
            "relay_denied",
            "Connections and requests denied",
            metrics.denied.clone(),
        );
        registry.register(
            "relay_handshake_failures",
            "Connections that others began and that were never established",
            metrics.handshake_failures.clone(),
        );
        registry.register(
            "relay_draining",
            "1 once the relay drains, before that 0",
            metrics.draining.clone(),
        );
        metrics
    }

    /// Takes over the counts of `ledger`.
    pub(crate) fn observe(&self, ledger: &Ledger) {
        self.reservations
            .set(i64::try_from(ledger.reservations()).unwrap_or(i64::MAX));
        self.circuits
            .set(i64::try_from(ledger.circuits()).unwrap_or(i64::MAX));
    }

    /// That many records are in the directory.
    pub(crate) fn records(&self, records: usize) {
        self.records.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// A circuit closed after `open`.
    pub(crate) fn circuit_closed(&self, open: Duration) {
        self.circuit_seconds.observe(open.as_secs_f64());
    }

    /// The relay drains.
    pub(crate) fn draining(&self) {
        self.draining.set(1);
    }

    /// A connection that somebody began did not come about.
    pub(crate) fn handshake_failed(&self, reason: HandshakeFailure) {
        self.handshake_failures
            .get_or_create(&HandshakeLabels { reason })
            .inc();
    }

    /// Something was denied.
    pub(crate) fn denied(&self, reason: Reason) {
        self.denied.get_or_create(&DeniedLabels { reason }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_are_documented() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.observe(&Ledger::default());
        metrics.circuit_closed(Duration::from_secs(2));
        metrics.denied(Reason::of_circuit(StatusCode::NoReservation));
        metrics.denied(Reason::SourceReservationLimit);
        metrics.handshake_failed(HandshakeFailure::Timeout);
        metrics.handshake_failed(HandshakeFailure::Broken);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        for line in [
            "relay_reservations 0",
            "relay_circuits 0",
            "relay_records 0",
            "relay_circuit_seconds_count 1",
            "relay_denied_total{reason=\"no_reservation\"} 1",
            "relay_denied_total{reason=\"source_reservation_limit\"} 1",
            "relay_handshake_failures_total{reason=\"timeout\"} 1",
            "relay_handshake_failures_total{reason=\"broken\"} 1",
            "relay_draining 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        metrics.draining();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        assert!(text.contains("relay_draining 1\n"), "{text}");
    }
}
