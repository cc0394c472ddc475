//! What the relay counts. Labels are bounded: never a peer id or an address.

use std::{fmt, time::Duration};

use libp2p::relay::StatusCode;
use p2pnode_bin_shared::meet::Refusal;
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
    /// A peer asks to be introduced too often, or is asked for too often.
    IntroductionLimit,
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
            Self::IntroductionLimit => "introduction_limit",
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

/// What became of a peer's wish to be introduced to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Introduction {
    /// Both were told of each other.
    Made,
    /// The one that was asked for did not take it after all.
    NotTaken,
    /// They were not.
    Refused(Refusal),
}

impl EncodeLabelValue for Introduction {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        let label = match self {
            Self::Made => "made",
            Self::NotTaken => "not_taken",
            Self::Refused(Refusal::NoReservation) => "no_reservation",
            Self::Refused(Refusal::Unsupported) => "unsupported",
            Self::Refused(Refusal::NothingInCommon) => "nothing_in_common",
            Self::Refused(Refusal::TooOften) => "too_often",
            Self::Refused(Refusal::Draining) => "draining",
        };
        EncodeLabelValue::encode(&label, encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IntroductionLabels {
    outcome: Introduction,
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
    introductions: Family<IntroductionLabels, Counter>,
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
            introductions: Family::default(),
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
            "relay_introductions",
            "Wishes of peers to be introduced to others",
            metrics.introductions.clone(),
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

    /// A peer wanted to be introduced to another.
    pub(crate) fn introduction(&self, outcome: Introduction) {
        let labels = IntroductionLabels { outcome };
        self.introductions.get_or_create(&labels).inc();
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
        metrics.denied(Reason::IntroductionLimit);
        metrics.introduction(Introduction::Made);
        metrics.introduction(Introduction::Refused(Refusal::NothingInCommon));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        for line in [
            "relay_reservations 0",
            "relay_circuits 0",
            "relay_records 0",
            "relay_circuit_seconds_count 1",
            "relay_denied_total{reason=\"no_reservation\"} 1",
            "relay_denied_total{reason=\"source_reservation_limit\"} 1",
            "relay_denied_total{reason=\"introduction_limit\"} 1",
            "relay_introductions_total{outcome=\"made\"} 1",
            "relay_introductions_total{outcome=\"nothing_in_common\"} 1",
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
