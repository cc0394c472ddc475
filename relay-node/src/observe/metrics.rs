//! What the relay counts. Labels are bounded: never a peer id or an address.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use p2pnode_protocol::introduction::Refusal;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::core::{Cut, DenialReason, Ignored, Outcome, Totals};

/// How many bytes all circuits have carried.
#[derive(Debug, Clone, Default)]
pub(crate) struct Carried {
    pub(crate) to_destination: Counter,
    pub(crate) to_source: Counter,
}

/// Why a connection that somebody began never came about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HandshakeFailure {
    /// The other side did not finish it in time.
    Timeout,
    /// It broke off, or was none.
    Broken,
}

impl HandshakeFailure {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        }
    }
}

/// What became of a peer's wish to be introduced to another.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Introduction {
    /// Both learned of each other.
    Made,
    /// The one that was asked for did not take it after all.
    NotTaken,
    /// They were not.
    Refused(Refusal),
}

impl Introduction {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::NotTaken => "not_taken",
            Self::Refused(Refusal::NoReservation) => "no_reservation",
            Self::Refused(Refusal::Unsupported) => "unsupported",
            Self::Refused(Refusal::NothingInCommon) => "nothing_in_common",
            Self::Refused(Refusal::TooOften) => "too_often",
            Self::Refused(Refusal::Draining) => "draining",
        }
    }
}

/// Why the relay cut a circuit.
const fn reason(cut: &Cut) -> &'static str {
    match cut {
        Cut::Bytes => "bytes",
        Cut::Duration => "duration",
        Cut::Stalled(_) => "stalled",
        Cut::Stream(_) => "broken",
    }
}

/// What came of reading the configuration again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reloaded {
    /// It is in force.
    Applied,
    /// It is wrong and changes nothing.
    Refused,
}

impl Reloaded {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

/// What became of a request of STUN.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StunOutcome {
    /// It was answered.
    Answered,
    /// The partner was asked to answer.
    Partner,
    /// It was not.
    Ignored(Ignored),
}

impl StunOutcome {
    const ALL: [Self; 6] = [
        Self::Answered,
        Self::Partner,
        Self::Ignored(Ignored::Malformed),
        Self::Ignored(Ignored::TooOften),
        Self::Ignored(Ignored::NotPartner),
        Self::Ignored(Ignored::NoOther),
    ];

    pub(crate) const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Send {
                is_for_partner: true,
                ..
            } => Self::Partner,
            Outcome::Send { .. } | Outcome::Connect { .. } => Self::Answered,
            Outcome::Ignore(why) => Self::Ignored(*why),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Partner => "partner",
            Self::Ignored(Ignored::Malformed) => "malformed",
            Self::Ignored(Ignored::TooOften) => "too_often",
            Self::Ignored(Ignored::NotPartner) => "not_partner",
            Self::Ignored(Ignored::NoOther) => "no_other",
        }
    }
}

/// A label and its value.
type By = [(&'static str, &'static str); 1];

p2pnode_daemon::metrics! {
    /// The relay's metrics.
    #[derive(Debug, Clone)]
    pub(crate) struct Metrics {
        reservations: Gauge => "relay_reservations", "Reservations held";
        circuits: Gauge => "relay_circuits", "Circuits open";
        records: Gauge => "relay_records", "Records in the directory";
        translated_peers: Gauge => "relay_translated_peers",
            "Peers that all have the same source address, because a NAT in front of the relay hides theirs";
        shared_keys: Gauge => "relay_shared_keys",
            "Peers of which two connections hold a reservation and answer at once: two hosts use one key";
        // From a punch that succeeds at once (under a second) to a circuit that carries traffic for a day.
        circuit_seconds: Histogram = Histogram::new(exponential_buckets(0.25, 4.0, 10)) => "relay_circuit" in Seconds,
            "How long closed circuits were open";
        circuit_bytes: Family<By, Counter> => "relay_circuit" in Bytes, "Bytes that circuits have carried";
        denied: Family<By, Counter> => "relay_denied", "Connections and requests denied";
        handshake_failures: Family<By, Counter> => "relay_handshake_failures",
            "Connections that others began and that were never established";
        introductions: Family<By, Counter> => "relay_introductions", "Wishes of peers to be introduced to others";
        closed_for_memory: Counter => "relay_closed_for_memory",
            "Connections closed because too little was left of limits.memory, strangers first, of these the ones that held the most";
        cut: Family<By, Counter> => "relay_circuits_cut", "Circuits that ended before their peers closed them";
        listener_errors: Counter => "relay_listener_errors",
            "Errors of listeners that go on, as when no file can be opened for a connection";
        draining: Gauge => "relay_draining", "1 once the relay drains, before that 0";
        reloads: Family<By, Counter> => "relay_reloads", "How often the configuration was read again";
        stun: Family<By, Counter> => "relay_stun", "Requests of STUN, by what became of them";
        tally: Arc<Mutex<Tally>> => unregistered;
    }
}

/// What the status reports and the registry does not give back.
#[derive(Debug, Default)]
struct Tally {
    circuits_closed: u64,
    denied: BTreeMap<&'static str, u64>,
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_all(registry);
        for reason in ["bytes", "duration", "stalled", "broken"] {
            drop(metrics.cut.get_or_create(&[("reason", reason)]));
        }
        for outcome in StunOutcome::ALL {
            let labels = [("outcome", outcome.as_str())];
            drop(metrics.stun.get_or_create(&labels));
        }
        metrics
    }

    /// The configuration was read again.
    pub(crate) fn reloaded(&self, outcome: Reloaded) {
        self.reloads
            .get_or_create(&[("outcome", outcome.as_str())])
            .inc();
    }

    /// A request of STUN was answered or not.
    pub(crate) fn stun(&self, outcome: StunOutcome) {
        self.stun
            .get_or_create(&[("outcome", outcome.as_str())])
            .inc();
    }

    /// Takes over how much there is of what.
    pub(crate) fn observe(&self, totals: Totals) {
        let set = |gauge: &Gauge, count| gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        set(&self.reservations, totals.reservations);
        set(&self.circuits, totals.circuits);
        set(&self.records, totals.records);
        set(&self.translated_peers, totals.translated_peers);
        set(&self.shared_keys, totals.shared_keys);
    }

    /// Where connections are counted that were closed because the process was above `limits.memory`.
    pub(crate) fn closed_for_memory(&self) -> Counter {
        self.closed_for_memory.clone()
    }

    /// Where the bytes of circuits are counted.
    pub(crate) fn carried(&self) -> Carried {
        let counter = |direction| {
            let labels = [("direction", direction)];
            self.circuit_bytes.get_or_create_owned(&labels)
        };
        Carried {
            to_destination: counter("to_destination"),
            to_source: counter("to_source"),
        }
    }

    /// A listener reported an error and goes on.
    pub(crate) fn listener_error(&self) {
        self.listener_errors.inc();
    }

    /// A circuit closed after `open`.
    pub(crate) fn circuit_closed(&self, open: Duration, cut: Option<&Cut>) {
        if let Some(cut) = cut {
            self.cut.get_or_create(&[("reason", reason(cut))]).inc();
        }
        self.circuit_seconds.observe(open.as_secs_f64());
        self.tally(|tally| tally.circuits_closed += 1);
    }

    /// The relay drains.
    pub(crate) fn draining(&self) {
        self.draining.set(1);
    }

    /// A connection that somebody began did not come about.
    pub(crate) fn handshake_failed(&self, reason: HandshakeFailure) {
        self.handshake_failures
            .get_or_create(&[("reason", reason.as_str())])
            .inc();
    }

    /// A peer wanted to be introduced to another.
    pub(crate) fn introduction(&self, outcome: Introduction) {
        let labels = [("outcome", outcome.as_str())];
        self.introductions.get_or_create(&labels).inc();
    }

    /// Something was denied.
    pub(crate) fn denied(&self, reason: DenialReason) {
        self.denied
            .get_or_create(&[("reason", reason.as_str())])
            .inc();
        self.tally(|tally| *tally.denied.entry(reason.as_str()).or_default() += 1);
    }

    /// How many circuits have closed.
    pub(crate) fn circuits_closed(&self) -> u64 {
        self.tally(|tally| tally.circuits_closed)
    }

    /// Bytes that circuits have carried, both directions together.
    pub(crate) fn circuit_bytes(&self) -> u64 {
        let carried = self.carried();
        carried.to_destination.get() + carried.to_source.get()
    }

    /// What was denied how often, by reason.
    pub(crate) fn denials(&self) -> BTreeMap<String, u64> {
        self.tally(|tally| {
            let denied = tally.denied.iter();
            denied
                .map(|(reason, count)| ((*reason).to_owned(), *count))
                .collect()
        })
    }

    fn tally<T>(&self, with: impl FnOnce(&mut Tally) -> T) -> T {
        with(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_of_metrics_is_current() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        drop(metrics.carried());
        for reason in DenialReason::ALL {
            metrics.denied(reason);
        }
        for outcome in [Reloaded::Applied, Reloaded::Refused] {
            metrics.reloaded(outcome);
        }
        for reason in [HandshakeFailure::Timeout, HandshakeFailure::Broken] {
            metrics.handshake_failed(reason);
        }
        let refusals = [
            Refusal::NoReservation,
            Refusal::Unsupported,
            Refusal::NothingInCommon,
            Refusal::TooOften,
            Refusal::Draining,
        ];
        let refused = refusals.into_iter().map(Introduction::Refused);
        for outcome in refused.chain([Introduction::Made, Introduction::NotTaken]) {
            metrics.introduction(outcome);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        let page = p2pnode_daemon::reference::metrics("relay-node", &text, &[]);
        let stale = p2pnode_daemon::reference::stale("docs/reference/metrics-relay-node.md", &page);
        assert!(matches!(stale, Ok(None)), "{stale:?}");
    }

    #[test]
    fn the_names_are_those_that_are_documented() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.carried().to_source.inc_by(7);
        metrics.circuit_closed(Duration::from_secs(2), None);
        let cut = Cut::Stalled(Duration::from_secs(60));
        metrics.circuit_closed(Duration::from_secs(2), Some(&cut));
        metrics.denied(DenialReason::NoReservation);
        metrics.denied(DenialReason::SourceReservationLimit);
        metrics.reloaded(Reloaded::Refused);
        metrics.handshake_failed(HandshakeFailure::Timeout);
        metrics.handshake_failed(HandshakeFailure::Broken);
        metrics.denied(DenialReason::IntroductionLimit);
        metrics.introduction(Introduction::Made);
        metrics.introduction(Introduction::Refused(Refusal::NothingInCommon));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        for line in [
            "relay_reservations 0",
            "relay_circuits 0",
            "relay_records 0",
            "relay_circuit_seconds_count 2",
            "relay_circuits_cut_total{reason=\"stalled\"} 1",
            "relay_circuit_bytes_total{direction=\"to_source\"} 7",
            "relay_circuit_bytes_total{direction=\"to_destination\"} 0",
            "relay_denied_total{reason=\"no_reservation\"} 1",
            "relay_denied_total{reason=\"source_reservation_limit\"} 1",
            "relay_handshake_failures_total{reason=\"timeout\"} 1",
            "relay_handshake_failures_total{reason=\"broken\"} 1",
            "relay_denied_total{reason=\"introduction_limit\"} 1",
            "relay_introductions_total{outcome=\"made\"} 1",
            "relay_introductions_total{outcome=\"nothing_in_common\"} 1",
            "relay_draining 0",
            "relay_reloads_total{outcome=\"refused\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(metrics.circuits_closed(), 2);
        assert_eq!(metrics.denials().get("no_reservation"), Some(&1));
        metrics.draining();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        assert!(text.contains("relay_draining 1\n"), "{text}");
    }
}
